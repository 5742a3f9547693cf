"""Costs by name: those of the package, one registered in tree, and one that an installed package brings."""

import sys
from pathlib import Path

import numpy as np
import pytest
from toys import ALL, SPACES

from snugnet.costs import COSTS, Cost, counted_table, register_cost
from snugnet.errors import SpaceError
from snugnet.spaces import get_space

OUTSIDE = """
from snugnet.costs import Cost

layers = Cost("layers", "layers", "how many layers there are", lambda block, resolution: len(block.all_layers))
broken = 3
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with one cost, as pip would leave it: one module and its entry points."""
    (tmp_path / "outside_costs.py").write_text(OUTSIDE)
    info = tmp_path / "outside_costs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-costs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[snugnet.costs]\nlayers = outside_costs:layers\nno-cost = outside_costs:broken\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(COSTS, "_own", dict(COSTS._own))
    monkeypatch.setattr(COSTS, "_brought", None)
    yield
    sys.modules.pop("outside_costs", None)


@pytest.mark.parametrize("name", ["madds", "params", "activations"])
def test_a_cost_of_one_network_is_its_table_s(name):
    for space in SPACES:
        table = counted_table(space, name)
        assert (table.name, table.unit) == (name, COSTS[name].unit)
        rows = ALL[space.name][::7]
        assert table(rows).tolist() == [COSTS[name].of(space.blueprint(row)) for row in rows]


def test_the_image_s_resolution_is_told():
    space = get_space("ofa-mobilenet-v3", width_mult=0.35, resolutions=[32, 48])
    cost = Cost("pixels", "pixels", "of the image, once a block", lambda block, resolution: resolution**2)
    rows = space.sample(20, np.random.default_rng(0))
    assert cost.table(space)(rows).tolist() == [cost.of(space.blueprint(row)) for row in rows]


def test_a_cost_registered_in_tree(monkeypatch):
    monkeypatch.setattr(COSTS, "_own", dict(COSTS._own))
    register_cost(Cost("blocks", "blocks", "how many blocks there are", lambda block, _: 1))
    space = SPACES[0]
    rows = ALL[space.name]
    assert "blocks" in COSTS.names()
    assert counted_table(space, "blocks")(rows).tolist() == [len(space.blueprint(row).blocks) for row in rows]


@pytest.mark.usefixtures("outside")
def test_a_cost_of_an_installed_package():
    assert {"layers", "madds"} <= set(COSTS.names())
    assert "outside_costs" not in sys.modules
    space = SPACES[1]
    rows = ALL[space.name]
    expected = [len(list(space.blueprint(row).layers())) for row in rows]
    assert counted_table(space, "layers")(rows).tolist() == expected
    with pytest.raises(SpaceError, match="is no cost, it is 3"):
        counted_table(space, "no-cost")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "3", None])
def test_a_cost_that_gives_no_number(value):
    space = SPACES[0]
    cost = Cost("broken", "u", "no number", lambda block, _: value)
    for ask in (lambda: cost.of(space.blueprint(space.smallest[0])), lambda: cost.table(space)):
        with pytest.raises(SpaceError, match="cost 'broken'"):
            ask()
