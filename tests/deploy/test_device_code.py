"""The tutorial's code for a device, taken from the page and run: it sees the image that training and evaluation see."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from snugnet.data import decode_image, load_data, normalise
from snugnet.family import Family
from snugnet.nn.network import resized
from snugnet.pipeline import make_family, make_generator, make_space
from snugnet.recipe import parse_recipe
from snugnet.supernets import Supernet

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
SIZES = [(97, 64), (64, 97), (50, 51), (32, 32), (20, 33), (400, 301)]
"""Width and height: odd margins, the very resolution, smaller ones."""


@pytest.fixture(scope="module")
def code() -> Any:
    (found,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "onnxruntime" in block]
    return compile(found, PAGE.name, "exec")


@pytest.fixture(scope="module")
def family(randomise: Callable[[torch.nn.Module, int], None]) -> Family:
    """Of a space with a choice of resolution; untrained, for only its images and files matter here."""
    space = {"resolutions": [24, 32], "stem_stride": 1, "stage_strides": [1, 2, 1, 2, 1, 1, 1], "depths": [[1]] * 7}
    space |= {"widths": [[4]] + [[8]] * 8, "expand_ratios": [[1]] + [[2]] * 6}
    content = {
        "name": "device", "output": "unused", "device": "cpu",
        "data": {"source": "digits", "resolution": 32, "groups": "digits", "train_rows": 60},
        "space": {"name": "attentive-nas", **space},
        "training": {"batch_size": 32, "stages": [{"name": "largest", "epochs": 1, "learning_rate": 0.1}]},
        "evaluation": {"calibration_images": 40},
    }  # fmt: skip
    recipe = parse_recipe(content)
    data = load_data(recipe.data, progress=False)
    supernet = Supernet(make_space(recipe, data), seed=0)
    randomise(supernet, 1)
    return make_family(recipe, data, supernet, make_generator(recipe, supernet.space, data), {})


def photo(size: tuple[int, int], mode: str, path: Path, orientation: int) -> None:
    """Smooth noise, as photos are, turned by EXIF."""
    noise = np.random.default_rng(sum(size)).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).convert(mode).save(path, exif=exif)


@pytest.mark.parametrize("extreme", ["largest", "smallest"])
def test_the_tutorials_code_sees_what_evaluation_sees(
    family: Family, code: Any, extreme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = family.network("round", getattr(family.space, extreme)[0])
    net.export(tmp_path / "animal.onnx")
    assert net.blueprint.resolution == {"largest": 32, "smallest": 24}[extreme]
    monkeypatch.chdir(tmp_path)
    for number, size in enumerate(SIZES):
        photo(size, "L" if number == 1 else "RGB", tmp_path / "photo.jpg", orientation=1 + number)
        ran: dict[str, Any] = {}
        exec(code, ran)
        ours = decode_image(tmp_path / "photo.jpg", family.space.resolution)
        assert np.array_equal(np.asarray(ran["square"]).transpose(2, 0, 1), ours)  # to the last bit
        x = resized(normalise(torch.from_numpy(ours)[None], family.mean, family.std), net.blueprint.resolution)
        np.testing.assert_allclose(ran["x"][None], x.numpy(), rtol=0, atol=1e-5)
        (logits,) = ran["session"].run(None, {"image": ran["x"][None]})
        expected = net.module(x).numpy()
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
