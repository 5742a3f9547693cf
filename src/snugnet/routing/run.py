"""Runs a router bundle: tells an image's superclass, then its class; needs numpy and onnxruntime, and Pillow for image files.

    python run.py photo.jpg ...           # files of images, in this file's own folder
    python run.py images.npy --json       # bytes, (n, height, width, 3), RGB, of the resolution that the bundle says
    python run.py --help

For each image a line: the file, the class, the superclass, and the multiply-adds that were spent. A bundle that is damaged, or of another
version, is refused in one line. This file is all of it: nothing else of the program that wrote the bundle is needed.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np

INDEX = "router.json"
FORMAT = "snugnet-router"
VERSION = 1
BATCH = 64


class RunError(ValueError):
    """What cannot be run; the message says why and what to do."""


@dataclass(frozen=True)
class Answer:
    """What is said of an image.

    Attributes:
        label: its class.
        superclass: that the router told.
        madds: multiply-adds that were spent on it.
    """

    label: str
    superclass: str
    madds: float


# -- the bundle --------------------------------------------------------------------------------------------------------


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a bundle, every file checked against its checksum.

    Raises:
        RunError: something is missing or altered, or the bundle is of another version.
    """
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise RunError(f"{path} is not the index of a router")
    if index.get("version") != VERSION:
        raise RunError(
            f"{folder} is a router of version {index.get('version')}, this runner takes {VERSION}; take the run.py that came with it"
        )
    own = {key: value for key, value in index.items() if key != "sha256"}
    if hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest() != index.get("sha256"):
        raise RunError(f"{path} was altered (its checksum differs); copy the folder again")
    if not isinstance(index.get("files"), dict):
        raise RunError(f"{path} lists no files; write the bundle anew")
    for name in index["files"]:
        read_file(folder, index, name)
    return index


def read_file(folder: Path, index: dict[str, Any], name: str) -> bytes:
    """A file of the bundle, checked.

    Raises:
        RunError: it is missing or altered.
    """
    about = index["files"][name]
    path = folder / PurePath(about["file"]).name
    try:
        content = path.read_bytes()
    except OSError:
        raise RunError(f"{folder} lacks {path.name}; copy the whole folder, or write the bundle anew") from None
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise RunError(f"{path} is truncated or altered (its checksum differs); copy the folder again")
    return content


class Network:
    """A file that is loaded."""

    def __init__(self, content: bytes, threads: int) -> None:
        """Load it.

        Raises:
            RunError: ONNX Runtime cannot.
        """
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
        try:
            self.session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own classes are no part of its interface
            said = " ".join(str(error).split())[:200]
            raise RunError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load a file of the bundle: {said}"
            ) from error
        about = self.session.get_modelmeta().custom_metadata_map
        self.about = {key: json.loads(about[key]) for key in ("classes", "mean", "std", "resolution")}

    def told(self, images: np.ndarray) -> np.ndarray:
        """Which output is the largest, of images as bytes (n, h, w, 3): (n,)."""
        mean, std = (np.array(self.about[key], np.float32) for key in ("mean", "std"))
        pixels = ((images / np.float32(255) - mean) / std).astype(np.float32).transpose(0, 3, 1, 2)
        pixels = resized(np.ascontiguousarray(pixels), self.about["resolution"])
        best: np.ndarray = self.session.run(None, {"image": pixels})[0].argmax(1)
        return best


def resized(pixels: np.ndarray, resolution: int) -> np.ndarray:
    """Normalised images (n, 3, h, w) at another resolution; floats are resized, not bytes."""
    if pixels.shape[-1] == resolution:
        return pixels
    from PIL import Image

    size, bilinear = (resolution, resolution), Image.Resampling.BILINEAR
    planes = [np.asarray(Image.fromarray(plane).resize(size, bilinear)) for image in pixels for plane in image]
    return np.stack(planes).reshape(*pixels.shape[:2], *size)


class Route:
    """A bundle that is ready to run; a specialised network is loaded when the first image comes to it."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        """Read it, all checksums checked.

        Raises:
            RunError: it is damaged, or of another version.
        """
        self.folder, self.threads = folder, threads
        self.index = read_index(folder)
        self.resolution = int(self.index["image_resolution"])
        self._networks: dict[str, Network] = {}

    @cached_property
    def router(self) -> Network:
        """What tells the superclass."""
        return self._load(self.index["router"]["file"])

    def _load(self, name: str) -> Network:
        return Network(read_file(self.folder, self.index, name), self.threads)

    def _network(self, superclass: str) -> Network:
        if superclass not in self._networks:
            self._networks[superclass] = self._load(self.index["superclasses"][superclass]["file"])
        return self._networks[superclass]

    def answers(self, images: np.ndarray) -> list[Answer]:
        """The class of each image, and what it took.

        Args:
            images: bytes, (n, h, w, 3), RGB, of the bundle's image resolution.

        Raises:
            RunError: they are of another size.
        """
        wanted = (self.resolution, self.resolution, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != wanted:
            raise RunError(
                f"images are bytes (uint8) of shape (n, {', '.join(map(str, wanted))}), got {images.dtype} {images.shape}"
            )
        found: list[Answer] = []
        for start in range(0, len(images), BATCH):
            found += self._answers(images[start : start + BATCH])
        return found

    def _answers(self, images: np.ndarray) -> list[Answer]:
        names, told = self.router.about["classes"], self.router.told(images)
        found: list[Any] = [None] * len(images)
        for g in np.unique(told):
            about, places = self.index["superclasses"][names[g]], np.flatnonzero(told == g)
            labels = [about["classes"][0]] * len(places)  # of one class there is nothing left to tell
            if about["file"] is not None:
                network = self._network(names[g])
                labels = [network.about["classes"][i] for i in network.told(images[places])]
            for place, label in zip(places, labels, strict=True):
                found[place] = Answer(label, names[g], about["route_madds"])
        return found


# -- images ------------------------------------------------------------------------------------------------------------


def read_images(path: Path, resolution: int) -> tuple[list[str], np.ndarray]:
    """Images of a file as bytes (n, h, w, 3), with a name each.

    Raises:
        RunError: it cannot be read.
    """
    if path.suffix != ".npy":
        return [str(path)], read_image(path, resolution)[None]
    try:
        images = np.load(path, allow_pickle=False)
    except Exception as error:  # of a broken header as well: SyntaxError, MemoryError, ...
        said = getattr(error, "strerror", None) or "it is no file of numpy's, or damaged"
        raise RunError(f"cannot read {path}: {said}") from error
    if not isinstance(images, np.ndarray) or images.ndim != 4:
        raise RunError(f"{path} holds no images: they are one array of bytes (n, {resolution}, {resolution}, 3)")
    return [f"{path}[{i}]" for i in range(len(images))], images


def read_image(path: Path, resolution: int) -> np.ndarray:
    """The middle square of an image file, upright, RGB: bytes (resolution, resolution, 3).

    Raises:
        RunError: it cannot be read, or Pillow is not here.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise RunError(f"files of images need Pillow ({error}); install it, or give bytes as .npy") from error
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode == "F" or image.mode.startswith("I"):
                raise RunError(f"{path} has more than 8 bits a pixel's channel; convert it to 8 bits")
            if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
                image = image.convert("RGBA")  # over white, as the networks were trained
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            image = image.convert("RGB")
    except RunError:
        raise
    except Exception as error:  # broken files make Pillow raise OSError, SyntaxError, ValueError, ...
        raise RunError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.BILINEAR, box=box)
    return np.asarray(image)


# -- the command -------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 2 wrong input."""
    parser = argparse.ArgumentParser(description="Tells the superclass of images, then their class.")
    parser.add_argument("images", nargs="+", type=Path, metavar="FILE", help="image, or bytes as .npy (n, h, w, 3)")
    parser.add_argument(
        "--bundle", type=Path, default=Path(__file__).resolve().parent, help="folder; this file's own without it"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    given = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        if given.threads < 1:
            raise RunError(f"--threads is at least 1, got {given.threads}")
        route = Route(given.bundle, given.threads)
        named = [
            (name, answer)
            for path in given.images
            for names, images in [read_images(path, route.resolution)]
            for name, answer in zip(names, route.answers(images), strict=True)
        ]
        if not named:
            raise RunError("there are no images")
    except (RunError, OSError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    mean = sum(each.madds for _, each in named) / len(named)
    if given.json:
        print(
            json.dumps(
                {"images": [{"image": name, **asdict(each)} for name, each in named], "mean_madds": mean}, indent=1
            )
        )
        return 0
    for name, each in named:
        print(f"{name}: {each.label} ({each.superclass}), {each.madds:,} MAdds")
    print(f"{len(named)} image{'s' if len(named) > 1 else ''}, {mean:,.0f} MAdds each on average", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
