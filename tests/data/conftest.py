"""Small images and sources that the data tests share."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def shared_data(shared_folder: Path) -> Path:
    """The real data beside the project."""
    return shared_folder / "data"


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """Encoded bytes of a noisy image of one brightness."""

    def make(brightness: int = 128, size: tuple[int, int] = (12, 12), mode: str = "RGB", form: str = "JPEG") -> bytes:
        generator = np.random.default_rng(brightness)
        channels = len(Image.new(mode, (1, 1)).getbands())
        noise = generator.integers(-20, 20, (size[1], size[0], channels))
        pixels = np.clip(brightness + noise, 0, 255).astype(np.uint8)
        image = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode if mode != "P" else None)
        buffer = io.BytesIO()
        image.save(buffer, form)
        return buffer.getvalue()

    return make


@pytest.fixture
def folder(tmp_path: Path, jpeg: Callable[..., bytes]) -> Path:
    """``train`` with 4 images and ``test`` with 2 of each of 5 classes in 2 superclasses."""
    root = tmp_path / "images"
    members = {"animal": ["cat", "dog", "owl"], "thing": ["cup", "pen"]}
    for split, count, first in (("train", 4, 20), ("test", 2, 24)):
        of_class = [(group, name) for group, classes in members.items() for name in classes]
        for shade, (group, name) in enumerate(of_class):
            place = root / split / group / name
            place.mkdir(parents=True)
            for index in range(count):
                (place / f"{index}.jpg").write_bytes(jpeg(40 * shade + index + first))
    return root


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """Writes images with labels, and optionally ClassLabel names and superclasses, to a parquet file."""

    def write(path: Path, images: list, labels: list, features: dict | None = None, **columns: list) -> Path:
        if images and isinstance(images[0], bytes):
            images = [{"bytes": data, "path": f"{row}.jpg"} for row, data in enumerate(images)]
        table = pa.table({"image": images, "label": labels, **columns})
        if features:
            import json

            named = {key: {"names": names, "_type": "ClassLabel"} for key, names in features.items()}
            table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": named}})})
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=7)
        return path

    return write
