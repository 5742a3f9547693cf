"""Costs on devices: the published values, the look-up as a cost, what was not measured, and what is known of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pyarrow import csv

from snugnet.costs import (
    DEVICES,
    Allowed,
    MeasuredCost,
    decode,
    disconnected,
    load_cost_table,
    make_sampler,
    measured_cost,
    save_cost_table,
)
from snugnet.costs.hardware import DATASETS, numbers_of
from snugnet.errors import BudgetError, SpaceError
from snugnet.spaces import get_space

SPACE = get_space("nas-bench-201")
CELLS = np.array(list(np.ndindex(5, 5, 5, 5, 5, 5)), dtype=np.int16)
ALL = [(dataset, cost, device) for dataset in DATASETS for device, costs in DEVICES.items() for cost in costs]
RASPI, TPU, PIXEL = (measured_cost(SPACE, "latency_ms", device) for device in ("raspi4", "edgetpu", "pixel3"))
CONNECTED = disconnected(SPACE)(CELLS) == 0


def of(dataset: str, cost: str, device: str) -> MeasuredCost:
    return measured_cost(SPACE.with_options(**DATASETS[dataset]), cost, device)


class Published:
    """The two tables, cells in the order of the space's rows."""

    def __init__(self, folder: Path) -> None:
        tables = [csv.read_csv(folder / f"{name}.csv.gz").sort_by("arch_idx") for name in ("hardware", "accuracy")]
        archs = tables[1]["arch_str"].to_pylist()
        order = np.argsort(numbers_of(SPACE, np.concatenate([SPACE.from_str(text) for text in archs])))
        self.costs, self.cells = (table.take(pa.array(order)) for table in tables)

    def cost(self, dataset: str, cost: str, device: str) -> NDArray[np.float64]:
        prefix = {"cifar10": "c10", "cifar100": "c100", "imagenet16-120": "in16"}[dataset]
        return self.costs[f"{prefix}_{device}_{cost.rpartition('_')[0]}"].to_numpy()

    def cell(self, column: str) -> NDArray:
        return self.cells[column].to_numpy()


@pytest.fixture(scope="module")
def published(shared_folder: Path) -> Published:
    folder = shared_folder / "data" / "nas-bench-201"
    if not (folder / "hardware.csv.gz").is_file():
        pytest.skip(f"no published table in {folder}")
    return Published(folder)


@pytest.mark.parametrize(("dataset", "cost", "device"), ALL)
def test_values_are_those_that_were_published(published: Published, dataset: str, cost: str, device: str) -> None:
    measured = of(dataset, cost, device)
    assert (measured.name, measured.unit, measured.dataset) == (
        f"{cost}@{device}",
        {"latency_ms": "ms", "energy_mj": "mJ"}[cost],
        dataset,
    )
    np.testing.assert_array_equal(measured.values, published.cost(dataset, cost, device))


def test_the_order_is_that_of_the_rows() -> None:
    np.testing.assert_array_equal(numbers_of(SPACE, CELLS), np.arange(15_625))
    best = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    assert RASPI.of(SPACE.from_str(best)) == [80.400089]


def test_what_is_missing_is_said() -> None:
    for dataset, cost, device in ALL:
        measured = of(dataset, cost, device)
        missing = np.isnan(measured.values)
        assert measured.missing == missing.sum() == (4699 if device == "edgetpu" else 0)
        assert np.array_equal(missing, np.isnan(TPU.values)) or device != "edgetpu"
        assert (measured.unmeasured is None) == (measured.note == "") == (device != "edgetpu")
    assert TPU.note.startswith("latency_ms@edgetpu: 4,699 of 15,625 cells have no measurement")
    assert np.isnan(TPU.values[~CONNECTED]).all()
    assert TPU.unmeasured is not None
    assert (TPU.unmeasured.name, TPU.unmeasured.unit) == ("unmeasured@edgetpu", "cells")
    np.testing.assert_array_equal(TPU.unmeasured(CELLS), np.isnan(TPU.values))


def test_cells_without_a_path(published: Published) -> None:
    np.testing.assert_array_equal(CONNECTED, published.cell("io_connected") == 1)


def test_cells_without_a_path_without_the_table() -> None:
    assert (~CONNECTED).sum() == 341
    with_resolution = SPACE.with_options(resolutions=[16, 32])
    rows = np.concatenate([np.ones((15_625, 1), dtype=np.int16), CELLS], axis=1)
    np.testing.assert_array_equal(disconnected(with_resolution)(rows) == 0, CONNECTED)
    with pytest.raises(SpaceError, match="cells of nas-bench-201, got darts"):
        disconnected(get_space("darts"))


# -- the look-up as a cost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measured", [RASPI, TPU, PIXEL], ids=lambda m: m.device)
def test_the_table_is_the_look_up(measured: MeasuredCost, tmp_path: Path) -> None:
    table, there = measured.table, ~np.isnan(measured.values)
    assert (table.name, table.unit, len(table.tables)) == (measured.name, "ms", 1)
    np.testing.assert_array_equal(table(CELLS)[there], measured.values[there])
    assert table.range == (np.nanmin(measured.values), np.nanmax(measured.values))
    likely = np.clip(measured.additive(CELLS[~there]), *table.range)
    np.testing.assert_array_equal(table(CELLS)[~there], likely)
    read = load_cost_table(save_cost_table(table, tmp_path / "t.npz"), SPACE)
    np.testing.assert_array_equal(read(CELLS), table(CELLS))


@given(st.integers(0, 15_624))
def test_the_expectation_at_one_cell_is_its_value(number: int) -> None:
    hot = [np.eye(5)[[option]] for option in CELLS[number]]
    expected = [RASPI.values[number]]
    assert RASPI.table.expectation(hot) == expected
    assert RASPI.table.expectation([torch.as_tensor(each) for each in hot]).tolist() == expected
    assert RASPI.table.expectation([torch.as_tensor(each, dtype=torch.float32) for each in hot]).tolist() == expected


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_the_expectation_and_its_gradient_are_those_of_all_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    draws = [rng.dirichlet(np.full(5, rng.choice([0.1, 1])), 3) for _ in range(6)]  # (3, 5) each
    each = np.stack([p[:, CELLS[:, e]] for e, p in enumerate(draws)])  # (6, 3, cells)
    expected = each.prod(0) @ PIXEL.values
    np.testing.assert_allclose(PIXEL.table.expectation(draws), expected, rtol=1e-12)
    tensors = [torch.tensor(p, requires_grad=True) for p in draws]
    total = PIXEL.table.expectation(tensors)
    np.testing.assert_allclose(total.detach().numpy(), expected, rtol=1e-12)
    for e, gradient in enumerate(torch.autograd.grad(total.sum(), tensors)):
        others = np.delete(each, e, 0).prod(0) * PIXEL.values
        brute = np.stack([others[:, CELLS[:, e] == option].sum(1) for option in range(5)], axis=1)
        np.testing.assert_allclose(gradient.numpy(), brute, rtol=1e-10, atol=1e-12)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    devices=st.sampled_from([(RASPI,), (TPU,), (RASPI, TPU), (PIXEL, TPU), (RASPI, PIXEL)]),
)
def test_decoding_is_the_best_of_all_cells(seed: int, devices: tuple[MeasuredCost, ...]) -> None:
    """Real limits on one device and on two, nothing that was not measured, nothing without a path."""
    rng = np.random.default_rng(seed)
    unmeasured = [m.unmeasured for m in devices if m.unmeasured is not None]
    tables = [*(m.table for m in devices), *unmeasured, disconnected(SPACE)]
    fine = np.all([~np.isnan(m.values) for m in devices], axis=0) & CONNECTED
    attained = rng.choice(np.flatnonzero(fine), 8)
    limits = np.stack([m.values[attained] * rng.choice([1.0, 1.2], 8) for m in devices], axis=1)
    budgets = np.concatenate([limits, np.zeros((8, len(tables) - len(devices)))], axis=1)
    scores = rng.normal(size=(8, 30))
    rows = decode(tables, scores, budgets)
    values = SPACE.one_hot(CELLS) @ scores.T  # (cells, 8)
    costs = np.stack([m.values for m in devices], axis=1)  # NaN is in no budget
    within = fine[:, None] & (costs[:, None] <= limits).all(axis=2)
    found = numbers_of(SPACE, rows)
    assert within[found, np.arange(8)].all()
    np.testing.assert_allclose(values[found, np.arange(8)], np.where(within, values, -np.inf).max(0), atol=1e-6)


def test_a_limit_below_all_that_was_measured_is_refused() -> None:
    unmeasured = TPU.unmeasured
    assert unmeasured is not None
    low = np.nanmin(TPU.values)
    tables, scores = [TPU.table, unmeasured], np.zeros((1, 30))
    assert TPU.of(decode(tables, scores, [[low, 0]])) == [low]
    with pytest.raises(BudgetError, match="no architecture of nas-bench-201 has latency_ms@edgetpu <="):
        decode(tables, scores, [[np.nextafter(low, 0), 0]])
    forbidden = np.where(np.arange(30) == 1, 0.0, -np.inf)  # the first edge skips, and nothing is allowed elsewhere
    forbidden[5::5] = 0  # but none: no path
    with pytest.raises(BudgetError, match="of what its scores allow, no architecture has unmeasured@edgetpu <= 0"):
        decode(tables, forbidden[None], [[1e9, 0]])


def test_draws_are_among_what_was_measured() -> None:
    unmeasured = TPU.unmeasured
    assert unmeasured is not None
    allowed = Allowed.at_most(SPACE, unmeasured.tables, 0, "unmeasured@edgetpu")
    limit = float(np.nanquantile(TPU.values, 0.01))
    sampler = make_sampler(TPU.table, limit, allowed=allowed)
    expected = np.flatnonzero(TPU.values <= limit)
    assert sampler.reachable == len(expected)
    drawn = numbers_of(SPACE, sampler.sample(20 * len(expected), np.random.default_rng(0)))
    np.testing.assert_array_equal(np.unique(drawn), expected)
    connected = Allowed.at_most(SPACE, disconnected(SPACE).tables, 0, "disconnected")
    assert RASPI.table.bounds(allowed=connected)[0] == RASPI.values[CONNECTED].min() > RASPI.table.range[0]


# -- what is known of the data -----------------------------------------------------------------------------------------


def test_how_far_a_sum_over_edges_is_from_what_was_measured() -> None:
    within = {d: measured_cost(SPACE, "latency_ms", d).fit.within_5_percent for d in ("raspi4", "pixel3", "edgegpu")}
    assert within == {
        "raspi4": pytest.approx(0.3097, abs=1e-4),
        "pixel3": pytest.approx(0.2988, abs=1e-4),
        "edgegpu": pytest.approx(0.5974, abs=1e-4),
    }
    assert RASPI.fit.rows == 15_284
    assert TPU.fit.rows == 10_926
    assert RASPI.fit.kendall_tau == pytest.approx(0.818, abs=1e-3)
    assert RASPI.fit.rmse == pytest.approx(4.243, abs=1e-3)


@pytest.mark.parametrize(("dataset", "cost", "device"), [each for each in ALL if each[2] in ("eyeriss", "fpga")])
def test_estimates_are_sums(dataset: str, cost: str, device: str) -> None:
    """A perfect fit there proves nothing: but for the FPGA at 16 pixels, which goes by how many there are of each operation."""
    measured = of(dataset, cost, device)
    if (dataset, device) != ("imagenet16-120", "fpga"):
        assert np.abs(measured.additive(CELLS) - measured.values).max() < 2e-6  # six decimals
        assert measured.fit.kendall_tau == pytest.approx(1)
        return
    assert measured.fit.within_5_percent == pytest.approx(0.483, abs=1e-3)
    counts = np.stack([(option == CELLS).sum(1) for option in range(2, 5)], axis=1)
    _, kind = np.unique(counts, axis=0, return_inverse=True)
    assert all(len(np.unique(measured.values[kind.ravel() == k])) == 1 for k in range(kind.max() + 1))


def greatest_ratio(values: NDArray[np.float64], classes: NDArray, among: NDArray[np.bool_]) -> float:
    """Of the largest to the smallest value in one class."""
    _, kind = np.unique(classes[among], return_inverse=True)
    low, high = np.full(kind.max() + 1, np.inf), np.zeros(kind.max() + 1)
    np.minimum.at(low, kind, values[among])
    np.maximum.at(high, kind, values[among])
    return float((high / low).max())


def test_isomorphic_cells_take_different_times(published: Published) -> None:
    classes = published.cell("iso_string").astype(str)
    alive = CONNECTED & (published.cell("no_dead_edges") == 1)
    assert greatest_ratio(RASPI.values, classes, CONNECTED) == pytest.approx(14.08, abs=0.01)
    assert greatest_ratio(RASPI.values, classes, alive) == pytest.approx(2.51, abs=0.01)


def test_cells_without_a_path_move_quantiles(published: Published) -> None:
    """The best cell of the fastest quarter on the Pixel 3."""
    accuracy = published.cell("cifar10_test_200")
    best = [
        accuracy[CONNECTED & (PIXEL.values <= np.quantile(PIXEL.values[among], 0.25))].max()
        for among in (np.ones(15_625, dtype=bool), CONNECTED)
    ]
    assert best == pytest.approx([92.14, 93.12], abs=0.01)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "arguments", "words"),
    [
        ({}, ("latency_ms", "pi"), "unknown device 'pi'; known: edgegpu, raspi4, edgetpu, pixel3, eyeriss, fpga"),
        ({}, ("energy_mj", "raspi4"), "raspi4 has no 'energy_mj'; measured: latency_ms"),
        ({}, ("latency", "fpga"), "fpga has no 'latency'; measured: latency_ms, energy_mj"),
        ({}, ("latency_ms", "fpga", "cifar"), "unknown data set 'cifar'; measured: cifar10, cifar100, imagenet16-120"),
        ({"cells": 3}, ("latency_ms", "fpga"), "got cells 3; networks were measured with in_channels 3, channels 16, cells 5 (cifar10:"),
        ({"channels": 8, "num_classes": 6}, ("latency_ms", "fpga", "cifar10"), "got channels 8; networks"),
        ({"in_channels": 1}, ("latency_ms", "fpga"), "got in_channels 1; networks"),
        ({"num_classes": 6}, ("latency_ms", "fpga"), "got num_classes 6; networks were measured with"),
        ({"num_classes": 6}, ("latency_ms", "fpga"), "for other classes name the data set"),
        ({"resolution": 16}, ("latency_ms", "fpga", "cifar10"), "got resolution 16; networks were measured with in_channels 3, channels 16, cells 5 (cifar10: resolution 32, num_classes 10)"),
        ({"resolutions": [16, 32]}, ("latency_ms", "fpga"), "got resolutions [16, 32]; networks"),
    ],
)  # fmt: skip
def test_what_was_not_measured_is_refused(options: dict[str, object], arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(SpaceError) as caught:
        measured_cost(SPACE.with_options(**options), *arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_spaces_and_other_classes() -> None:
    with pytest.raises(SpaceError, match="cells of nas-bench-201, got darts"):
        measured_cost(get_space("darts"), "latency_ms", "fpga")
    few = measured_cost(SPACE.with_options(num_classes=6), "latency_ms", "pixel3", dataset="cifar10")
    assert few.values is PIXEL.values
    assert few.table.space.options["num_classes"] == 6
