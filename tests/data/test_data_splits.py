"""Laws of the seeded, stratified choices of rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snugnet.data.splits import split_off, stratified_rows

labels_and_count = st.lists(st.integers(0, 6), min_size=1, max_size=120).flatmap(
    lambda labels: st.tuples(st.just(np.array(labels)), st.integers(0, len(labels)))
)


@given(labels_and_count, st.integers(0, 2**32))
def test_split_is_disjoint_covers_and_repeats(case: tuple[np.ndarray, int], seed: int) -> None:
    labels, count = case
    stays, taken = split_off(labels, count, seed)
    assert len(taken) == count
    assert np.array_equal(np.sort(np.concatenate([stays, taken])), np.arange(len(labels)))
    again = split_off(labels.copy(), count, seed)
    assert np.array_equal(again[0], stays)
    assert np.array_equal(again[1], taken)


@given(labels_and_count, st.integers(0, 99))
def test_every_class_has_its_share(case: tuple[np.ndarray, int], seed: int) -> None:
    labels, count = case
    chosen = stratified_rows(labels, count, seed)
    assert len(set(chosen.tolist())) == count
    classes, sizes = np.unique(labels, return_counts=True)
    takes = np.array([(labels[chosen] == name).sum() for name in classes])
    quotas = sizes * count / len(labels)
    if count >= len(classes):
        assert (takes >= 1).all()
    if (np.floor(quotas) >= 1).all():
        assert (abs(takes - quotas) < 1).all()


@given(labels_and_count, st.integers(0, 99))
def test_no_class_loses_its_last_row_without_need(case: tuple[np.ndarray, int], seed: int) -> None:
    labels, count = case
    stays, _ = split_off(labels, count, seed)
    if len(stays) >= len(np.unique(labels)):
        assert set(labels[stays].tolist()) == set(labels.tolist())


@settings(max_examples=20)
@given(st.integers(1, 20), st.integers(1, 8), st.integers(0, 99))
def test_renaming_labels_in_order_changes_nothing(size: int, classes: int, seed: int) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(classes), size))
    count = len(labels) // 3
    assert np.array_equal(stratified_rows(labels, count, seed), stratified_rows(labels * 5 + 2, count, seed))


def test_other_seeds_choose_other_rows() -> None:
    labels = np.repeat(np.arange(5), 40)
    choices = {tuple(stratified_rows(labels, 50, seed)) for seed in range(10)}
    assert len(choices) == 10


def test_too_many_rows() -> None:
    with pytest.raises(ValueError, match="0 to 2 rows"):
        stratified_rows(np.zeros(2, dtype=np.int64), 3, 0)
