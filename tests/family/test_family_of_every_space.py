"""A family of each registered space, from training to a file and a report, as small as it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from snugnet.data import GroupedImages
from snugnet.deploy.sessions import onnx_session
from snugnet.errors import BudgetError
from snugnet.family import Family
from snugnet.family.disk import load_family
from snugnet.family.report import evaluate
from snugnet.pipeline import train
from snugnet.recipe import parse_recipe

SPACES: dict[str, dict[str, Any]] = {
    "attentive-nas": {
        "resolutions": [6, 8],
        "stem_stride": 1,
        "stage_strides": [1, 2, 1, 1, 2, 1, 1],
        "widths": [[4, 8], [4, 8], [8], [8], [8, 12], [12], [12], [12, 16], [24, 40]],
        "depths": [[1], [1, 2], [1], [1, 2], [1], [1], [1]],
        "expand_ratios": [[1], [2, 3], [2], [2, 3], [2], [2], [2]],
    },
    "mobilenet-v2": {
        "width_mult": 0.2,
        "stem_stride": 1,
        "stage_strides": [2, 1, 1, 1, 1, 1],
        "blocks": [2, 1, 2, 1, 1, 1],
        "kernel_sizes": [3, 5],
    },
    "spos-shufflenet-v2": {
        "stem_stride": 1,
        "stage_strides": [2, 1, 1, 1],
        "blocks": [1, 2, 1, 1],
        "channels": [24, 32, 48, 64],
        "stem": 8,
        "last": 48,
        "channel_scales": [0.6, 1.0],
    },
}


@pytest.fixture(scope="module", params=SPACES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, digits: GroupedImages) -> Family:
    folder = tmp_path_factory.mktemp(request.param)
    kinds, epochs, rate = {"kernel_size": 2, "depth": 2, "expand_ratio": 2}, 12, 0.05
    if request.param == "attentive-nas":
        kinds |= {"width": 2, "resolution": 2}
    if request.param == "spos-shufflenet-v2":
        kinds, epochs, rate = (
            {"block": 4, "channels": 2},
            24,
            0.3,
        )  # four alternatives have weights of their own to train
    content = {
        "name": "tiny", "output": str(folder), "device": "cpu",
        "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2, "train_rows": 700},
        "space": {"name": request.param, **SPACES[request.param]},
        "training": {
            "batch_size": 64,
            "stages": [
                {"name": "largest", "epochs": 9, "learning_rate": 0.1},
                {"name": "all", "epochs": epochs, "learning_rate": rate, "elastic": kinds},
            ],
        },
        "generator": {"steps": 12, "pairs": 4, "images": 8, "budgets": 3},
        "evaluation": {"budgets": 2, "calibration_images": 128},
    }  # fmt: skip
    train(parse_recipe(content), progress=False)
    return load_family(folder)


def test_costs_are_those_of_the_network_handed_out(made: Family) -> None:
    """Groups of different sizes in one call, and a head whose width is a choice."""
    groups: list[Any] = [*made.groups, ["3", "7"], list(made.classes)]
    scenarios = []
    for group in groups:
        ranges = {cost: made.cost_range(cost, group) for cost in ("madds", "params")}
        scenarios += [
            (group, {c: low + place * (high - low) for c, (low, high) in ranges.items()}) for place in (0.2, 0.7)
        ]
        scenarios += [(group, {"madds": ranges["madds"][0]}), (group, {})]
    nets = made.specialize_many(scenarios)
    for net, (group, budgets) in zip(nets, scenarios, strict=True):
        assert net.costs == {"madds": net.blueprint.madds, "params": net.blueprint.params}
        assert all(net.costs[cost] <= budget for cost, budget in budgets.items())
        assert (net.row == made.specialize(group, **budgets).row).all()
    low, high = made.cost_range("madds", "round")
    archs = made.space.sample(200, np.random.default_rng(0))
    costs = made.table("madds", len(made.groups["round"]))(archs)
    cut = [made.space.blueprint(row).with_classes(len(made.groups["round"])).madds for row in archs]
    assert costs.tolist() == cut
    assert low <= costs.min() <= costs.max() <= high
    with pytest.raises(BudgetError, match=f"feasible: {low:,.0f} to {high:,.0f}"):
        made.specialize("round", madds=low - 1)


def test_an_architecture_runs_at_its_own_resolution(made: Family, tmp_path: Path) -> None:
    for row in (made.space.smallest[0], made.space.largest[0]):
        net = made.network("round", row)
        size = net.blueprint.resolution
        assert net.metadata()["resolution"] == size == made.space.resolution_of(row)
        path = net.export(tmp_path / f"{size}.onnx")
        x = np.random.default_rng(0).standard_normal((3, 3, size, size)).astype(np.float32)
        (got,) = onnx_session(path.read_bytes()).run(None, {"image": x})
        expected = net.module(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


def test_its_networks_know_the_digits(made: Family, digits: GroupedImages) -> None:
    report = evaluate(made, digits.test, 2, progress=False)
    assert all(row.costs["madds"] <= row.budget for row in report.rows)
    assert all(row.onnx_difference < 1e-4 for row in report.rows)
    assert report.mean()[-1]["accuracy"] > 0.7
