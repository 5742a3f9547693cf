"""Images in memory, on a disk and streamed: the same images, whole caches, bounded memory, batches that are resumed."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from snugnet.data import Batches, DataConfig, GroupedImages, ImageSet, evaluation_batches, load_data, load_split
from snugnet.data import cache as cache_module
from snugnet.data import storage as storage_module
from snugnet.data.image_set import StoredImages
from snugnet.data.images import closed_up, decode, decode_image
from snugnet.data.stream import random_box
from snugnet.errors import DataError
from snugnet.fingerprint import digest

CLASSES = {"animal": ("cat", "dog"), "thing": ("car", "cup")}


def photo(number: int, size: tuple[int, int] = (90, 70)) -> Image.Image:
    """A picture that is smooth, as photos are, and like no other."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def jpeg(number: int) -> bytes:
    out = BytesIO()
    photo(number, (80 + number % 30, 60 + number % 50)).save(out, "JPEG", quality=90)
    return out.getvalue()


def make_folder(root: Path, per_class: int = 12) -> Path:
    number = itertools.count()
    for split in ("train", "test"):
        for group, classes in CLASSES.items():
            for name in classes:
                folder = root / split / group / name
                folder.mkdir(parents=True)
                for k in range(per_class if split == "train" else 3):
                    (folder / f"{k:03}.jpg").write_bytes(jpeg(next(number)))
    return root


def make_parquet(root: Path, rows: int = 48) -> Path:
    root.mkdir()
    for split, first, count in (("train", 0, rows), ("test", 1000, 12)):
        names = [name for classes in CLASSES.values() for name in classes]
        table = pa.table(
            {
                "image": [{"bytes": jpeg(first + k), "path": None} for k in range(count)],
                "label": [names[k % 4] for k in range(count)],
            }
        )
        pq.write_table(table, root / f"{split}.parquet", row_group_size=10)
    return root


@pytest.fixture(params=["folder", "parquet", "arrow"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Images in each of the forms that are read."""
    if request.param == "folder":
        return make_folder(tmp_path / "images")
    parquet = make_parquet(tmp_path / "parquet")
    if request.param == "parquet":
        return parquet
    import datasets

    files = {split: str(parquet / f"{split}.parquet") for split in ("train", "test")}
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "hf"))
    loaded.save_to_disk(str(tmp_path / "arrow"))
    return tmp_path / "arrow"


def load(source: Path, tmp_path: Path, storage: str, **settings: Any) -> GroupedImages:
    settings = {"resolution": 24, "cache": str(tmp_path / "cache"), "workers": 2, **settings}
    return load_data(DataConfig(source=str(source), storage=storage, **settings), progress=False)


def rows_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*/rows.bin"))


def equal(one: ImageSet, other: ImageSet) -> bool:
    return torch.equal(one.load().images, other.load().images) and torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("storage", ["disk", "stream"])
def test_all_is_the_same_wherever_images_lie(source: Path, tmp_path: Path, storage: str) -> None:
    memory, other = load(source, tmp_path, "memory"), load(source, tmp_path, storage)
    for name in ("train", "validation", "test"):
        assert isinstance(getattr(memory, name).images, torch.Tensor)
        assert isinstance(getattr(other, name).images, StoredImages)
        assert equal(getattr(memory, name), getattr(other, name))
        assert np.array_equal(getattr(memory, name).measures, getattr(other, name).measures)
    assert (memory.mean, memory.std, memory.classes) == (other.mean, other.std, other.classes)
    left_out = {**memory.report, "notes": None}
    assert left_out == {**other.report, "notes": None}
    notes = [note for note in other.report["notes"] if note not in memory.report["notes"]]
    assert len(notes) == 1
    assert notes[0].startswith("decoded images are kept" if storage == "disk" else "training images are")
    assert [note for note in other.report["notes"] if note not in notes] == memory.report["notes"]
    assert other.train.streamed == (storage == "stream")
    assert not other.validation.streamed
    if storage == "disk":
        assert digest(*memory.train.contents()) == digest(*other.train.contents())
    else:
        assert digest(*memory.train.contents()) != digest(*other.train.contents())


def test_selections_are_the_same_on_a_disk(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "images")
    memory, disk = (load(source, tmp_path, storage).train for storage in ("memory", "disk"))
    backwards = np.arange(len(memory))[::-1].copy()
    for one, other in (
        (memory.take(backwards), disk.take(backwards)),
        (memory.of_classes([1, 3]), disk.of_classes([1, 3])),
        (memory.among([3, 0]), disk.among([3, 0])),
        (memory.joined(memory.of_classes([2])), disk.joined(disk.of_classes([2]))),
        (memory.joined(memory), disk.joined(memory)),
    ):
        assert equal(one, other)
        assert np.array_equal(one.measures, other.measures)
        pairs = zip(evaluation_batches(one, 7), evaluation_batches(other, 7), strict=True)
        assert all(torch.equal(a, b) and torch.equal(c, d) for (a, c), (b, d) in pairs)
    assert isinstance(disk.joined(disk.of_classes([2])).images, StoredImages)
    batches = [Batches(images, 8, seed=3) for images in (memory, disk)]
    for step in (0, 1, 7, 2):
        assert all(torch.equal(one, other) for one, other in zip(*(each.batch(step) for each in batches), strict=True))
        assert all(map(torch.equal, batches[0].whole(step), batches[0].batch(step)))


def test_a_cache_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_folder(tmp_path / "images")
    first = load(source, tmp_path, "disk")
    monkeypatch.setattr(storage_module, "decode_chunks", None)  # nothing may be decoded any more
    assert equal(load(source, tmp_path, "disk").test, first.test)
    # another choice of the same rows, and the same files elsewhere, with their times
    load(source, tmp_path, "disk", seed=5, train_rows=20)
    (tmp_path / "images").rename(tmp_path / "moved")
    assert equal(load(tmp_path / "moved", tmp_path, "disk").train, first.train)
    split, _ = load_split(
        DataConfig(source=str(tmp_path / "moved"), resolution=24, storage="disk", cache=str(tmp_path / "cache")), "test"
    )
    assert equal(split, first.test)


def test_a_cache_of_anything_else_is_not_taken(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "images")
    load(source, tmp_path, "disk")
    assert len(rows_files(tmp_path)) == 2  # training and test rows
    other = load(source, tmp_path, "disk", resolution=16)
    assert other.train.resolution == 16
    assert equal(other.train, load(source, tmp_path, "memory", resolution=16).train)
    load(source, tmp_path, "disk", value_range=(0, 200))
    assert len(rows_files(tmp_path)) == 6
    changed = source / "train" / "animal" / "cat" / "000.jpg"
    changed.write_bytes(jpeg(777))
    os.utime(changed, (1, 1))
    assert equal(load(source, tmp_path, "disk").train, load(source, tmp_path, "memory").train)
    assert len(rows_files(tmp_path)) == 7  # the test split is what it was


def test_a_cache_that_is_damaged_is_mended_or_named(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "images")
    whole = load(source, tmp_path, "memory")
    load(source, tmp_path, "disk")
    for file in (tmp_path / "cache").glob("*/*.bin"):
        with file.open("r+b") as cut:
            cut.truncate(file.stat().st_size // 2)
    assert equal(load(source, tmp_path, "disk").train, whole.train)
    for index in (tmp_path / "cache").glob("*/index.json"):
        index.write_text("{}")
    with pytest.raises(DataError, match="is not the index of the images asked for; delete"):
        load(source, tmp_path, "disk")


def test_bad_images_are_known_without_being_decoded_again(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "images")
    (source / "train" / "animal" / "cat" / "bad.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad.jpg.*or set on_bad_image=skip"):
        load(source, tmp_path, "disk")
    for _ in range(2):
        memory, disk = (load(source, tmp_path, storage, on_bad_image="skip") for storage in ("memory", "disk"))
        assert memory.report["skipped_images"] == disk.report["skipped_images"]
        assert sum(each["count"] for each in memory.report["skipped_images"].values()) == 1
        assert equal(memory.train, disk.train)
    with pytest.raises(DataError, match=r"bad.jpg.*or set on_bad_image=skip"):
        load(source, tmp_path, "disk")


def test_a_bad_image_leaves_no_second_copy() -> None:
    images = np.arange(1000, dtype=np.uint16).astype(np.uint8)[:, None, None, None].repeat(3, axis=1)
    kept = np.arange(1000) % 7 != 3
    expected = images[kept]
    found = closed_up(images, kept)
    assert np.array_equal(found, expected)
    assert np.shares_memory(found, images)


KILLED = """
import sys
from pathlib import Path
from snugnet.data import DataConfig, load_data
from snugnet.data import cache, images
images._IN_FLIGHT = 4
cache._COMMIT = 8000
seen = cache.CacheWriter.commit
def commit(self):
    seen(self)
    print("committed", flush=True)
    import time; time.sleep(0.2)
cache.CacheWriter.commit = commit
load_data(DataConfig(source=sys.argv[1], resolution=24, storage="disk", cache=sys.argv[2]), progress=False)
"""


def test_a_kill_half_way_loses_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_folder(tmp_path / "images", per_class=20)
    arguments = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "cache")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() == "committed\n"
        process.send_signal(signal.SIGKILL)
    decoded: list[int] = []
    real = storage_module.decode_chunks
    monkeypatch.setattr(
        storage_module, "decode_chunks", lambda *given, **more: decoded.append(given[1]) or real(*given, **more)
    )
    disk = load(source, tmp_path, "disk")
    assert 0 < sum(decoded) <= 80 + 12 - 3 * 4
    assert equal(disk.train, load(source, tmp_path, "memory").train)


def test_a_full_disk_is_one_line_and_what_counts_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_folder(tmp_path / "images", per_class=20)
    monkeypatch.setattr("snugnet.data.images._IN_FLIGHT", 4)
    monkeypatch.setattr(cache_module, "_COMMIT", 8000)
    put, left = cache_module.CacheWriter._put, [30]

    def until_full(self: Any, name: str, content: bytes, offset: int | None = None) -> int:
        left[0] -= name == "pixels"
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return put(self, name, content, offset)

    with monkeypatch.context() as full:
        full.setattr(cache_module.CacheWriter, "_put", until_full)
        with pytest.raises(
            DataError, match=r"no space is left for the cache of images .*; .* are kept: free some"
        ) as told:
            load(source, tmp_path, "disk")
    assert "\n" not in str(told.value)
    assert equal(load(source, tmp_path, "disk").train, load(source, tmp_path, "memory").train)

    monkeypatch.setattr(storage_module, "free_disk", lambda folder: 1000)
    with pytest.raises(DataError, match=r"needs .* more, and .* are free; free some, set data.cache to"):
        load(source, tmp_path, "disk", resolution=32)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "images", per_class=2)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot begin the cache of images .*; set data.cache to another folder"):
        load(source, tmp_path, "disk", cache=str(tmp_path / "file"))


def test_auto_picks_by_size_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_folder(tmp_path / "images", per_class=4)
    size = (16 + 12) * 3 * 24**2
    usual = load(source, tmp_path, "auto")
    assert isinstance(usual.train.images, torch.Tensor)
    assert not any("disk" in note for note in usual.report["notes"])
    monkeypatch.setattr(storage_module, "available_memory", lambda: 2 * size - 1)
    disk = load(source, tmp_path, "auto")
    assert isinstance(disk.train.images, StoredImages)
    assert not disk.train.streamed
    assert "more than half of the" in disk.report["notes"][0]
    with monkeypatch.context() as full:  # what the cache has taken is no longer free
        full.setattr(storage_module, "free_disk", lambda folder: 0 if folder == tmp_path / "cache" else 10**9)
        full.setattr(storage_module, "_SHARE_OF_DISK", 1.0)
        assert isinstance(load(source, tmp_path, "auto").train.images, StoredImages)
        assert not load(source, tmp_path, "auto").train.streamed
    with monkeypatch.context() as several:
        several.setattr(storage_module, "available_memory", lambda: 2 * size)
        several.setenv("LOCAL_WORLD_SIZE", "2")
        assert isinstance(load(source, tmp_path, "auto").train.images, StoredImages)
    with monkeypatch.context() as small:
        small.setattr(storage_module, "_SHARE_OF_DISK", 0.0)
        streamed = load(source, tmp_path, "auto")
    assert streamed.train.streamed
    assert "and more than the" in streamed.report["notes"][0]
    monkeypatch.setattr(storage_module, "available_memory", lambda: 2 * size)
    assert isinstance(load(source, tmp_path, "auto").train.images, torch.Tensor)
    monkeypatch.setattr(storage_module, "available_memory", lambda: None)
    assert isinstance(load(source, tmp_path, "auto").train.images, torch.Tensor)


def test_free_memory_is_known_here() -> None:
    free = storage_module.available_memory()
    assert free is None or 2**20 < free < 2**50


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_a_function_of_seed_and_step(source: Path, tmp_path: Path, workers: int) -> None:
    train = load(source, tmp_path, "stream", workers=workers).train
    crop = (0.1, 1.0)
    whole = Batches(train, 8, seed=3, crop=crop)
    assert whole.cropped
    state = torch.get_rng_state()
    seen = [whole.batch(step) for step in range(9)]
    assert torch.equal(torch.get_rng_state(), state)
    resumed = Batches(load(source, tmp_path, "stream", workers=1).train, 8, seed=3, crop=crop)
    for step in (5, 6, 2, 2, 8):
        assert all(torch.equal(one, other) for one, other in zip(resumed.batch(step), seen[step], strict=True))
    shards = [Batches(train, 8, seed=3, crop=crop, shard=(place, 2)) for place in (0, 1)]
    for step in (0, 5):  # several processes have the parts of what one has, crops and all
        parts = [each.batch(step) for each in shards]
        assert all(
            torch.equal(torch.cat(both), one) for both, one in zip(zip(*parts, strict=True), seen[step], strict=True)
        )
    again = Batches(train, 8, seed=4, crop=crop).batch(0)[0]
    assert not torch.equal(again, seen[0][0])
    # the same images as from memory, cut otherwise; and not cut the same twice
    memory = Batches(load(source, tmp_path, "memory").train, 8, seed=3)
    assert torch.equal(memory.batch(4)[1], seen[4][1])
    assert all(torch.equal(one, other) for one, other in zip(memory.batch(4), whole.whole(4), strict=True))
    assert not torch.equal(memory.batch(4)[0], seen[4][0])
    plain = Batches(train, 8, seed=3)
    assert not plain.cropped
    assert all(torch.equal(plain.batch(step)[0], memory.batch(step)[0]) for step in (0, 1, 6))


def test_an_image_that_is_lost_meanwhile_is_named(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "images", per_class=4)
    train = load(source, tmp_path, "stream").train
    batches = Batches(train, 16, seed=0)
    for file in (source / "train").rglob("*.jpg"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"\.jpg \(row .*: image cannot be decoded.*leave images as they are") as told:
        batches.batch(0)
    assert "\n" not in str(told.value)


def test_a_worker_that_is_killed_is_one_line(tmp_path: Path) -> None:
    train = load(make_folder(tmp_path / "images"), tmp_path, "stream", workers=1).train
    batches = Batches(train, 8, seed=0, crop=(0.5, 1))
    first = batches.batch(0)[0]
    assert batches._stream is not None
    worker = batches._stream._coming._workers[0]  # type: ignore[union-attr]
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(DataError, match="a process that decodes training images has ended"):
        list(map(batches.batch, range(1, 20)))
    assert torch.equal(batches.batch(0)[0], first)


def test_arrays_are_streamed_from_where_they_are(tmp_path: Path) -> None:
    config = DataConfig(source="digits", resolution=8, storage="stream", cache=str(tmp_path), workers=0)
    data = load_data(config, progress=False)
    assert Batches(data.train, 32, 0, crop=(0.5, 1)).batch(3)[0].shape == (32, 3, 8, 8)
    assert equal(data.train, load_data(DataConfig(source="digits", resolution=8), progress=False).train)


def test_what_has_no_encoded_form_is_not_streamed_from_parquet(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 8, 8)).tolist()
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": pixels, "label": ["a", "b"] * 12}), tmp_path / f"{split}.parquet")
    with pytest.warns(UserWarning, match="pixel by pixel"):
        load(tmp_path, tmp_path, "disk", resolution=8)
    with pytest.raises(DataError, match=r"is no encoded image but list; set data.storage to disk"):
        load(tmp_path, tmp_path, "stream", resolution=8)


def test_crops_come_from_the_original() -> None:
    """A crop of a sixteenth of the area of a photo of 1200 x 900 has detail that the photo at 64 x 64 has not."""
    big = photo(1, (1200, 900))
    out = BytesIO()
    lines = np.zeros((900, 1200, 3), dtype=np.uint8)
    lines[:, ::8] = lines[:, 1::8] = lines[:, 2::8] = lines[:, 3::8] = 255  # 4 pixels white, 4 black
    Image.fromarray(lines).save(out, "JPEG", quality=95)
    sharp, _ = decode(out.getvalue(), 64, None, lambda width, height: (500, 400, 564, 464), draft=True)
    square = decode_image(out.getvalue(), 64)
    assert sharp.astype(int).std() > 100
    assert square.astype(int).std() < 40
    out = BytesIO()
    big.save(out, "JPEG", quality=95)
    for box in ((0, 0, 1200, 900), (100, 50, 900, 700), (600, 300, 700, 380)):
        drafted, plain = (
            decode(out.getvalue(), 64, None, lambda width, height, own=box: own, draft=draft)[0].astype(int)
            for draft in (True, False)
        )
        assert abs(drafted - plain).max() <= 12
        assert abs(drafted - plain).mean() < 2


def test_crops_are_of_the_upright_image() -> None:
    upright = photo(2, (400, 200))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    out = BytesIO()
    turned.save(out, "JPEG", quality=95, exif=exif)
    sizes: list[tuple[int, int]] = []

    def box_of(width: int, height: int) -> tuple[float, float, float, float]:
        sizes.append((width, height))
        return 40, 20, 240, 180

    found, _ = decode(out.getvalue(), 32, None, box_of, draft=True)
    expected = np.asarray(upright.resize((32, 32), Image.Resampling.BILINEAR, box=(40, 20, 240, 180)))
    assert sizes == [(400, 200)]
    assert abs(found.astype(int) - expected.transpose(2, 0, 1).astype(int)).mean() < 3


def test_boxes_have_the_areas_and_ratios_asked_for() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(640, 480, (0.1, 0.9), rng.random(22)) for _ in range(2000)])
    across, down = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes[:, :2].min() >= 0
    assert boxes[:, 2].max() <= 640
    assert boxes[:, 3].max() <= 480
    share, ratio = across * down / (640 * 480), across / down
    assert 0.095 < share.min() < 0.12
    assert 0.85 < share.max() < 0.905
    assert 0.74 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.35
    assert boxes[:, 0].min() == 0
    assert boxes[:, 2].max() == 640
    assert random_box(1000, 10, (1.0, 1.0), np.zeros(22)) == (493, 0, 506, 10)  # no shape fits
    assert random_box(10, 1000, (1.0, 1.0), np.zeros(22)) == (0, 493, 10, 506)


def test_two_processes_write_one_cache(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "images", per_class=20)
    arguments = [sys.executable, "-c", KILLED, str(source), str(tmp_path / "cache")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = time.monotonic()
        disk = load(source, tmp_path, "disk")
        assert time.monotonic() - started > 0.1
        process.stdout.read()
        assert process.wait() == 0
    assert equal(disk.train, load(source, tmp_path, "memory").train)
