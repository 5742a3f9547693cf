"""``snugnet search``: every method ends with winners within budgets, and bad input with one line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

METHODS = {
    "random": ("--evaluations", 6),
    "evolution": ("--population", 4, "--rounds", 3),
    "nsga2": ("--population", 6, "--rounds", 2),
    "predictor": ("--evaluations", 24),
    "generator": ("--evaluations", 6),
}


@pytest.fixture
def middle(family: Path) -> str:
    """MAdds halfway between the smallest and the largest network of the group round."""
    from snugnet.family.disk import load_family

    return str(sum(load_family(family).cost_range("madds", "round")) / 2)


@pytest.mark.parametrize("method", METHODS)
def test_methods_under_two_budgets(snugnet: Any, family: Path, middle: str, method: str) -> None:
    done = snugnet(
        "search", family, "--method", method, *METHODS[method], "--group", "round", "--madds", middle, "--params", "100k",
        "--out", "run", "--json",
    )  # fmt: skip
    result = done.json
    assert (result["group"], result["settings"]["method"]) == ("round", method)
    for winner in result["winners"]:
        assert winner["costs"]["madds"] <= float(middle)
        assert winner["costs"]["params"] <= 100_000
        assert winner["groups"] == {"round": winner["accuracy"]}
    for word in ("smallest", "centroid", "largest", "budget"):
        assert word in done.err
    stored = json.loads(Path("run/search.json").read_text())
    assert stored["winners"] == result["winners"]
    rows = list(csv.DictReader(io.StringIO(Path("run/evaluated.csv").read_text())))
    assert len(rows) == result["evaluated"] > 1
    assert len({row["arch"] for row in rows}) == len(rows)
    assert max(float(row["accuracy"]) for row in rows) == max(w["accuracy"] for w in result["winners"])
    first = json.loads(rows[0]["arch"])
    assert len(first["depth"]) == 5


def test_costs_are_of_the_network_that_is_handed_out(snugnet: Any, family: Path) -> None:
    result = snugnet(
        "search", family, "--method", "random", "--evaluations", 2, "--group", "round", "--onnx", "net.onnx", "--json"
    ).json
    (winner,) = result["winners"]
    Path("arch.json").write_text(json.dumps(winner["architecture"]))
    options = json.loads((family / "family.json").read_text())["space"]["options"]
    given = [f"{key}={json.dumps(value)}" for key, value in options.items() if key != "num_classes"]
    arguments = [part for text in given for part in ("-o", text)]
    counted = snugnet(
        "cost", "ofa-mobilenet-v3", "--arch", "arch.json", *arguments, "--num-classes", "4", "--json"
    ).json
    assert {name: counted[name] for name in ("madds", "params")} == winner["costs"]
    assert Path("net.onnx").stat().st_size > 0


def test_all_superclasses_together(snugnet: Any, family: Path) -> None:
    arguments = ("search", family, "--method", "random", "--evaluations", 3)
    winner = snugnet(*arguments, "--json").json["winners"][0]
    assert winner["accuracy"] == pytest.approx(sum(winner["groups"].values()) / 3)
    assert len(winner["groups"]) == 3
    shown = snugnet(*arguments)
    assert shown.code == 0
    for text in ("all superclasses", "3 architectures evaluated", "round", "kernel_size"):
        assert text in shown.out


def test_several_limits_from_one_archive(snugnet: Any, family: Path) -> None:
    arguments = (
        "search",
        family,
        "--budgets",
        "madds=50%,20%,80%",
        "--group",
        "round",
        "--population",
        4,
        "--rounds",
        2,
    )
    first = snugnet(*arguments, "--out", "run", "--json").json
    limits = [each["limit"] for each in first["limits"]]
    assert limits == sorted(limits)
    assert all(each["costs"]["madds"] <= each["limit"] for each in first["limits"])
    assert [Path(path).name for path in first["files"]] == ["search.json", "limits.csv", "evaluated.csv"]
    evaluated = list(csv.DictReader(io.StringIO(Path("run/evaluated.csv").read_text())))
    assert len({row["arch"] for row in evaluated}) == len(evaluated) == first["evaluated"]
    shown = snugnet(*arguments, "--out", "run")
    assert shown.code == 0
    assert "madds limit" in shown.out
    assert "run/limits.csv" in shown.err


def test_architectures_of_others_are_evaluated_first(snugnet: Any, family: Path) -> None:
    """In any form that ``cost`` reads; under several limits each where it fits."""
    largest, smallest = ({"ks": ks, "e": e, "d": d} for ks, e, d in _ends(family))
    arguments = ("search", family, "--group", "round", "--method", "random", "--evaluations", 2, "--start", "arch.json")
    Path("arch.json").write_text(json.dumps({"large": largest, "small": smallest}))
    assert snugnet(*arguments, "--out", "run", "--json").json["evaluated"] == 4
    rows = list(csv.DictReader(io.StringIO(Path("run/evaluated.csv").read_text())))
    assert [json.loads(row["arch"])["depth"] for row in rows[:2]] == [[largest["d"]] * 5, [smallest["d"]] * 5]
    both = snugnet(*arguments, "--budgets", "madds=20%,100%", "--json").json
    assert both["limits"][-1]["accuracy"] >= max(float(row["accuracy"]) for row in rows[:2])
    assert "start, large: the architecture has madds" in snugnet(*arguments, "--madds", "20%").error
    Path("arch.json").write_text(json.dumps({**smallest, "ks": 4}))
    assert "start: stage1.block1.kernel_size = 4 is not in this space" in snugnet(*arguments).error
    Path("arch.json").write_text("[")
    assert "arch.json is not JSON" in snugnet(*arguments).error


def _ends(family: Path) -> list[tuple[int, float, int]]:
    """Kernel size, expand ratio and depth of the largest and of the smallest network."""
    options = json.loads((family / "family.json").read_text())["space"]["options"]
    return [tuple(pick(options[key]) for key in ("kernel_sizes", "expand_ratios", "depths")) for pick in (max, min)]


def test_the_same_search_goes_on_and_another_is_refused(snugnet: Any, family: Path) -> None:
    arguments = ("search", family, "--method", "random", "--evaluations", 4, "--classes", "0,1,2", "--out", "run")
    first = snugnet(*arguments, "--json").json
    again = snugnet(*arguments, "--json").json
    assert again["winners"] == first["winners"]
    assert "seed" in snugnet(*arguments, "--seed", "1").error
    assert snugnet(*arguments, "--seed", "1", "--fresh", "--json").json["evaluated"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--method", "luck"), ("no method 'luck'", "nsga2")),
        (("--preset", "best"), ("no preset 'best'", "attentive-nas")),
        (("--set", "preset=[1]"), ("no preset [1]", "attentive-nas")),
        (("--method", "random", "--set", "at_least=0.5"), ("at_least is a share of a budget", "there is none")),
        (("--budget", "family=3"), ("no cost 'family'", "madds")),
        (("--method", "random", "--preset", "ofa"), ("random takes no preset", "evaluations")),
        (("--group", "square"), ("no group 'square'", "round")),
        (("--group", "round", "--classes", "0,1"), ("--group", "--classes")),
        (("--latency-ms", "3"), ("no cost 'latency_ms'", "madds")),
        (("--madds", "40"), ("feasible:", "MAdds")),
        (("--madds", "1ms"), ("--madds", "a budget is")),
        (("--madds", "1M", "--params", "7"), ("feasible:", "params")),
        (("--method", "evolution", "--evaluations", "9"), ("takes no evaluations", "rounds")),
        (("--method", "nsga2", "--population", "1"), ("population", "at least 2")),
        (("--onnx", "net.onnx"), ("--onnx", "--group")),
        (("--out", "/dev/null/run"), ("cannot write",)),
        (("--method", "random", "--set", "sample=3"), ("random takes no sample", "samples")),
        (("--method", "random", "--set", "samples=many"), ("samples is 'many'", "integer")),
        (("--method", "random", "--set", "samples=3", "--set", "samples=4"), ("--set gives samples twice",)),
        (
            ("--method", "nsga2", "--set", "population=3", "--population", "4"),
            ("--set", "--population", "leave one out"),
        ),
        (("--method", "nsga2", "--set", "costs=[watts]"), ("no cost 'watts'", "madds")),
        (("--madds", "1M", "--budget", "madds=2M"), ("two budgets of madds",)),
        (("--budget", "madds"), ("--budget", "NAME=VALUE")),
        (("--budget", "watts=3"), ("no cost 'watts'",)),
        (("--budget", "madds=140%"), ("--budget", "from 0% to 100%")),
        (("--budgets", "madds"), ("--budgets", "NAME=VALUE")),
        (("--budgets", "madds=1M,,2M"), ("--budgets", "NAME=VALUE")),
        (("--budgets", "madds=1M,2ms"), ("--budgets", "a budget is")),
        (("--budgets", "madds=40,1M"), ("feasible:", "MAdds")),
        (("--budgets", "madds=1M,2M", "--madds", "1M"), ("madds", "leave one of them out")),
        (("--budgets", "madds=1M", "--group", "round", "--onnx", "net.onnx"), ("--onnx", "--budgets")),
        (("--budgets", "madds=1M,2M", "--method", "nsga2"), ("nsga2 gives a front",)),
    ],
)
def test_wrong_input_is_one_line(
    snugnet: Any, family: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    error = snugnet("search", family, *arguments).error
    for word in words:
        assert word in error
    assert not Path("run").exists()


def test_a_front_of_one_point_is_an_error(snugnet: Any, family: Path) -> None:
    from snugnet.family.disk import load_family

    low, _ = load_family(family).cost_range("madds", "round")
    done = snugnet("search", family, "--method", "nsga2", "--group", "round", "--madds", str(low), "--out", "run")
    assert done.code == 2
    assert "1 point" in done.err.splitlines()[-1]
    assert len(Path("run/evaluated.csv").read_text().splitlines()) == 2  # what was evaluated is there to look at


def test_settings_are_fields_and_budgets_may_be_shares(snugnet: Any, family: Path) -> None:
    from snugnet.family.disk import load_family

    low, high = load_family(family).cost_range("params", "round")
    result = snugnet(
        "search", family, "--method", "nsga2", "--set", "population=16", "--set", "generations=2", "--set", "costs=[madds, params]",
        "--group", "round", "--budget", "params=60%", "--budget", "madds=100%", "--json",
    ).json  # fmt: skip
    expected = {
        "method": "nsga2",
        "costs": ["madds", "params"],
        "population": 16,
        "generations": 2,
        "probability": 0.05,
    }
    assert result["settings"] == expected
    assert result["budgets"]["params"] == pytest.approx(low + 0.6 * (high - low))
    assert all(winner["costs"]["params"] <= result["budgets"]["params"] for winner in result["winners"])


def test_where_little_fits_it_is_said(snugnet: Any, family: Path) -> None:
    arguments = ("search", family, "--method", "random", "--evaluations", 5, "--group", "round")
    result = snugnet(*arguments, "--budget", "madds=0%", "--out", "run", "--json").json
    assert result["evaluated"] < 5
    assert json.loads(Path("run/search.json").read_text())["shortfall"] == result["shortfall"]
    assert result["shortfall"].endswith("of up to 5: no more new ones were found")
    assert result["shortfall"] in snugnet(*arguments, "--budget", "madds=0%").err.splitlines()
    assert snugnet(*arguments, "--json").json["shortfall"] is None


def test_the_methods_and_their_settings_are_shown(snugnet: Any) -> None:
    shown = snugnet("search", "--methods")
    assert shown.code == 0
    words = " ".join(shown.out.split())
    for text in (*METHODS, "samples=1000", "optimiser=climb", "probability=0.05", "--rounds"):
        assert text in words


def test_two_searches_do_not_share_a_folder(snugnet: Any, family: Path, busy: int) -> None:
    wanted = ("search", family, "--method", "random", "--evaluations", "4", "--group", "round")
    for several in ((), ("--budgets", "madds=40%,60%")):
        done = snugnet(*wanted, *several, "--out", "runs/a")
        assert done.code == 2
        assert f"runs/a is in use by process {busy} on " in done.err.splitlines()[-1]
    assert snugnet(*wanted, "--out", "runs/b").code == 0
