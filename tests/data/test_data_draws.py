"""Random parameters of augmentations against kornia's: distributions, and what single operations make of the same parameters."""

from collections.abc import Callable

import kornia.augmentation as kornia
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from snugnet.data import AugmentConfig, draws
from snugnet.data.transforms import Augment, _filled, _flipped, _recoloured, _sampled

N = 50_000
SIZE = 32


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pictures(n: int = 16, size: int = 24, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Smooth, coloured, from ``low`` to ``high``."""
    coarse = torch.rand(n, 3, 5, 5)
    images = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)
    images = images - images.amin((1, 2, 3), keepdim=True)
    return low + (high - low) * images / images.amax((1, 2, 3), keepdim=True)


def same_distribution(ours: Tensor, theirs: Tensor) -> bool:
    """Kolmogorov-Smirnov on 50,000 of each: finds a difference of 0.0124 between the distribution functions (p = 0.001)."""
    assert ours.shape == theirs.shape == (N,)
    return bool(ks_2samp(ours.double().numpy(), theirs.double().numpy()).pvalue > 0.001)


def boxes_of(corners: Tensor) -> Tensor:
    """kornia's four corners, ``(n, 4, 2)``, as top, left, height, width."""
    left, top = corners[:, 0].T
    right, bottom = corners[:, 2].T
    return torch.stack([top, left, bottom - top + 1, right - left + 1])


@pytest.mark.parametrize("area", [(0.08, 1.0), (0.35, 1.0), (0.9, 1.0), (1.0, 1.0)])
@pytest.mark.parametrize("size", [9, SIZE])
def test_crops_are_distributed_as_kornias(area: tuple[float, float], size: int) -> None:
    ours = draws.resized_crops(draws.uniform(N), area, size, size).float()  # so that equal quotients are equal
    params = kornia.RandomResizedCrop((size, size), scale=area, p=1.0).forward_parameters(
        torch.Size((N, 3, size, size))
    )
    theirs = boxes_of(params["src"])
    for mine, other in zip(ours, theirs, strict=True):
        assert same_distribution(mine, other)
    assert same_distribution(ours[2] * ours[3], theirs[2] * theirs[3])
    assert same_distribution(ours[2] / ours[3], theirs[2] / theirs[3])
    assert (ours[:2] >= 0).all()
    assert (ours[:2] + ours[2:] <= size).all()


def test_a_crop_that_never_fits_is_the_whole_image() -> None:
    u = draws.uniform(4)
    u["areas"].fill_(1.0)
    u["aspects"][:, 1:].fill_(0.0)  # of three quarters, never of the area of a square
    u["aspects"][:, :1].fill_(0.5)  # of a square
    assert torch.equal(draws.resized_crops(u, (0.5, 1.0), 20, 20), torch.tensor([[0.0], [0], [20], [20]]).expand(4, 4))


def test_erased_rectangles_are_distributed_as_kornias() -> None:
    ours = draws.erased_boxes(draws.uniform(N), 1.0, SIZE, SIZE)
    params = kornia.RandomErasing(p=1.0).forward_parameters(torch.Size((N, 3, SIZE, SIZE)))
    for mine, name in zip(ours, ("ys", "xs", "heights", "widths"), strict=True):
        assert same_distribution(mine, params[name])
    kept = (draws.erased_boxes(draws.uniform(N), 0.3, SIZE, SIZE)[2] == 0).double().mean()
    assert abs(kept - 0.7) < 5 * (0.3 * 0.7 / N) ** 0.5


def step_tensors(config: AugmentConfig, n: int = N) -> dict[Callable[..., Tensor], tuple[Tensor, ...]]:
    """What `Augment` sends for each function, in a batch of ``n``."""
    steps = Augment(config, (0.5,) * 3)._steps(draws.uniform(n), SIZE, SIZE)
    return {function: tuple(tensors) for function, tensors in steps}


def test_angles_are_distributed_as_kornias() -> None:
    _, columns = step_tensors(AugmentConfig(rotate=30))[_sampled]
    along = columns[:, -1] - columns[:, 0]
    params = kornia.RandomRotation(30.0, p=1.0).forward_parameters(torch.Size((N, 3, SIZE, SIZE)))
    assert same_distribution(torch.atan2(along[:, 1], along[:, 0]).rad2deg(), params["degrees"])


def test_factors_are_distributed_as_kornias() -> None:
    """Read off the matrices: those of grey pixels b c, of the mean b (1 - c), of colour b c s."""
    own, mean = step_tensors(AugmentConfig(color_jitter=0.3))[_recoloured]
    contrasted, whole = own[:, 0].sum(-1), own[:, 0].sum(-1) + mean[:, 0].sum(-1)
    ours = {
        "brightness_factor": whole,
        "contrast_factor": contrasted / whole,
        "saturation_factor": (own[:, 0, 0] - own[:, 1, 0]) / contrasted,
    }
    params = kornia.ColorJitter(0.3, 0.3, 0.3, 0.0, p=1.0).forward_parameters(torch.Size((N, 3, SIZE, SIZE)))
    for name, factor in ours.items():
        assert same_distribution(factor, params[name])
    assert abs(torch.corrcoef(torch.stack(list(ours.values()))) - torch.eye(3)).max() < 5 / N**0.5


def test_half_is_flipped() -> None:
    (columns,) = step_tensors(AugmentConfig(flip=True))[_flipped]
    assert abs((columns[:, 0] > 0).double().mean() - 0.5) < 5 * 0.5 / N**0.5
    _, columns = step_tensors(AugmentConfig(flip=True, random_resized_crop=(0.5, 1.0)))[_sampled]
    assert abs((columns[:, 0, 0] > 0).double().mean() - 0.5) < 5 * 0.5 / N**0.5


def test_draws_do_not_depend_on_the_batch_nor_on_each_other() -> None:
    torch.manual_seed(1)
    many = draws.uniform(50)
    torch.manual_seed(1)
    few = draws.uniform(7)
    assert all(torch.equal(few[name], many[name][:, :7]) for name in draws.COLUMNS)
    numbers = torch.cat(list(draws.uniform(N).values()))
    assert abs(torch.corrcoef(numbers) - torch.eye(len(numbers))).max() < 6 / N**0.5
    assert 0 <= numbers.min() < numbers.max() < 1


def sampled(images: Tensor, box: Tensor | None = None, mirrored: bool = False, angle: Tensor | None = None) -> Tensor:
    n, _, height, width = images.shape
    box = torch.tensor([[0.0], [0], [height], [width]]).expand(4, n) if box is None else box
    angle = torch.zeros(n) if angle is None else angle
    return _sampled(images, *draws.sampling_lines(box, torch.full((n,), mirrored), angle, height, width))


def test_crops_look_like_kornias() -> None:
    """To 1e-5, in float32; of boxes of one pixel as well."""
    images = pictures()
    theirs = kornia.RandomResizedCrop((24, 24), scale=(0.05, 1.0), p=1.0, cropping_mode="resample")
    want = theirs(images)
    assert torch.allclose(sampled(images, boxes_of(theirs._params["src"])), want, atol=1e-5)
    pixel = torch.tensor([[3.0], [5], [1], [1]]).expand(4, 16)
    assert torch.allclose(sampled(images, pixel), images[:, :, 3:4, 5:6].expand_as(images), atol=1e-5)


def test_rotations_look_like_kornias() -> None:
    """To 1e-5, black corners too, of squares and of others."""
    for images in (pictures(), pictures()[:, :, :, :17]):
        theirs = kornia.RandomRotation(60.0, p=1.0)
        want = theirs(images)
        assert torch.allclose(sampled(images, angle=theirs._params["degrees"]), want, atol=1e-5)
        assert (want == 0).any()


def test_a_rotated_mirrored_crop_is_one_after_the_other() -> None:
    """On planes, which bilinear interpolation keeps; where kornia shows nothing from beyond the crop, to 1e-5."""
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(24.0), indexing="ij")
    images = torch.stack([x + 2 * y, 3 * x - y, x - 2 * y]).expand(16, -1, -1, -1) / 100
    crop = kornia.RandomResizedCrop((24, 24), scale=(0.2, 0.6), p=1.0, cropping_mode="resample")
    flip, turn = kornia.RandomHorizontalFlip(p=1.0), kornia.RandomRotation(40.0, p=1.0)
    want = turn(flip(crop(images)))
    shown = turn(torch.ones_like(images), params=turn._params) > 0.9999
    ours = sampled(images, boxes_of(crop._params["src"]), True, turn._params["degrees"])
    assert shown.double().mean() > 0.5
    assert torch.allclose(ours[shown], want[shown], atol=1e-5)
    assert (ours != 0).double().mean() > (want != 0).double().mean()  # a rotated crop shows the image around it


def test_a_mirror_alone_in_the_grid_is_exact_to_rounding() -> None:
    images = pictures()
    assert torch.allclose(sampled(images, mirrored=True), images.flip(-1), atol=1e-5)


def jittered(images: Tensor, factors: Tensor) -> Tensor:
    return _recoloured(images, *draws.colour_matrices(factors))


@pytest.mark.parametrize("which", range(3))
def test_one_factor_is_kornias(which: int) -> None:
    """To 1e-6, clamped ones too."""
    from kornia.enhance import adjust

    function = (
        adjust.adjust_brightness_accumulative,
        adjust.adjust_contrast_with_mean_subtraction,
        adjust.adjust_saturation_with_gray_subtraction,
    )[which]
    images, factors = pictures(), torch.ones(3, 16)
    factors[which] = torch.linspace(0.1, 1.9, 16)
    want = function(images, factors[which])
    assert torch.allclose(jittered(images, factors), want, atol=1e-6)
    assert (want == 1).any() or which == 2


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_jitter_is_kornias_in_any_order_but_for_clamping_between(order: tuple[int, ...]) -> None:
    """To 1e-5 where nothing leaves 0..1; over the whole range, 0.01 in the mean and nowhere more than 0.2."""
    theirs = kornia.ColorJitter(0.2, 0.2, 0.2, 0.0, p=1.0, order=order)
    names = ("brightness_factor", "contrast_factor", "saturation_factor")
    for low, high, mean, most in ((0.3, 0.6, 1e-5, 1e-5), (0.0, 1.0, 0.01, 0.2)):
        images = pictures(64, low=low, high=high)
        want = theirs(images)
        difference = (jittered(images, torch.stack([theirs._params[name] for name in names])) - want).abs()
        assert difference.mean() < mean
        assert difference.max() < most


def test_erasing_looks_like_kornias() -> None:
    images = pictures(low=0.1)
    theirs = kornia.RandomErasing(p=1.0)
    want = theirs(images)
    box = torch.stack([theirs._params[name] for name in ("ys", "xs", "heights", "widths")])
    assert torch.equal(_filled(images, *draws.box_pixels(box, 24, 24), torch.zeros(3)), want)
