"""Batches are a pure function of (seed, step), and epochs are permutations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snugnet.data import Batches, ImageSet, evaluation_batches
from snugnet.errors import ConfigError, DataError


def numbered(n: int) -> ImageSet:
    """Image i is filled with i, and so is its label."""
    labels = torch.arange(n)
    return ImageSet(labels.to(torch.uint8).view(n, 1, 1, 1).expand(n, 3, 2, 2).contiguous(), labels)


@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**31), st.integers(0, 3))
def test_an_epoch_is_a_permutation_of_whole_batches(n: int, batch_size: int, seed: int, epoch: int) -> None:
    batches = Batches(numbered(n), batch_size, seed)
    assert batches.steps_per_epoch == max(1, n // batch_size)
    first = epoch * batches.steps_per_epoch
    seen = []
    for step in range(first, first + batches.steps_per_epoch):
        images, labels = batches.batch(step)
        assert len(labels) == min(n, batch_size)
        assert images.dtype == torch.uint8
        assert torch.equal(images[:, 0, 0, 0].long(), labels)
        seen += labels.tolist()
    assert len(set(seen)) == len(seen) == batches.steps_per_epoch * min(n, batch_size)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(0, 99))
def test_a_batch_depends_on_seed_and_step_alone(steps: list[int], seed: int) -> None:
    used = Batches(numbered(23), 5, seed)
    for step in steps:
        assert torch.equal(used.batch(step)[1], Batches(numbered(23), 5, seed).batch(step)[1])


def test_the_global_generator_is_neither_used_nor_moved() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = Batches(numbered(20), 10, 3).batch(0)[1]
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert torch.equal(Batches(numbered(20), 10, 3).batch(0)[1], one)


def test_epochs_and_seeds_differ() -> None:
    orders = {tuple(Batches(numbered(50), 50, seed).batch(step)[1].tolist()) for seed in range(3) for step in range(3)}
    assert len(orders) == 9


@given(st.integers(0, 30), st.integers(1, 40))
def test_evaluation_goes_through_all_in_order(n: int, batch_size: int) -> None:
    parts = [labels for _, labels in evaluation_batches(numbered(n), batch_size)] if n else []
    assert (torch.cat(parts).tolist() if parts else []) == list(range(n))
    assert all(len(part) == batch_size for part in parts[:-1])


def test_what_is_not_allowed() -> None:
    with pytest.raises(ConfigError, match="batch_size is 0"):
        Batches(numbered(3), 0, 0)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        next(evaluation_batches(numbered(3), 0))
    with pytest.raises(ConfigError, match="step is -1"):
        Batches(numbered(3), 1, 0).batch(-1)
    with pytest.raises(DataError, match="no images"):
        Batches(numbered(0), 1, 0)


def test_no_evaluation_batches_of_nothing() -> None:
    assert sum(len(labels) for _, labels in evaluation_batches(numbered(0), 4)) == 0


def test_images_that_do_not_fit_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from snugnet.data.image_set import fits

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100, 1000))
    assert fits(numbered(4).images, torch.device("cuda"))
    assert not fits(numbered(5).images, torch.device("cuda"))
