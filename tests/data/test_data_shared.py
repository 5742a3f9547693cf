"""Real images: the tiny-imagenet-10 and cifar-10 files beside the project."""

import json
from pathlib import Path

import numpy as np
import pytest

from snugnet.data import DataConfig, load_data


@pytest.mark.parametrize("by", ["column", "file"])
def test_tiny_imagenet_10(shared_data: Path, by: str) -> None:
    folder = shared_data / "tiny-imagenet-10"
    members = json.loads((folder / "superclasses.json").read_text())
    groups = {"group_column": "superclass"} if by == "column" else {"groups": str(folder / "superclasses.json")}
    config = DataConfig(
        source=str(folder), resolution=32, train_rows=240, validation_rows=60, test_rows=120, seed=1, **groups
    )
    data = load_data(config, progress=False)
    assert {group: set(names) for group, names in data.groups.items()} == {
        group: set(names) for group, names in members.items()
    }
    assert data.groups.names == tuple(members)
    assert data.report["rows"] == {"train": 240, "validation": 60, "test": 120}
    assert np.bincount(data.train.labels.numpy()).tolist() == [4] * 60
    assert all(0.3 < mean < 0.6 for mean in data.mean)
    assert all(0.2 < std < 0.35 for std in data.std)


def test_cifar_10_has_no_groups(shared_data: Path) -> None:
    config = DataConfig(
        source=str(shared_data / "cifar-10"), resolution=32, train_rows=200, validation_rows=50, test_rows=50
    )
    data = load_data(config, progress=False)
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert data.groups.names == ("all",)
    assert len(data.train) == 200


def test_bytes_of_a_real_image_come_through(shared_data: Path) -> None:
    import io

    import pyarrow.parquet as pq
    from PIL import Image

    path = shared_data / "cifar-10" / "test.parquet"
    config = DataConfig(source=str(path), resolution=32, validation=0, test=0.999, test_rows=20, train_rows=10)
    data = load_data(config, progress=False)
    table = pq.read_table(path)
    whole = {np.asarray(Image.open(io.BytesIO(cell["bytes"]))).tobytes() for cell in table.column("image").to_pylist()}
    assert all(image.permute(1, 2, 0).numpy().tobytes() in whole for image in data.test.images)
