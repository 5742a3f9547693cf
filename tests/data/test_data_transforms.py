"""Normalisation and augmentation of batches."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import snugnet
from snugnet.data import Augment, AugmentConfig, Batches, ImageSet, draws, normalise
from snugnet.data.transforms import _sent

MEAN = (0.25, 0.5, 0.75)
EVERYTHING = AugmentConfig(random_resized_crop=(0.4, 1.0), flip=True, rotate=15, color_jitter=0.3, erase=0.5, cutout=4)
TURNED = AugmentConfig(crop_padding=3, flip=True, rotate=15)
EACH = {
    "crop": AugmentConfig(crop_padding=3),
    "resized crop": AugmentConfig(random_resized_crop=(0.4, 1.0)),
    "flip": AugmentConfig(flip=True),
    "rotate": AugmentConfig(rotate=15),
    "jitter": AugmentConfig(color_jitter=0.3),
    "erase": AugmentConfig(erase=0.9),
    "cutout": AugmentConfig(cutout=5),
    "autoaugment": AugmentConfig(auto_augment="imagenet"),
    "turned crop": TURNED,
    "everything": EVERYTHING,
}


def pixels(n: int = 16, size: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8, generator=generator)


def test_normalise() -> None:
    images, mean, std = pixels(), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    want = (images.double() / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    for data in (images, images.float() / 255, images.double() / 255):
        got = normalise(data, mean, std)
        assert got.dtype == torch.float32
        assert torch.allclose(got.double(), want, atol=1e-6)
    last = normalise(images, mean, std, channels_last=True)
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, normalise(images, mean, std))
    assert normalise(images[:0], mean, std).shape == (0, 3, 12, 12)


def test_normalise_leaves_its_input() -> None:
    images = pixels().float().div(255)
    before = images.clone()
    normalise(images, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(images, before)


def test_nothing_switched_on_is_the_identity() -> None:
    augment = Augment(AugmentConfig(), MEAN)
    assert not augment.active
    images = pixels().float().div(255)
    assert torch.equal(augment(images), images)
    assert torch.equal(augment(pixels()), images)


@pytest.mark.parametrize("name", EACH)
def test_the_global_seed_reproduces_bit_for_bit(name: str) -> None:
    augment = Augment(EACH[name], MEAN)
    assert augment.active
    torch.manual_seed(3)
    one = augment(pixels())
    torch.manual_seed(3)
    two = augment(pixels())
    torch.manual_seed(3)
    fresh = Augment(EACH[name], MEAN)(pixels())
    other = augment(pixels())
    assert torch.equal(one, two)
    assert torch.equal(one, fresh)
    assert not torch.equal(one, other)
    assert (one.shape, one.dtype) == ((16, 3, 12, 12), torch.float32)
    assert 0 <= one.min() <= one.max() <= 1


@pytest.mark.parametrize("name", EACH)
def test_each_image_has_its_own_parameters(name: str) -> None:
    torch.manual_seed(0)
    same = pixels(1).expand(32, 3, 12, 12)
    assert len({tuple(image.flatten().tolist()) for image in Augment(EACH[name], MEAN)(same)}) > (
        1 if name == "flip" else 8
    )


@pytest.mark.parametrize("name", EACH)
def test_one_image_and_two_sizes(name: str) -> None:
    augment = Augment(EACH[name], MEAN)
    for size in (12, 9):
        assert augment(pixels(1, size)).shape == (1, 3, size, size)


def test_a_crop_is_a_window_of_the_padded_image() -> None:
    images, padding = pixels(40, 6), 2
    padded = torch.nn.functional.pad(images.float() / 255, (padding,) * 4)
    seen = set()
    for index, image in enumerate(Augment(AugmentConfig(crop_padding=padding), MEAN)(images)):
        places = [
            (y, x) for y in range(5) for x in range(5) if torch.equal(padded[index, :, y : y + 6, x : x + 6], image)
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 10


def test_a_flip_mirrors_about_half() -> None:
    images = pixels(100).float().div(255)
    results = Augment(AugmentConfig(flip=True), MEAN)(images)
    flipped = [torch.equal(new, old.flip(-1)) for new, old in zip(results, images, strict=True)]
    kept = [torch.equal(new, old) for new, old in zip(results, images, strict=True)]
    assert sum(flipped) + sum(kept) == 100
    assert 25 < sum(flipped) < 75


@pytest.mark.parametrize("policy", ["imagenet", "cifar10", "svhn"])
def test_autoaugment_draws_a_sub_policy_for_each_image(policy: str) -> None:
    """Of 256 copies of one image; a draw for the batch would give at most a handful of kinds of changes."""
    augment = Augment(AugmentConfig(auto_augment=policy), MEAN)
    assert augment._auto is not None
    assert len(augment._auto.policies) == 25
    asked = []
    for number, each in enumerate(augment._auto.policies):
        each.register_forward_hook(lambda module, given, out, number=number: asked.append((number, len(given[0]))))
    torch.manual_seed(0)
    changed = augment(pixels(1).expand(256, 3, 12, 12))
    assert sum(count for _, count in asked) == 256
    assert len(asked) > 20
    assert 0 <= changed.min() <= changed.max() <= 1
    assert len(torch.unique(changed.flatten(1), dim=0)) > 50


def test_erasing_makes_black_rectangles() -> None:
    images = torch.ones(64, 3, 16, 16)
    erased = Augment(AugmentConfig(erase=1.0), MEAN)(images)
    share = (erased == 0).double().mean((1, 2, 3))
    assert 0 < share.min() <= share.max() < 0.45


@pytest.mark.parametrize(("side", "size"), [(4, 10), (5, 10), (1, 3), (8, 8)])
def test_a_cutout_is_one_square_around_any_pixel_and_nothing_else_changes(side: int, size: int) -> None:
    """Every place is drawn, and each as often (100 draws a place, within five standard deviations)."""
    n = 100 * size**2
    images = torch.full((n, 3, size, size), 2.0)
    cut = Augment(AugmentConfig(cutout=side), MEAN)(images)
    holes = (cut != 2).all(1)
    assert torch.equal(cut, torch.where(holes[:, None], torch.tensor(MEAN).view(3, 1, 1), images))
    first = {centre: centre - side // 2 for centre in range(size)}
    found = {}
    for y in range(size):
        for x in range(size):
            hole = torch.zeros(size, size, dtype=torch.bool)
            hole[max(0, first[y]) : first[y] + side, max(0, first[x]) : first[x] + side] = True
            found.setdefault(tuple(hole.flatten().tolist()), 0)
            found[tuple(hole.flatten().tolist())] += 100
    drawn: dict[tuple[bool, ...], int] = {}
    for row in holes.flatten(1).tolist():
        drawn[tuple(row)] = drawn.get(tuple(row), 0) + 1
    assert drawn.keys() == found.keys()
    assert all(abs(drawn[hole] - expected) < 5 * expected**0.5 for hole, expected in found.items())


def test_what_is_cut_out_is_zero_for_the_network() -> None:
    std = (0.2, 0.3, 0.1)
    images = torch.ones(32, 3, 12, 12)
    x = normalise(Augment(AugmentConfig(cutout=6), MEAN)(images), MEAN, std)
    kept = normalise(images, MEAN, std)
    hole = (x != kept).all(1, keepdim=True).expand_as(x)
    assert x[hole].abs().max() < 1e-6
    assert torch.equal(x[~hole], kept[~hole])


@pytest.mark.parametrize("name", EACH)
def test_a_network_gets_channels_last_whatever_an_augmentation_returns(name: str) -> None:
    """Most come contiguous, also of channels-last images; `normalise` lays them out (1 ms for 128 of 64 pixels)."""
    augment = Augment(EACH[name], MEAN)
    for images in (pixels(), pixels().contiguous(memory_format=torch.channels_last)):
        torch.manual_seed(0)
        x = normalise(augment(images), (0.5,) * 3, (0.5,) * 3, channels_last=True)
        assert x.is_contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    assert torch.equal(x, normalise(augment(pixels()), (0.5,) * 3, (0.5,) * 3))


def test_what_an_image_gets_of_autoaugment_depends_on_the_size_of_its_batch() -> None:
    """So half a batch is not the first half of a batch (kornia 0.9); all else does not care."""
    halves = {}
    for name, config in EACH.items():
        augment = Augment(config, MEAN)
        results = []
        for n in (16, 8):
            torch.manual_seed(0)
            results.append(augment(pixels()[:n])[:8])
        halves[name] = torch.equal(*results)
    assert {name for name, same in halves.items() if not same} == {"autoaugment"}
    batches = Batches(ImageSet(pixels(50), torch.zeros(50, dtype=torch.int64)), 16, seed=0)
    assert {len(batches.batch(step)[1]) for step in range(10)} == {16}  # so every batch of a training is full


def test_augmentation_is_called_in_training_steps_alone() -> None:
    """It knows no eval mode, so nothing else may hold one."""
    source = Path(snugnet.__file__).parent
    holders = [str(path.relative_to(source)) for path in source.rglob("*.py") if " Augment(" in path.read_text()]
    assert sorted(holders) == ["differentiable/search.py", "training/retraining.py", "training/supernet.py"]
    assert (source / "training/retraining.py").read_text().count("self.augment(") == 1
    assert (source / "differentiable/search.py").read_text().count("self._augmented(") == 1


class Launches(TorchDispatchMode):
    """Counts what a device has to do, on torch's device without memory: kernels, and copies from the host."""

    KERNELS: ClassVar = {"constant_pad_nd": 2}  # a fill and a copy

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[str] = []
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        devices = [value.device.type for value in args if isinstance(value, torch.Tensor)]
        if name == "_to_copy" and devices == ["cpu"] and result.is_meta:
            self.copies += 1
        elif "meta" in devices and not any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns):
            assert set(devices) == {"meta"}, name  # nothing waits for the host; views are no launches
            self.kernels += [name] * self.KERNELS.get(name, 1)
        return result


@pytest.mark.parametrize(
    ("config", "most"),
    [
        (AugmentConfig(random_resized_crop=(0.4, 1.0), flip=True, rotate=15, color_jitter=0.3), 10),
        (AugmentConfig(random_resized_crop=(0.4, 1.0), flip=True, color_jitter=0.3), 10),
        (TURNED.model_copy(update={"color_jitter": 0.3}), 10),
        (AugmentConfig(crop_padding=3, flip=True, color_jitter=0.3), 12),
        (AugmentConfig(crop_padding=3, flip=True), 7),
        (AugmentConfig(flip=True), 4),
        (EVERYTHING, 14),
    ],
)
def test_few_launches(config: AugmentConfig, most: int) -> None:
    """Normalising included, which is two kernels and the second of two copies."""
    images = torch.empty(16, 3, 12, 12, dtype=torch.uint8, device="meta")
    with Launches() as counted:
        normalise(Augment(config, MEAN)(images), MEAN, (0.5,) * 3, channels_last=True)
    assert len(counted.kernels) <= most, counted.kernels
    assert counted.copies == 2


def test_small_tensors_of_any_type_go_together() -> None:
    for device in ("cpu", "meta"):
        tensors = [torch.rand(3, 2).bool(), torch.arange(5), torch.rand(2, 3, dtype=torch.float64).T, torch.rand(7)]
        sent = _sent(tensors, torch.device(device))
        assert [(t.dtype, t.shape, t.device.type) for t in sent] == [(t.dtype, t.shape, device) for t in tensors]
        assert device == "meta" or all(torch.equal(a, b) for a, b in zip(tensors, sent, strict=True))
    assert _sent([], torch.device("cpu")) == []


def test_flips_are_the_same_whatever_else_is_on() -> None:
    images, flipped = pixels(64), []
    for config in (AugmentConfig(flip=True), AugmentConfig(flip=True, color_jitter=0.1, cutout=2)):
        torch.manual_seed(0)
        function, tensors = Augment(config, MEAN)._steps(draws.uniform(64), 12, 12)[0]
        flipped.append(function(images, *tensors))
    assert torch.equal(*flipped)
    assert not torch.equal(flipped[0], images)


def test_a_crop_that_is_hardly_rotated_is_the_crop() -> None:
    """By the grid as by the gather, to 1e-4."""
    crops = []
    for angle in (0.0, 1e-5):
        torch.manual_seed(0)
        crops.append(Augment(AugmentConfig(crop_padding=3, flip=True, rotate=angle), MEAN)(pixels()))
    assert torch.allclose(*crops, atol=1e-4)
