"""Gates: hard values forward, soft gradients backward, and the supernet under them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny_spaces import TINY_SPACES
from torch import Tensor, nn

from snugnet.errors import ConfigError
from snugnet.nn import quantise
from snugnet.nn.batched import kernel_rings, nested_mask
from snugnet.nn.gated import GatedSupernet, prefixes
from snugnet.nn.gates import (
    Encoding,
    binary_gates,
    from_thermometer,
    logistic_noise,
    num_gates,
    one_of,
    option_scores,
    relax,
    thermometer,
    to_thermometer,
)
from snugnet.spaces import SearchSpace, get_space
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


def one_hot(space: SearchSpace, rows: np.ndarray) -> list[Tensor]:
    """For each choice (pairs, m), float64."""
    return [
        F.one_hot(torch.from_numpy(rows[:, c].astype(np.int64)), len(choice.options)).double()
        for c, choice in enumerate(space.choices)
    ]


# -- gates -------------------------------------------------------------------------------------------------------------


def test_binary_gates_are_exactly_0_or_1() -> None:
    gates = binary_gates(torch.randn(100_000) * 3, 0.7)
    assert set(gates.unique().tolist()) == {0.0, 1.0}  # 1 + s - s may be off by a rounding; 1 + (s - s) is not
    choice = one_of(torch.randn(20_000, 5) * 3, 0.7)
    assert set(choice.unique().tolist()) == {0.0, 1.0}
    assert (choice.sum(1) == 1).all()


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("logit", [-3.0, -0.5, 0.0, 2.0])
def test_binary_gates_open_with_the_sigmoid_of_their_logit(logit: float, temperature: float) -> None:
    n, p = 200_000, torch.sigmoid(torch.tensor(logit)).item()
    share = binary_gates(torch.full((n,), logit), temperature).mean().item()
    assert abs(share - p) < 4.5 * (p * (1 - p) / n) ** 0.5


def test_one_of_draws_with_the_softmax() -> None:
    logits = torch.tensor([1.0, -1.0, 0.0, 2.0])
    n = 100_000
    for temperature in (0.3, 1.0, 4.0):
        counts = one_of(logits.expand(n, -1), temperature).sum(0)
        assert chisquare(counts.numpy(), (torch.softmax(logits, 0) * n).double().numpy(), sum_check=False).pvalue > 1e-4


def test_logistic_noise_has_the_logistic_distribution() -> None:
    noise = logistic_noise(torch.empty(200_000))
    for x in (-2.0, 0.0, 1.0):
        assert (noise < x).float().mean().item() == pytest.approx(torch.sigmoid(torch.tensor(x)).item(), abs=0.006)
    assert noise.isfinite().all()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_gradient_of_a_binary_gate_is_that_of_the_relaxation(temperature: float) -> None:
    noise, weights = torch.randn(50), torch.randn(50)
    logits = torch.randn(50, requires_grad=True)
    (got,) = torch.autograd.grad((binary_gates(logits, temperature, noise) * weights).sum(), logits)
    (expected,) = torch.autograd.grad((torch.sigmoid((logits + noise) / temperature) * weights).sum(), logits)
    assert torch.equal(got, expected)
    soft = torch.sigmoid((logits + noise) / temperature)
    torch.testing.assert_close(got, weights * soft * (1 - soft) / temperature)
    assert torch.equal(binary_gates(logits, temperature, noise), (logits + noise > 0).float())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_gradient_of_one_of_is_that_of_the_softmax(temperature: float) -> None:
    noise, weights = torch.randn(20, 4), torch.randn(20, 4)
    logits = torch.randn(20, 4, requires_grad=True)
    (got,) = torch.autograd.grad((one_of(logits, temperature, noise) * weights).sum(), logits)
    (expected,) = torch.autograd.grad((torch.softmax((logits + noise) / temperature, 1) * weights).sum(), logits)
    assert torch.equal(got, expected)
    assert torch.equal(one_of(logits, temperature, noise).argmax(1), (logits + noise).argmax(1))


def test_the_noise_is_drawn_from_the_global_generator() -> None:
    logits = torch.randn(100)
    torch.manual_seed(1)
    first = binary_gates(logits, 1.0)
    assert not torch.equal(binary_gates(logits, 1.0), first)
    torch.manual_seed(1)
    assert torch.equal(binary_gates(logits, 1.0), first)


# -- thermometers ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 100))
def test_thermometers_invert_one_another(options: int, pairs: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    probabilities = torch.softmax(torch.randn(pairs, options, generator=generator, dtype=torch.float64), 1)
    kept = to_thermometer(probabilities)
    torch.testing.assert_close(kept[:, 0], torch.ones(pairs, dtype=torch.float64))
    assert (kept.diff(dim=1) <= 0).all()
    torch.testing.assert_close(from_thermometer(kept), probabilities)
    torch.testing.assert_close(to_thermometer(from_thermometer(kept)), kept)
    gates = torch.rand(pairs, options - 1, generator=generator, dtype=torch.float64)
    opened = thermometer(gates)
    assert opened.shape == (pairs, options)
    torch.testing.assert_close(from_thermometer(opened).sum(1), torch.ones(pairs, dtype=torch.float64))
    for i in range(options):
        torch.testing.assert_close(opened[:, i], gates[:, :i].prod(1))


def test_thermometer_of_every_setting_of_three_gates() -> None:
    """Option i: the gates up to i are open and the next is closed; those after a closed one do not count."""
    for gates in product([0.0, 1.0], repeat=3):
        option = next((i for i, gate in enumerate(gates) if gate == 0), 3)
        assert from_thermometer(thermometer(torch.tensor([gates]))).tolist() == [[float(i == option) for i in range(4)]]


def test_the_gradient_of_closed_gates_is_not_lost_in_zeros() -> None:
    """The derivative of a product by one factor is the product of the others, zeros included."""
    gates = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(thermometer, gates)[0, :, 0]
    assert jacobian.tolist() == [[0, 0, 0], [1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert torch.autograd.gradcheck(lambda g: from_thermometer(thermometer(g)), gates)


def test_rings_add_up_to_squares() -> None:
    kernels = [3, 5, 7]
    rings = kernel_rings(kernels)
    assert rings.shape == (3, 7, 7)
    assert rings.sum(0).eq(1).all()
    for option, kernel in enumerate(kernels):
        kept = to_thermometer(F.one_hot(torch.tensor([option]), 3).float())
        edge = (7 - kernel) // 2
        square = F.pad(torch.ones(kernel, kernel), (edge,) * 4)
        assert torch.equal(nested_mask(kept, rings)[0], square)
    mask = nested_mask(torch.tensor([[1.0, 0.5, 0.25]]), rings)[0]
    assert mask[3, 3:].tolist() == [1, 1, 0.5, 0.25]
    assert mask[0].tolist() == [0.25] * 7


def test_prefixes_are_the_leading_channels() -> None:
    """Summed up with probabilities, each channel has the probability of the widths that reach so far."""
    channels = prefixes((2, 2, 5, -1), torch.device("cpu"), torch.float32)
    assert channels.tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1] * 5, [0] * 5]
    assert (torch.tensor([[0.25, 0.25, 0.5, 0]]) @ channels).tolist() == [[1, 1, 0.5, 0.5, 0.5]]


# -- draws and scores --------------------------------------------------------------------------------------------------


def random_logits(space: SearchSpace, encoding: Encoding, pairs: int) -> Tensor:
    return torch.randn(pairs, sum(num_gates(space, encoding)), dtype=torch.float64)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_option_scores_are_log_probabilities(encoding: Encoding) -> None:
    space = SPACE.with_options(depths=(1, 2, 3, 4), kernel_sizes=(3, 5), expand_ratios=(3,))
    logits = random_logits(space, encoding, 3)
    scores = option_scores(logits, space, encoding)
    options = [len(choice.options) for choice in space.choices]
    assert scores.shape == (3, sum(options))
    parts = logits.split(num_gates(space, encoding), 1)
    for part, score, m in zip(parts, scores.split(options, 1), options, strict=True):
        torch.testing.assert_close(score.exp().sum(1), torch.ones(3, dtype=torch.float64))
        if encoding == "multi-path":
            torch.testing.assert_close(score.exp(), part.exp() / part.exp().sum(1, keepdim=True))
            continue
        expected = torch.zeros(3, m, dtype=torch.float64)
        opened = torch.sigmoid(part)
        for gates in product([0, 1], repeat=m - 1):  # every setting of the gates, with its probability
            option = next((i for i, gate in enumerate(gates) if not gate), m - 1)
            weight = torch.ones(3, dtype=torch.float64)
            for i, gate in enumerate(gates):
                weight = weight * (opened[:, i] if gate else 1 - opened[:, i])
            expected[:, option] += weight
        torch.testing.assert_close(score.exp(), expected)


def test_option_scores_of_extreme_logits_are_finite() -> None:
    for encoding in ENCODINGS:
        logits = torch.full((2, sum(num_gates(SPACE, encoding))), 200.0)
        logits[1] *= -1
        assert option_scores(logits, SPACE, encoding).isfinite().all()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_relax_draws_with_the_probabilities_that_option_scores_give(encoding: Encoding) -> None:
    n = 20_000
    logits = random_logits(SPACE, encoding, 1)
    drawn = relax(logits.expand(n, -1), SPACE, encoding, 1.0)
    scores = option_scores(logits, SPACE, encoding)[0].split([len(choice.options) for choice in SPACE.choices])
    pvalues = []
    for part, score in zip(drawn, scores, strict=True):
        assert ((part == 0) | (part == 1)).all()
        assert (part.sum(1) == 1).all()
        pvalues.append(chisquare(part.sum(0).numpy(), (score.exp() * n).numpy(), sum_check=False).pvalue)
    assert min(pvalues) > 1e-5  # 45 tests


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_relax_without_noise_takes_the_more_probable_value(encoding: Encoding) -> None:
    logits = random_logits(SPACE, encoding, 6)
    parts = logits.split(num_gates(SPACE, encoding), 1)
    for part, chosen in zip(parts, relax(logits, SPACE, encoding, 1.0, noisy=False), strict=True):
        for gates, option in zip(part, chosen.argmax(1), strict=True):
            if encoding == "multi-path":
                assert option == gates.argmax()
            else:
                assert option == next((i for i, gate in enumerate(gates) if gate <= 0), len(gates))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_relax_gives_gradients_to_every_choice(encoding: Encoding) -> None:
    logits = random_logits(SPACE, encoding, 4).requires_grad_()
    drawn = relax(logits, SPACE, encoding, 1.0)
    sum((part * torch.randn_like(part)).sum() for part in drawn).backward()
    touched = (logits.grad != 0).any(0).split(num_gates(SPACE, encoding))
    assert all(part.any() for part in touched)
    assert logits.grad.isfinite().all()


def test_num_gates() -> None:
    assert num_gates(SPACE, "single-path") == [2] * SPACE.d
    assert num_gates(SPACE, "multi-path") == [3] * SPACE.d
    assert num_gates(SPACE.with_options(expand_ratios=(3,)), "single-path").count(0) == 20


# -- the gated supernet ------------------------------------------------------------------------------------------------


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
        points = one_hot(tiny_space, tiny_space.sample(pairs, np.random.default_rng(3)))
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
    """For every choice on its own, along a random direction; soft and hard values of the probabilities."""
    gated = GatedSupernet(TINY, supernets["tiny"].network)
    pairs = 2
    x = torch.randn(2, pairs, 3, 5, 5, dtype=torch.float64)
    weights = torch.randn(2, pairs, TINY.options["num_classes"], dtype=torch.float64)
    if hard:
        points = one_hot(TINY, TINY.sample(pairs, np.random.default_rng(3)))
    else:
        points = [torch.rand(pairs, len(choice.options), dtype=torch.float64) for choice in TINY.choices]
    points = [point.requires_grad_() for point in points]

    def value(at: list[Tensor]) -> Tensor:
        return (gated(x, at, encoding) * weights).sum()

    gradients = torch.autograd.grad(value(points), points)
    step = 1e-6
    for c, gradient in enumerate(gradients):
        direction = torch.randn_like(points[c])
        with torch.no_grad():
            up, down = (
                value([p + sign * step * direction if i == c else p for i, p in enumerate(points)]) for sign in (1, -1)
            )
        expected = (up - down) / (2 * step)
        got = (gradient * direction).sum()
        torch.testing.assert_close(
            got, expected, rtol=2e-5, atol=2e-6, msg=lambda m, c=c: f"{TINY.choices[c].name}: {m}"
        )
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
