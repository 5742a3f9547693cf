"""Gates: hard values forward, soft gradients backward."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny_spaces import TINY_SPACES
from under_gates import random_logits

from snugnet.nn import gates as gates_module
from snugnet.nn.batched import kernel_rings, nested_mask
from snugnet.nn.gated import prefixes
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
from snugnet.spaces import get_space

ENCODINGS: list[Encoding] = ["single-path", "multi-path"]
SPACE = get_space(
    "ofa-mobilenet-v3", width_mult=0.1, resolution=9, num_classes=4, stem_stride=1, stage_strides=(2, 1, 2, 1, 1)
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


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
    kernels = (3, 5, 7)
    rings = kernel_rings(kernels, torch.device("cpu"))
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


@pytest.mark.parametrize("encoding", ["single-path", "multi-path"])
def test_all_choices_at_once_are_what_each_is_by_itself(encoding: Encoding) -> None:
    """The same draws, the same numbers, the same gradients; choices of different sizes, and of one option."""
    space = get_space("attentive-nas", **TINY_SPACES["attentive-nas"])
    logits = torch.randn(3, sum(num_gates(space, encoding)), requires_grad=True)
    torch.manual_seed(5)
    together = relax(logits, space, encoding, 0.7)
    torch.manual_seed(5)
    each = []
    for part in logits.split(num_gates(space, encoding), 1):
        if encoding == "multi-path":
            each.append(one_of(part, 0.7))
        else:
            kept = torch.cat([part.new_ones(3, 1), torch.cumprod(binary_gates(part, 0.7), 1)], 1)
            each.append(kept - F.pad(kept[:, 1:], (0, 1)))
    weights = [torch.randn_like(part) for part in each]
    for ours, expected in zip(together, each, strict=True):
        assert torch.equal(ours, expected)
    ours, expected = (
        torch.autograd.grad(sum((w * p).sum() for w, p in zip(weights, parts, strict=True)), logits)[0]
        for parts in (together, each)
    )
    torch.testing.assert_close(ours, expected)


def test_what_is_kept_serves_training_whoever_asked_first() -> None:
    space = get_space("ofa-mobilenet-v3", width_mult=0.1, resolution=8, num_classes=3)
    logits = torch.zeros(2, sum(num_gates(space, "single-path")), requires_grad=True)
    gates_module._by_number_of_gates.cache_clear()
    gates_module._choice_by_choice.cache_clear()
    with torch.inference_mode():
        option_scores(logits.detach(), space, "single-path")
    relaxed = relax(logits, space, "single-path", 1.0)
    sum(each.sum() for each in relaxed).backward()
    assert logits.grad is not None
