"""In float64, so that rounding cannot hide a mistake: outputs, statistics and gradients, entry by entry."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snugnet.errors import ConfigError, SpaceError
from snugnet.nn import BlockModule, SELayer, build, module_name
from snugnet.nn.network import resized
from snugnet.spaces import SearchSpace, get_space
from snugnet.spaces.graph import steps
from snugnet.supernets import Supernet

CLASSES = 6
# the last feature map is 4 x 4, so that even the corners of a 7 x 7 kernel see pixels
SPACE = get_space(
    "ofa-mobilenet-v3", width_mult=0.1, resolution=15, num_classes=CLASSES, stem_stride=1, stage_strides=(2, 1, 1, 1, 2)
)
ROWS = st.tuples(*(st.integers(0, len(choice.options) - 1) for choice in SPACE.choices))


def drawn(seed: int) -> np.ndarray:
    return SPACE.sample(1, np.random.default_rng(seed))[0]


def corners() -> list[np.ndarray]:
    """Smallest, largest, centroid, and each kind of choice alone at its largest or its smallest."""
    rows = [SPACE.smallest[0], SPACE.largest[0], SPACE.centroid[0]]
    for kind in sorted({choice.kind for choice in SPACE.choices}):
        of_kind = np.array([choice.kind == kind for choice in SPACE.choices])
        rows += [np.where(of_kind, SPACE.largest[0], 0), np.where(of_kind, 0, SPACE.largest[0])]
    return list(SPACE.rows(np.stack(rows)))


CORNERS = corners()


@pytest.fixture(scope="module")
def base(randomise: Callable[[nn.Module, int], None]) -> Supernet:
    """Tests that change it take a copy."""
    supernet = Supernet(SPACE, seed=1).double().eval()
    randomise(supernet, 2)
    return supernet


def images(n: int, seed: int = 0, dtype: torch.dtype = torch.float64, space: SearchSpace = SPACE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, space.in_channels, space.resolution, space.resolution, generator=generator, dtype=dtype)


def used_entries(supernet: Supernet, arch: Any) -> dict[str, Tensor]:
    """Which entries of each tensor an architecture uses, written down by hand from the sizes in its blueprint."""
    used = {name: torch.zeros_like(tensor, dtype=torch.bool) for name, tensor in supernet.network.state_dict().items()}
    for block, *_ in steps(supernet.space.blueprint(arch)):
        for layer in block.all_layers:
            prefix = f"{module_name(block)}.{layer.name}."
            if layer.op == "conv":
                mask = used[f"{prefix}conv.weight"]
                edge = (mask.shape[-1] - layer.kernel) // 2
                centre = slice(edge, mask.shape[-1] - edge)
                mask[: layer.out_channels, : layer.in_channels // layer.groups, centre, centre] = True
            if layer.norm or layer.op == "norm":
                used[f"{prefix}norm.num_batches_tracked"].fill_(True)
                for name in ("weight", "bias", "running_mean", "running_var"):
                    used[f"{prefix}norm.{name}"][: layer.out_channels] = True
            if layer.op == "se":
                used[f"{prefix}reduce.weight"][: layer.hidden, : layer.in_channels] = True
                used[f"{prefix}reduce.bias"][: layer.hidden] = True
                used[f"{prefix}expand.weight"][: layer.in_channels, : layer.hidden] = True
                used[f"{prefix}expand.bias"][: layer.in_channels] = True
            elif layer.op == "linear":
                used[f"{prefix}linear.weight"][:, : layer.in_channels] = True
                if layer.bias:
                    used[f"{prefix}linear.bias"].fill_(True)
    return used


def check_equal(base: Supernet, arch: Any, training: bool, classes: list[int] | None = None) -> None:
    supernet = copy.deepcopy(base).train(training)
    before = {name: tensor.clone() for name, tensor in supernet.network.state_dict().items()}
    network = supernet.extract(arch, classes)
    assert network.training is training
    x = images(3, space=supernet.space)
    labels = torch.arange(3) % (len(classes) if classes else supernet.space.options["num_classes"])
    ours, theirs = supernet(x, arch, classes), network(resized(x, network.blueprint.resolution))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)

    # the running statistics moved alike (in eval mode not at all), and only those that the architecture uses
    moved, expected = supernet.extract(arch, classes).state_dict(), network.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(moved[name], tensor, rtol=1e-9, atol=1e-9)
    used = used_entries(supernet, arch)
    for name, tensor in supernet.network.state_dict().items():
        assert torch.equal(tensor[~used[name]], before[name][~used[name]]), name
        if name.endswith("num_batches_tracked"):
            assert int(tensor - before[name]) == int(training and bool(used[name]))

    # the gradients, cut out of the supernet like weights, are the static network's
    F.cross_entropy(ours, labels).backward()
    F.cross_entropy(theirs, labels).backward()
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    cut = dict(supernet.extract(arch, classes).named_parameters())
    ran = {module_name(step.node) for step in steps(network.blueprint)}
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == (name.split(".")[0] in ran), name
        if parameter.grad is not None:
            torch.testing.assert_close(cut[name].data, parameter.grad, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("corner", range(len(CORNERS)))
def test_a_corner_equals_its_copy(base: Supernet, corner: int, training: bool) -> None:
    check_equal(base, CORNERS[corner], training)


@settings(max_examples=12)
@given(ROWS, st.booleans(), st.none() | st.lists(st.integers(0, CLASSES - 1), min_size=1, unique=True))
def test_any_architecture_equals_its_copy(
    base: Supernet, row: tuple[int, ...], training: bool, classes: list[int] | None
) -> None:
    check_equal(base, row, training, classes)


@pytest.mark.parametrize("training", [False, True])
def test_in_every_space(tiny_space: SearchSpace, training: bool, randomise: Callable[[nn.Module, int], None]) -> None:
    supernet = Supernet(tiny_space, seed=1).double()
    randomise(supernet, 2)
    for i, arch in enumerate((*tiny_space.extremes().values(), *tiny_space.sample(6, np.random.default_rng(0)))):
        check_equal(supernet, arch, training, [2, 0] if i % 2 else None)


def test_the_supernet_holds_what_only_some_architectures_need() -> None:
    """A shortcut's 1x1 convolution where widths differ, which the largest network does without."""
    widths = ((4,), (4, 6), (6,), (6,), (6, 8), (6, 8), (8,), (8,), (16,))
    space = get_space("attentive-nas", resolution=8, widths=widths, num_classes=3, stage_strides=[1] * 7)
    largest = {block.name: block for block in space.blueprint(space.largest).blocks}
    union = {block.name: block for block in space.union.blocks}
    assert list(union) == list(largest)
    assert largest["mb2.block1"].shortcut == largest["mb5.block1"].shortcut == ()
    sizes = {}
    for name in ("mb2.block1", "mb5.block1"):
        (conv,) = union[name].shortcut or ()
        assert conv.op == "conv"
        sizes[name] = (conv.in_channels, conv.out_channels)
    assert sizes == {"mb2.block1": (4, 6), "mb5.block1": (8, 8)}  # 4 to 6 alone; 6 to 8 and 8 to 6
    layers = {**dict(Supernet(space).network.named_modules())}
    assert layers["mb5_block1.shortcut_conv.conv"].weight.shape[:2] == (8, 8)


# -- regularising --------------------------------------------------------------------------------------------------------


def test_dropout_and_drop_connect_in_training_mode_only(base: Supernet) -> None:
    x, arch = images(6), SPACE.largest
    assert torch.equal(base(x, arch, dropout=0.5, drop_connect=0.5), base(x, arch))  # eval mode
    supernet = copy.deepcopy(base).train()
    for rates in ({"dropout": 0.5}, {"drop_connect": 0.5}):
        outs = []
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            outs.append(supernet(x, arch, **rates))
        assert torch.equal(outs[0], outs[1])
        assert not torch.allclose(outs[0], outs[2])
    assert torch.equal(supernet(x, arch, dropout=0.0, drop_connect=0.0), supernet(x, arch))


def test_drop_connect_leaves_whole_images_out_and_keeps_the_mean(base: Supernet) -> None:
    """Block by block: an image has either the shortcut alone or its row scaled; only around an identity."""
    network = copy.deepcopy(base).network.train()
    blocks = {block.name: block for block in SPACE.blueprint(SPACE.largest).blocks}
    module = network.block_modules()["stage1.block2"]
    block = blocks["stage1.block2"]
    channels, size = block.layers[0].in_channels, block.layers[0].resolution
    x = torch.randn(4000, channels, size, size, dtype=torch.float64)[:, :, :3, :3]
    torch.manual_seed(0)
    out, row = module(x, block, 0.25) - x, module(x, block) - x
    dropped = (out == 0).flatten(1).all(1)
    assert 0.2 < dropped.double().mean() < 0.3
    torch.testing.assert_close(out[~dropped], row[~dropped] / 0.75)
    first = network.block_modules()["stage1.block1"]
    assert blocks["stage1.block1"].shortcut is None
    y = torch.randn(8, blocks["stage1.block1"].layers[0].in_channels, 9, 9, dtype=torch.float64)
    assert torch.equal(first(y, blocks["stage1.block1"], 0.9), first(y, blocks["stage1.block1"]))


def test_the_rate_of_drop_connect_rises_with_depth(base: Supernet, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    forward = BlockModule.forward

    def spy(self: BlockModule, x: Tensor, block: Any = None, drop: float = 0.0) -> Tensor:
        rates.append(drop)
        return forward(self, x, block, drop)

    monkeypatch.setattr(BlockModule, "forward", spy)
    base(images(2), SPACE.largest, drop_connect=0.2)
    rising = np.linspace(0, 0.2, len(rates), endpoint=False)
    assert rates == pytest.approx(rising)
    assert len(rates) == 22
    rates.clear()
    base(images(2), SPACE.largest, drop_connect=0.2, drop_connect_stages=2)
    assert rates == pytest.approx([*np.zeros(14), *rising[14:]])  # stem, a first block, five stages of four


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_what_is_no_rate(base: Supernet, rate: float) -> None:
    for name in ("dropout", "drop_connect"):
        with pytest.raises(ConfigError, match=f"{name} is a rate"):
            base(images(1), SPACE.smallest, **{name: rate})


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 1},
        {"resolution": 16, "stem_stride": 2, "stage_strides": (2, 2, 2, 1, 2), "in_channels": 1},
        {"resolution": 9, "depths": (1, 2), "kernel_sizes": (1, 3), "expand_ratios": (1.5, 2)},
        {"resolution": 9, "depths": (2,), "kernel_sizes": (5,), "expand_ratios": (3, 6)},
    ],
)
def test_other_spaces(options: dict[str, Any], randomise: Callable[[nn.Module, int], None]) -> None:
    space = get_space("ofa-mobilenet-v3", **{"width_mult": 0.1, "num_classes": 3, **options})
    supernet = Supernet(space).double()
    randomise(supernet, 0)
    x = torch.randn(4, space.in_channels, space.resolution, space.resolution, dtype=torch.float64)
    for training in (False, True):
        supernet.train(training)
        for arch in (space.smallest, space.largest, *space.sample(2, np.random.default_rng(1))):
            network = supernet.extract(arch)
            torch.testing.assert_close(supernet(x, arch), network(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("arch", [*CORNERS, *(drawn(seed) for seed in range(4))])
def test_gradients_reach_exactly_the_entries_in_use(base: Supernet, arch: np.ndarray) -> None:
    supernet = copy.deepcopy(base)
    for module in supernet.modules():
        if isinstance(module, SELayer):  # no hidden unit is dead, no hard sigmoid saturated
            module.reduce.bias.data.add_(10)
            module.expand.weight.data.mul_(0.01)
        elif isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    x = images(16)
    with torch.no_grad():  # statistics of these very images: about half of each ReLU is open
        supernet.train()(x, arch)
    supernet.eval()  # in training mode batch norm cancels the gradient of a shift before it
    weights = torch.randn(16, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (supernet(x, arch) * weights).sum().backward()
    used = used_entries(supernet, arch)
    for name, parameter in supernet.network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        wrong = (gradient != 0) != used[name]
        assert not wrong.any(), f"{name}: {int(wrong.sum())} of {wrong.numel()}"
    assert (arch != SPACE.largest[0]).any() or all(mask.all() for mask in used.values())


def test_gradients_with_cut_classes_reach_only_their_rows(base: Supernet) -> None:
    supernet = copy.deepcopy(base).train()
    F.cross_entropy(supernet(images(4), SPACE.largest, [4, 2]), torch.tensor([0, 1, 0, 1])).backward()
    linear = supernet.classifier.linear
    assert (linear.weight.grad != 0).any(1).nonzero().flatten().tolist() == [2, 4]
    assert linear.bias.grad.nonzero().flatten().tolist() == [2, 4]


@settings(max_examples=10)
@given(ROWS)
def test_choices_that_do_not_matter_do_not_matter(base: Supernet, row: tuple[int, ...]) -> None:
    canonical = SPACE.rows(row)
    with torch.no_grad():
        assert torch.equal(base(images(1), row), base(images(1), canonical))
        assert torch.equal(base(images(1), canonical), base(images(1), canonical[0].tolist()))


@pytest.mark.parametrize("classes", [[2], [4, 1], [5, 4, 3, 2, 1, 0], torch.tensor([0, 3]), np.array([3, 0]), (1, 2)])
def test_classes_are_cut_in_their_order(base: Supernet, classes: Any) -> None:
    arch, x = drawn(5), images(4)
    whole = base(x, arch)[:, torch.as_tensor(classes)]
    torch.testing.assert_close(base(x, arch, classes), whole)
    network = base.extract(arch, classes)
    torch.testing.assert_close(network(x), whole)
    assert network.blueprint == SPACE.with_options(num_classes=len(classes)).blueprint(arch)
    assert sum(p.numel() for p in network.parameters()) == network.blueprint.params


@pytest.mark.parametrize("classes", [None, [1, 3]])
def test_a_copy_and_the_supernet_share_no_memory(base: Supernet, classes: list[int] | None) -> None:
    supernet = copy.deepcopy(base)
    network = supernet.extract(SPACE.largest, classes)
    pointers = {tensor.untyped_storage().data_ptr() for tensor in supernet.state_dict().values()}
    assert not pointers & {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    x = images(2)
    before = network(x)
    with torch.no_grad():
        for tensor in supernet.state_dict().values():
            tensor.add_(1)
    assert torch.equal(network(x), before)


def test_a_copy_of_a_frozen_supernet_can_be_trained(base: Supernet) -> None:
    supernet = copy.deepcopy(base).requires_grad_(False)
    with torch.no_grad():
        network = supernet.extract(SPACE.smallest, [0, 2])
    network(images(2)).sum().backward()
    assert all(parameter.is_leaf and parameter.grad is not None for parameter in network.parameters())
    assert not any(parameter.requires_grad for parameter in supernet.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_channels_last_in_float32(training: bool, randomise: Callable[[nn.Module, int], None]) -> None:
    """As in training: another layout of memory, the same numbers."""
    supernet = Supernet(SPACE, seed=3).train(training)
    randomise(supernet, 4)
    supernet = supernet.to(memory_format=torch.channels_last)
    x = images(8, dtype=torch.float32)
    for seed in range(3):
        network = supernet.extract(drawn(seed))
        assert all(parameter.is_contiguous() for parameter in network.parameters())
        ours, theirs = supernet(x.contiguous(memory_format=torch.channels_last), drawn(seed)), network(x)
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


@pytest.mark.parametrize("arch", CORNERS[:3])
def test_a_batch_of_one(base: Supernet, arch: np.ndarray) -> None:
    x = images(3)
    together = base(x, arch)
    for i in range(3):
        torch.testing.assert_close(base(x[i : i + 1], arch), together[i : i + 1])
        torch.testing.assert_close(base.extract(arch)(x[i : i + 1]), together[i : i + 1])


@pytest.mark.parametrize(
    "arch",
    [[0, 0], [], np.zeros((2, SPACE.d), dtype=int), np.zeros(SPACE.d), np.full(SPACE.d, -1), None, "largest"],
    ids=["short", "empty", "two", "floats", "negative", "none", "text"],
)
def test_what_is_no_architecture(base: Supernet, arch: Any) -> None:
    with pytest.raises(SpaceError):
        base.extract(arch)
    with pytest.raises(SpaceError):
        base(images(1), arch)


@pytest.mark.parametrize(
    "classes",
    [
        [], [CLASSES], [-1], [0, CLASSES], [[0, 1]], 3, [0.0, 1.0], [0.7], ["a"], [None],
        torch.tensor([True, False, True, False, False, False]),
    ],
    ids=str,
)  # fmt: skip
def test_what_are_no_classes(base: Supernet, classes: Any) -> None:
    """A mask of booleans, or a fraction, must not be read as the indices 0 and 1."""
    with pytest.raises(SpaceError, match="classes are indices from 0 to 5"):
        base.extract(SPACE.smallest, classes)
    with pytest.raises(SpaceError, match="classes are indices from 0 to 5"):
        base(images(2), SPACE.smallest, classes)


def test_the_seed_decides() -> None:
    first, second, third = (Supernet(SPACE, seed=seed).state_dict() for seed in (7, 7, 8))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not torch.equal(first["network.stem.conv.conv.weight"], third["network.stem.conv.conv.weight"])


def test_the_largest_network_is_the_supernet(base: Supernet) -> None:
    whole = build(SPACE.blueprint(SPACE.largest), base.network.state_dict()).eval()
    assert torch.equal(whole(images(1)), base(images(1), SPACE.largest))
    other = Supernet(SPACE, seed=9).double().eval()
    other.load_state_dict(base.state_dict())
    assert torch.equal(other(images(1), drawn(11)), base(images(1), drawn(11)))


def test_two_threads_run_two_subnetworks(base: Supernet) -> None:
    x, archs = images(2), [drawn(seed) for seed in range(4)]
    with torch.no_grad():
        alone = [base(x, arch) for arch in archs]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(lambda i: base(x, archs[i % 4]), range(16)))
    for i, out in enumerate(together):
        torch.testing.assert_close(out, alone[i % 4])


def test_images_are_brought_to_the_resolution_of_the_architecture():
    space = get_space("ofa-mobilenet-v3", width_mult=0.1, resolutions=[9, 12, 16], num_classes=CLASSES, stem_stride=1)
    supernet = Supernet(space, seed=3).eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for option, size in enumerate((9, 12, 16)):
        row = space.largest.copy()
        row[0, space.column["resolution"]] = option
        network = supernet.extract(row)
        assert network.blueprint.resolution == size
        small = x if size == 16 else F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(supernet(x, row), network(small))
