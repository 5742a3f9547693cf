"""The supernet under gates: hard gates are the sub-network itself, gradients are those of the definition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_spaces import TINY_SPACES
from torch import Tensor, nn
from under_gates import check_gradients, one_hot, random_logits

from snugnet.errors import ConfigError
from snugnet.nn import quantise
from snugnet.nn.gated import GatedSupernet
from snugnet.nn.gates import (
    Encoding,
    num_gates,
    option_scores,
    relax,
)
from snugnet.spaces import SearchSpace, get_space
from snugnet.spaces.graph import steps
from snugnet.supernets import Supernet

ENCODINGS: list[Encoding] = ["single-path", "multi-path"]
SPACE = get_space(
    "ofa-mobilenet-v3", width_mult=0.1, resolution=9, num_classes=4, stem_stride=1, stage_strides=(2, 1, 2, 1, 1)
)
TINY = SPACE.with_options(depths=(1, 2), kernel_sizes=(3, 5), expand_ratios=(2, 3), resolution=5)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def supernets(randomise: Callable[[nn.Module, int], None]) -> dict[str, Supernet]:
    made = {}
    for name, space in {"whole": SPACE, "tiny": TINY}.items():
        made[name] = Supernet(space, seed=1).double().requires_grad_(False)
        randomise(made[name], 2)
    return made


def check_hard(supernet: Supernet, rows: np.ndarray, encoding: Encoding, images: int = 3) -> None:
    space = supernet.space
    x = torch.randn(images, len(rows), space.in_channels, space.resolution, space.resolution, dtype=torch.float64)
    state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    out = GatedSupernet(space, supernet.network)(x, one_hot(space, rows), encoding)
    for name, tensor in supernet.state_dict().items():
        assert torch.equal(tensor, state[name]), f"{name} was changed"
    supernet.train()
    for p, row in enumerate(rows):
        torch.testing.assert_close(out[:, p], supernet(x[:, p], row), rtol=1e-9, atol=1e-9)
    supernet.load_state_dict(state)


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=6)
@given(seed=st.integers(0, 1000), pairs=st.integers(1, 4))
def test_hard_gates_give_each_sub_network(
    supernets: dict[str, Supernet], encoding: Encoding, seed: int, pairs: int
) -> None:
    """Different architectures in one pass; what a skipped block would have chosen does not matter."""
    rng = np.random.default_rng(seed)
    rows = (rng.random((pairs, SPACE.d)) * SPACE.num_options).astype(np.int16)  # not canonical
    check_hard(supernets["whole"], rows, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_hard_gates_at_the_extremes(supernets: dict[str, Supernet], encoding: Encoding) -> None:
    rows = np.concatenate([SPACE.smallest, SPACE.largest, SPACE.centroid, SPACE.largest])
    check_hard(supernets["whole"], rows, encoding)
    check_hard(supernets["whole"], rows[:1], encoding, images=1)
    check_hard(supernets["tiny"], TINY.sample(3, np.random.default_rng(0)), encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_hard_gates_in_every_space(
    tiny_space: SearchSpace, encoding: Encoding, randomise: Callable[[nn.Module, int], None]
) -> None:
    """Shared choices, widths, shortcuts that need a convolution or do not, blocks skipped one by one, resolutions."""
    supernet = Supernet(tiny_space, seed=1).double().requires_grad_(False)
    randomise(supernet, 2)
    rng = np.random.default_rng(1)
    raw = (rng.random((5, tiny_space.d)) * tiny_space.num_options).astype(np.int16)  # not canonical
    for rows in (raw, np.concatenate(list(tiny_space.extremes().values())), tiny_space.sample(1, rng)):
        check_hard(supernet, rows, encoding)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("hard", [False, True])
def test_gradients_in_every_space(
    tiny_space: SearchSpace,
    encoding: Encoding,
    hard: bool,
    randomise: Callable[[nn.Module, int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Along random directions of all probabilities at once, against finite differences (of what roundings stand for)."""
    monkeypatch.setattr(quantise, "nearest", lambda x: x)
    supernet = Supernet(tiny_space, seed=1).double().requires_grad_(False)
    randomise(supernet, 2)
    gated = GatedSupernet(tiny_space, supernet.network)
    size, pairs = tiny_space.resolution, 2
    x = torch.randn(3, pairs, 3, size, size, dtype=torch.float64)
    weights = torch.randn(3, pairs, 4, dtype=torch.float64)
    if hard:
        drawn = tiny_space.sample(40, np.random.default_rng(3))
        smooth = [row for row in drawn if not any(step.node.zero for step in steps(tiny_space.blueprint(row)))]
        points = one_hot(tiny_space, np.array(smooth[:pairs]))  # at zeros alone a ReLU has no derivative
    else:
        points = [torch.rand(pairs, n, dtype=torch.float64).softmax(1) for n in tiny_space.num_options.tolist()]
    points = [point.requires_grad_() for point in points]

    def value(at: list[Tensor]) -> Tensor:
        return (gated(x, at, encoding) * weights).sum()

    gradients = torch.autograd.grad(value(points), points, allow_unused=True)
    for choice, gradient in zip(tiny_space.choices, gradients, strict=True):
        assert len(choice.options) == 1 or gradient is not None, choice.name
    step = 2e-8  # so small that hardly ever a ReLU opens or closes in between
    for _ in range(3):
        directions = [torch.randn_like(point) for point in points]
        with torch.no_grad():
            up, down = (value([p + s * d for p, d in zip(points, directions, strict=True)]) for s in (step, -step))
        got = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True) if g is not None)
        torch.testing.assert_close(got, (up - down) / (2 * step), rtol=1e-4, atol=1e-5)


def test_a_closed_gate_gets_the_gradient_of_what_opening_it_brings(
    randomise: Callable[[nn.Module, int], None],
) -> None:
    """Every option of every choice that matters, widths of a stage without an expanding convolution included."""
    space = get_space("attentive-nas", **TINY_SPACES["attentive-nas"])
    supernet = Supernet(space, seed=1).double().requires_grad_(False)
    randomise(supernet, 2)
    points = [point.requires_grad_() for point in one_hot(space, space.smallest)]
    x = torch.randn(4, 1, 3, 9, 9, dtype=torch.float64)
    (GatedSupernet(space, supernet.network)(x, points) * torch.randn(4, 1, 4, dtype=torch.float64)).sum().backward()
    for choice, point in zip(space.choices, points, strict=True):
        if len(choice.options) > 1:
            assert (point.grad[:, 1:] != 0).all(), choice.name  # the smallest depth opens nothing
            assert (point.grad.abs() < 1e3).all(), choice.name


def test_an_unknown_encoding(supernets: dict[str, Supernet]) -> None:
    known = "unknown encoding 'two-path'; known: single-path, multi-path"
    gated = GatedSupernet(TINY, supernets["tiny"].network)
    points = one_hot(TINY, TINY.smallest)
    logits = torch.zeros(1, 1)
    for call in (
        lambda: gated(torch.zeros(1, 1, 3, 5, 5, dtype=torch.float64), points, "two-path"),
        lambda: num_gates(TINY, "two-path"),
        lambda: relax(logits, TINY, "two-path", 1.0),
        lambda: option_scores(logits, TINY, "two-path"),
    ):
        with pytest.raises(ConfigError, match=known):
            call()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 16, "stem_stride": 2, "stage_strides": (2, 2, 2, 1, 1), "in_channels": 1},
        {"resolution": 8, "depths": (2, 3), "kernel_sizes": (1, 7), "expand_ratios": (1.5, 6)},
        {"resolution": 8, "depths": (1,), "kernel_sizes": (5,), "expand_ratios": (2, 3)},
    ],
)
def test_hard_gates_in_other_spaces(
    encoding: Encoding, options: dict[str, object], randomise: Callable[[nn.Module, int], None]
) -> None:
    space = get_space("ofa-mobilenet-v3", **{"width_mult": 0.15, "num_classes": 3, "stem_stride": 1, **options})
    supernet = Supernet(space).double()
    randomise(supernet, 3)
    check_hard(supernet, space.sample(3, np.random.default_rng(1)), encoding, images=4)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("hard", [False, True])
def test_gradients_of_the_probabilities_against_finite_differences(
    supernets: dict[str, Supernet], encoding: Encoding, hard: bool
) -> None:
    x = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64)
    rows = TINY.sample(2, np.random.default_rng(3)) if hard else None
    gradients = check_gradients(GatedSupernet(TINY, supernets["tiny"].network), x, encoding, rows)
    assert sum(float(g.abs().sum()) > 0 for g in gradients) > 0.5 * TINY.d


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_gradients_do_not_cross_from_one_architecture_to_another(
    supernets: dict[str, Supernet], encoding: Encoding
) -> None:
    gated = GatedSupernet(TINY, supernets["tiny"].network)
    points = [point.requires_grad_() for point in one_hot(TINY, np.concatenate([TINY.largest] * 3))]
    out = gated(torch.randn(4, 3, 3, 5, 5, dtype=torch.float64), points, encoding)
    out[:, 1].square().sum().backward()
    for choice, point in zip(TINY.choices, points, strict=True):
        assert (point.grad[[0, 2]] == 0).all()
        assert (point.grad[1] != 0).any(), choice.name


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_in_bfloat16(supernets: dict[str, Supernet], encoding: Encoding) -> None:
    """As on a GPU: close to full precision, and the gates' gradients stay in their own type."""
    supernet = Supernet(TINY, seed=1).requires_grad_(False)
    supernet.load_state_dict(supernets["tiny"].state_dict())
    gated = GatedSupernet(TINY, supernet.network)
    points = [p.float().requires_grad_() for p in one_hot(TINY, TINY.sample(2, np.random.default_rng(0)))]
    x = torch.randn(8, 2, 3, 5, 5)
    expected = gated(x, points, encoding)
    with torch.autocast("cpu", torch.bfloat16):
        out = gated(x, points, encoding)
    assert F.cosine_similarity(out.float().flatten(), expected.flatten(), 0) > 0.99
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in points)


def test_a_frozen_supernet_gets_no_gradient(supernets: dict[str, Supernet]) -> None:
    supernet = supernets["tiny"]
    logits = random_logits(TINY, "single-path", 2).requires_grad_()
    x = torch.randn(2, 2, 3, 5, 5, dtype=torch.float64)
    GatedSupernet(TINY, supernet.network)(x, relax(logits, TINY, "single-path", 1.0)).sum().backward()
    assert logits.grad is not None
    assert all(parameter.grad is None for parameter in supernet.parameters())
