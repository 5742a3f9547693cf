"""Memory and images a second of the three storages, against torch's DataLoader over the same folder.

    python benchmarks/data_storage.py [images] [--resolution 64] [--workers 2] [--seconds 20] [--folder DIR] [--storages disk,stream]

Makes JPEGs of 320 x 240 in a folder (200,000 without an argument), and loads them in a process of its own for each storage. It is
sampled what that process has resident above what it had after its imports, and what it and its workers have together (the share of
each page that is theirs: PSS). Then training batches are taken. The peer is what people write with torch alone: a Dataset that opens
a file with Pillow, cuts a random part out of it and resizes it, in a DataLoader of as many workers; it and the stream take turns.
Writes docs/results/benchmark-data-storage.json.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-data-storage.json"
CLASSES, TEST = 20, 0.02
BATCH, CROP = 32, (0.08, 1.0)
SIZE = (320, 240)
ROUNDS = 3  # in which the stream and the peer take turns


def make_images(folder: Path, images: int) -> Path:
    """JPEGs that are smooth as photos are, with some noise, in 20 classes of 4 superclasses; made once."""
    done = folder / f"{images}.done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        test = max(2 * CLASSES, round(TEST * images))
        parts = [("train", first, min(2000, images - first)) for first in range(0, images, 2000)]
        parts += [("test", 10**9, test)]
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
            list(pool.map(_make, [str(folder)] * len(parts), *zip(*parts, strict=True)))
        done.touch()
    return folder


def _make(folder: str, split: str, first: int, count: int) -> None:
    from PIL import Image

    rng = np.random.default_rng(first)
    noise = rng.normal(0, 8, (4, SIZE[1], SIZE[0], 3)).astype(np.int16)
    for number in range(first, first + count):
        own = number % CLASSES
        place = Path(folder) / split / f"group{own % 4}" / f"class{own:02}"
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize(SIZE, Image.Resampling.BICUBIC))
        pixels = np.clip(smooth + noise[number % 4], 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number:07}.jpg", quality=85)


def measured(storage: str, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Loading, and taking batches, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measure, storage, str(folder), settings).result()


def _measure(storage: str, folder: str, settings: dict[str, Any]) -> dict[str, Any]:
    import torch

    from snugnet.data import Batches, DataConfig, evaluation_batches, load_data

    for key, value in settings.get(
        "limits", {}
    ).items():  # of a small run, whose images would fit in what is usually mapped
        module, name = key.split(".")
        setattr(import_module(f"snugnet.data.{module}"), name, value)
    torch.set_num_threads(1)
    config = DataConfig(
        source=folder, resolution=settings["resolution"], storage=storage, cache=settings["cache"],
        workers=settings["workers"], validation=0.05,
    )  # fmt: skip
    load_data(DataConfig(source="digits", resolution=8), progress=False)  # imports are not what is measured
    with Memory() as memory:
        started = time.perf_counter()
        data = load_data(config, progress=False)
        loading = time.perf_counter() - started
        started = time.perf_counter()
        load_data(config, progress=False)
        again = time.perf_counter() - started
        for images, _ in evaluation_batches(data.validation, 256):
            images.sum()
        batches = Batches(data.train, settings["batch"], 0, crop=CROP)
        own, step = [], 0

        def take() -> None:
            nonlocal step
            batches.batch(step)
            step += 1

        peer: list[float] = []
        for _ in range(ROUNDS):
            own.append(rate(take, settings))
            if storage == "stream":
                batches.close()  # its workers end, so that the peer has the CPUs
                peer.append(peer_rate(Path(folder), settings))
    size = len(data.train) + len(data.validation) + len(data.test)
    return {
        "storage": storage,
        "images": size,
        "decoded_gib": size * 3 * settings["resolution"] ** 2 / 2**30,
        "loading_seconds": loading,
        "loading_again_seconds": again,
        "resident_gib_above_start": memory.resident / 2**30,
        "with_workers_gib_above_start": memory.tree / 2**30,
        "images_a_second": own,
        **({"peer_images_a_second": peer} if peer else {}),
    }


def rate(take: Callable[[], Any], settings: dict[str, Any]) -> float:
    """Images a second, once the first batches have come."""
    for _ in range(4):
        take()
    started, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < settings["seconds"]:
        take()
        count += settings["batch"]
    return count / spent


class Folder:
    """A Dataset of images in a folder, as torchvision's ImageFolder with RandomResizedCrop."""

    def __init__(self, root: Path, resolution: int) -> None:
        self.files = sorted(root.glob("*/*/*.jpg"))
        self.resolution = resolution

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        import torch
        from PIL import Image

        with self.files[index].open("rb") as file:
            image = Image.open(file).convert("RGB")
        width, height = image.size
        box = (0, 0, width, height)
        for _ in range(10):
            area = width * height * (CROP[0] + (CROP[1] - CROP[0]) * torch.rand(()).item())
            ratio = math.exp(torch.empty(()).uniform_(math.log(3 / 4), math.log(4 / 3)).item())
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left = int(torch.randint(0, width - across + 1, ()).item())
                top = int(torch.randint(0, height - down + 1, ()).item())
                box = (left, top, left + across, top + down)
                break
        image = image.crop(box).resize((self.resolution, self.resolution), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy()), int(self.files[index].parent.name[-2:])


def peer_rate(folder: Path, settings: dict[str, Any]) -> float:
    """Images a second of torch's DataLoader."""
    from torch.utils.data import DataLoader

    dataset = Folder(folder / "train", settings["resolution"])
    loader: DataLoader[Any] = DataLoader(
        dataset,  # type: ignore[arg-type]
        settings["batch"], shuffle=True, num_workers=settings["workers"], drop_last=True,
    )  # fmt: skip

    def endless() -> Iterator[Any]:
        while True:
            yield from loader

    coming = endless()
    return rate(lambda: next(coming), settings)


class Memory:
    """The most that this process has resident, and it and its children have together, above what it had at the start; in bytes."""

    def __enter__(self) -> Memory:
        self._start = _resident(), _share(os.getpid())
        self.resident = self.tree = 0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._end.wait(0.05):
            self.resident = max(self.resident, _resident() - self._start[0])
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            tree = sum(_share(int(child)) for child in [os.getpid(), *children])
            self.tree = max(self.tree, tree - self._start[1])


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _share(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def main() -> None:
    """Measure, print, write."""
    from snugnet.pipeline import machine

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=int, nargs="?", default=200_000)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--storages", default="disk,stream")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--folder", type=Path, help="keep the images here; without it they are thrown away")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        before = machine()
        folder = make_images(given.folder or Path(temporary) / "images", given.images)
        settings = {
            "resolution": given.resolution,
            "workers": given.workers,
            "batch": BATCH,
            "seconds": given.seconds,
            "cache": str(Path(temporary) / "cache"),
        }
        results = []
        for storage in given.storages.split(","):
            results.append(measured(storage, folder, settings))
            print(json.dumps(results[-1]), flush=True)
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": {"before": before, "after": machine()},
        "batch": BATCH,
        "crop": CROP,
        "size": SIZE,
        "results": results,
    }
    given.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
