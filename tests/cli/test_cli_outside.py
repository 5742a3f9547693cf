"""Each of space, method, predictor and cost from outside takes one file; installed, it has its place in the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from outside import install

SPACE = '''
from typing import Any, Self
from snugnet.spaces import Block, Choice, Layer, Part, SearchSpace

class Brick(SearchSpace):
    """A convolution of some width, and a classifier."""
    name = "brick"

    @classmethod
    def create(cls, num_classes: int = 10, resolution: int = 8) -> Self:
        def body(width, kernel):
            return (Block("body", (Layer("conv", "conv", 3, 4, resolution, kernel, norm=True),
                                   Layer("out", "conv", 4, width, resolution, 1, norm=True))),)

        def head(width):
            return (Block("head", (Layer("pool", "pool", width, width, resolution),
                                   Layer("classifier", "linear", width, num_classes, 1, bias=True))),)

        choices = (Choice("width", (4, 8, 16), "width", (0, 0)), Choice("kernel_size", (1, 3), "kernel_size", (0,)))
        parts = (Part("body", (0, 1), body), Part("head", (0,), head))
        return cls({"num_classes": num_classes, "resolution": resolution}, choices, parts, 3, resolution)
'''
METHOD = '''
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from snugnet.search.method import Method

@dataclass(frozen=True)
class Ends(Method):
    """The cheapest architectures first, or the dearest."""
    name: ClassVar[str] = "ends"
    count: int = 3
    dearest: bool = False

    @property
    def rounds(self): return 1

    @property
    def evaluations(self): return self.count

    def propose(self, now):
        rows = np.unique(now.problem.sample(50, now.rng), axis=0)
        costs = next(iter(now.problem.tables.values()))(rows)
        return rows[np.argsort(-costs if self.dearest else costs)][:self.count]
'''
UNTYPED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from snugnet.search.method import RandomSearch

if TYPE_CHECKING:
    from collections.abc import Sequence

@dataclass(frozen=True)
class Untyped(RandomSearch):
    name: ClassVar[str] = "untyped"
    weights: Sequence[int] = ()
"""
PREDICTOR = '''
import numpy as np
from snugnet.predictors import Predictor

class Mean(Predictor):
    """The mean of what was measured, whatever the architecture."""
    kind = "mean"

    @classmethod
    def fit(cls, space, rows, values, *, targets=("accuracy",), seed=0, progress=False, **settings):
        made = cls(space, targets)
        made.mean = np.atleast_1d(np.asarray(values, dtype=float).mean(0))
        return made

    def outputs(self, rows): return np.tile(self.mean, (len(rows), 1))

    def arrays(self): return {"mean": self.mean}

    @classmethod
    def restore(cls, space, targets, arrays):
        made = cls(space, targets)
        made.mean = arrays["mean"]
        return made
'''
COST = """
from snugnet.costs import Cost

WATTS = Cost("watts", "W", "half a watt a layer", lambda block, resolution: 0.5 * len(block.layers))
LUMENS = Cost("lumens", "lm", "of blocks that it has not heard of", lambda block, resolution: {}[block.name])
"""
BRINGS = {
    "snugnet.spaces": {"brick": "outside_space:Brick", "ruin": "outside_ruin:Ruin"},
    "snugnet.search_methods": {"ends": "outside_method:Ends", "untyped": "outside_untyped:Untyped"},
    "snugnet.predictors": {"mean": "outside_predictor:Mean"},
    "snugnet.costs": {"watts": "outside_cost:WATTS", "lumens": "outside_cost:LUMENS"},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    modules = {
        "outside_space": SPACE, "outside_method": METHOD, "outside_predictor": PREDICTOR, "outside_cost": COST,
        "outside_ruin": "import no_such_module", "outside_untyped": UNTYPED,
    }  # fmt: skip
    return install(tmp_path_factory.mktemp("site"), "outside", modules, BRINGS)


@pytest.fixture
def process(site: Path, tmp_path: Path) -> Any:
    """Runs ``snugnet`` in a process of its own, with the package installed."""

    def run(*arguments: str | Path, code: int = 0) -> Any:
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")]), str(SOURCE)])
        done = subprocess.run(
            [sys.executable, "-m", "snugnet", *map(str, arguments)], capture_output=True, text=True, check=False,
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        if code:
            return done.stderr
        return json.loads(done.stdout) if "--json" in arguments else done.stdout

    return run


SOURCE = Path(__file__).parents[2] / "src"


COUNTED = ("activations", "madds", "params", "peak_memory", "peak_memory_int8", "weight_memory", "weight_memory_int8")


def test_a_space_and_a_cost(process: Any, tmp_path: Path) -> None:
    listed = {each["name"]: each for each in process("space", "list", "--json")}
    assert listed["brick"]["description"] == "A convolution of some width, and a classifier."
    assert "space 'ruin' cannot be loaded from outside_ruin:Ruin (ModuleNotFoundError" in listed["ruin"]["error"]
    assert "mobilenet-v2" in listed
    shown = process("space", "show", "brick", "-o", "num_classes=4", "--json")
    assert (shown["size"], shown["options"]["num_classes"]) == (6, 4)
    assert {name: each["watts"] for name, each in shown["networks"].items()} == dict.fromkeys(shown["networks"], 2)
    (tmp_path / "arch.json").write_text(json.dumps(shown["networks"]["largest"]["architecture"]))
    costs = process("cost", "brick", "--arch", "arch.json", "--num-classes", "4", "--json")
    assert costs == {key: shown["networks"]["largest"][key] for key in (*COUNTED, "watts")}
    assert "cannot be loaded" in process("space", "show", "ruin", code=2)
    says = "error: unknown option 'width' of space brick; allowed: num_classes, resolution\n"
    assert process("space", "show", "brick", "-o", "width=3", code=2) == says


def test_a_predictor_of_the_space_optimised_under_the_cost(process: Any, tmp_path: Path) -> None:
    archs = [{"width": w, "kernel_size": k} for w in (4, 8, 16) for k in (1, 3)]
    lines = [
        f'"{json.dumps(each)}"'.replace('": ', '"": ').replace('{"', '{""').replace(', "', ', ""') for each in archs
    ]
    (tmp_path / "table.csv").write_text("arch,top1\n" + "\n".join(f"{x},{i}" for i, x in enumerate(lines)) + "\n")
    made = process(
        "predictor", "fit", "brick", "table.csv", "--target", "top1", "--kind", "mean", "--out", "p", "--json"
    )
    assert (made["kind"], made["n"]) == ("mean", 6)
    assert process("predictor", "score", "p", "table.csv", "--json")["mae"] == pytest.approx(1.5)
    found = process("optimise", "p", "--budget", "watts=2", "--budget", "madds=0%", "--json")
    assert found["predicted"] == 2.5
    assert found["architecture"] == {"width": 4, "kernel_size": 1}
    assert found["costs"]["watts"] == 2


def test_a_method(process: Any, family: Path) -> None:
    arguments = ("search", family, "--method", "ends", "--group", "round", "--json")
    cheap = process(*arguments)
    assert cheap["settings"] == {"method": "ends", "count": 3, "dearest": False}
    assert cheap["evaluated"] == 3
    dear = process(*arguments, "--set", "dearest=true", "--set", "count=2")
    assert dear["evaluated"] == 2
    assert dear["winners"][0]["costs"]["madds"] > cheap["winners"][0]["costs"]["madds"]
    assert "ends takes no evaluations; it takes count, dearest" in process(*arguments, "--evaluations", 5, code=2)


def test_a_budget_of_the_cost(process: Any, family: Path) -> None:
    arguments = ("--group", "round", "--budget", "watts=50%", "--json")
    made = process("specialize", family, *arguments)
    assert made["costs"]["watts"] <= made["budgets"]["watts"]
    found = process("search", family, "--method", "random", "--evaluations", "3", *arguments)
    assert all(winner["costs"]["watts"] <= found["budgets"]["watts"] for winner in found["winners"])
    report = process("evaluate", family, "--cost", "watts", "--budgets", "1", "--group", "round", "--json")
    assert report["budget"] == "watts"
    assert all(row["costs"]["watts"] <= row["budget"] for row in report["rows"])


def test_what_fails_later_stops_only_who_asks_for_it(process: Any, family: Path) -> None:
    says = "cost 'lumens' cannot be computed for the block stem (KeyError: 'stem')"
    assert says in process("specialize", family, "--group", "round", "--budget", "lumens=50%", code=2)
    says = "search method 'untyped' cannot be loaded from outside_untyped:Untyped (NameError: name 'Sequence' is not"
    assert says in process("search", family, "--method", "untyped", code=2)
    assert "ends" in process("search", "--methods")
