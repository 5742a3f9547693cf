"""Superclass dropout as section 3.1 has it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare

from snugnet.training.dropout import cross_entropy, distillation_loss, superclass_mask

GROUPS = torch.tensor([0, 0, 1, 1, 1, 2, 3, 3])


def test_whole_superclasses_are_dropped_and_the_target_never() -> None:
    torch.manual_seed(0)
    labels = torch.randint(8, (20_000,))
    mask = superclass_mask(labels, GROUPS, 0.3)
    assert mask[torch.arange(len(labels)), labels].all()
    by_group = torch.stack([mask[:, g == GROUPS].float().mean(1) for g in range(4)], 1)
    assert set(by_group.unique().tolist()) == {0.0, 1.0}
    other = by_group[torch.arange(4) != GROUPS[labels][:, None]].view(-1, 3)
    assert (other.mean(0) - 0.7).abs().max() < 0.015
    joint = torch.corrcoef(other.T) - torch.eye(3)
    assert joint.abs().max() < 0.03  # drawn independently of one another


def test_no_dropout_is_cross_entropy() -> None:
    logits, labels = torch.randn(16, 8), torch.randint(8, (16,))
    mask = superclass_mask(labels, GROUPS, 0.0)
    assert mask.all()
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        torch.testing.assert_close(cross_entropy(logits, labels, mask, smoothing), expected)
        torch.testing.assert_close(cross_entropy(logits, labels, None, smoothing), expected)


def test_full_dropout_is_cross_entropy_over_the_target_superclass() -> None:
    logits, labels = torch.randn(16, 8, requires_grad=True), torch.arange(16) % 8
    mask = superclass_mask(labels, GROUPS, 1.0)
    assert torch.equal(mask, GROUPS[None] == GROUPS[labels][:, None])
    loss = cross_entropy(logits, labels, mask, 0.1)
    expected = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        own = (GROUPS[label] == GROUPS).nonzero().flatten()
        position = (own == label).nonzero().flatten()
        expected.append(F.cross_entropy(row[own][None], position, label_smoothing=0.1))
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    loss.backward()
    assert not logits.grad[~mask].any()
    assert logits.grad.isfinite().all()


def test_one_class_superclass_has_nothing_to_learn_alone() -> None:
    logits, labels = torch.randn(3, 8, requires_grad=True), torch.full((3,), 5)
    mask = superclass_mask(labels, GROUPS, 1.0)
    assert mask.sum() == 3
    loss = cross_entropy(logits, labels, mask, 0.1) + distillation_loss(logits, torch.randn(3, 8), mask)
    loss.backward()
    assert loss.item() == pytest.approx(0.0)
    assert not logits.grad.any()


def test_distillation_masks_the_teacher_before_its_softmax() -> None:
    logits, teacher = torch.randn(16, 8, requires_grad=True), torch.randn(16, 8, requires_grad=True)
    mask = superclass_mask(torch.randint(8, (16,)), GROUPS, 0.5)
    loss = distillation_loss(logits, teacher, mask)
    expected = []
    for row, taught, kept in zip(logits, teacher, mask, strict=True):
        p = F.softmax(taught[kept], 0).detach()
        expected.append(F.kl_div(F.log_softmax(row[kept], 0), p, reduction="sum") - (p * p.log()).sum())
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    loss.backward()
    assert teacher.grad is None
    assert not logits.grad[~mask].any()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.6])
def test_every_combination_of_superclasses_has_its_probability(rate: float) -> None:
    """The three superclasses other than the target are dropped with probability p, each by a draw of its own."""
    torch.manual_seed(1)
    n = 100_000
    mask = superclass_mask(torch.full((n,), 5), GROUPS, rate)  # class 5 is all of superclass 2
    kept = mask[:, [0, 2, 6]].long()
    counts = torch.bincount(kept @ torch.tensor([4, 2, 1]), minlength=8)
    expected = [
        n * torch.tensor([rate, 1 - rate])[[i >> 2, i >> 1 & 1, i & 1]].double().prod().item() for i in range(8)
    ]
    assert chisquare(counts.numpy(), expected, sum_check=False).pvalue > 1e-4


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("divergence", ["kl", "alpha"])
def test_large_logits_give_finite_losses_and_gradients(rate: float, dtype: torch.dtype, divergence: Any) -> None:
    torch.manual_seed(2)
    logits = (torch.randn(64, 8) * 1e4).to(dtype).requires_grad_()
    labels = torch.randint(8, (64,))
    mask = superclass_mask(labels, GROUPS, rate)
    taught = torch.randn(64, 8) * 1e4
    loss = cross_entropy(logits, labels, mask, 0.1) + distillation_loss(logits, taught, mask, divergence=divergence)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert (logits.grad[~mask] == 0).all()


def test_temperature() -> None:
    """Both softmaxes at 1 / T of the logits, the loss times T squared; its gradient against the definition's."""
    torch.manual_seed(0)
    logits, teacher = torch.randn(2, 5, 6, dtype=torch.float64).float()
    logits.requires_grad_(True)
    mask = torch.rand(5, 6) < 0.7
    mask[:, 0] = True
    for kept in (None, mask):
        soft = (teacher / 3).masked_fill(torch.zeros_like(mask) if kept is None else ~kept, -torch.inf).softmax(1)
        own = (logits / 3).masked_fill(torch.zeros_like(mask) if kept is None else ~kept, -torch.inf).log_softmax(1)
        expected = -9 * (soft * own.nan_to_num(neginf=0.0)).sum(1).mean()
        loss = distillation_loss(logits, teacher, kept, 3.0)
        torch.testing.assert_close(loss, expected)
        for got, right in zip(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits), strict=True):
            torch.testing.assert_close(got, right)


def test_the_greater_alpha_divergence() -> None:
    """Value and gradient of each sample's greater divergence, by their definitions where no ratio is clipped."""
    torch.manual_seed(0)
    logits, teacher = (torch.randn(2, 400, 6, dtype=torch.float64) * 0.3).unbind()
    mask = torch.rand(400, 6) < 0.7
    mask[:, :2] = True
    for kept in (torch.ones_like(mask), mask):
        own = logits.clone().requires_grad_(True)
        q, p = (each.masked_fill(~kept, -torch.inf).softmax(1) for each in (own, teacher))
        assert ((p / q)[kept] < 5).all()
        assert ((q / p)[kept] < 5).all()
        p, q = p.masked_fill(~kept, 1.0), q.masked_fill(~kept, 1.0)
        kl = (kept * p * (p / q).log()).sum(1)
        other = ((kept * q * (q / p)).sum(1) - 1) / 2  # 1 / (a (a - 1)) (sum of q (p / q)^a - 1), a = -1
        assert 50 < (kl > other).sum() < 350
        expected = torch.maximum(kl, other).mean()
        mine = logits.clone().requires_grad_(True)
        loss = distillation_loss(mine, teacher, kept, divergence="alpha")
        torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-6)
        (right,), (got,) = torch.autograd.grad(expected, own), torch.autograd.grad(loss, mine)
        torch.testing.assert_close(got, right, rtol=1e-4, atol=1e-7)


def test_no_ratio_of_an_alpha_divergence_counts_more_than_five() -> None:
    """Where the student has ten times the teacher's probability, and nearly none of another class: five times, either way."""
    p, q = torch.tensor([[0.05, 0.95]]), torch.tensor([[0.5, 0.5]])
    logits = q.log().requires_grad_(True)
    loss = distillation_loss(logits, p.log(), divergence="alpha")
    assert loss.item() == pytest.approx((0.5 * (5 - 1) + 0.5 * (0.5 / 0.95 - 1)) / 2, rel=1e-5)
    (pull,) = torch.autograd.grad(loss, logits)
    weights = torch.tensor([0.5 * 5, 0.5 * 0.5 / 0.95])  # of d log q, whose logits' gradient is one-hot minus q
    torch.testing.assert_close(pull[0], weights - weights.sum() * q[0])
