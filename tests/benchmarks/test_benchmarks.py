"""The benchmarks' own parts, at small sizes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from snugnet.costs import counted_table, disconnected, load_ofa_latency, measured_cost
from snugnet.predictors import MLPPredictor
from snugnet.spaces import get_space

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def benchmark_module(monkeypatch: pytest.MonkeyPatch, shared_folder: Path, benchmark_alone: Any) -> Any:
    """Import a benchmark by name."""
    monkeypatch.setenv("SNUGNET_SHARED", str(shared_folder))
    return benchmark_alone


@pytest.fixture
def benchmark_alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a benchmark that needs no shared data by name."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


def needs_ofa() -> None:
    if importlib.util.find_spec("ofa") is None:
        pytest.skip("the package of once-for-all is not installed: pip install --no-deps ofa tqdm")


def test_tries_of_the_three_ways(benchmark_module: Any) -> None:
    module = benchmark_module("sampling_tries")
    space = get_space("ofa-mobilenet-v3")
    table = counted_table(space, "madds")
    rows = module.tries_of_windows(space, table, 20_000, 500, np.random.default_rng(0))
    assert all(row["ours"] < 1.2 for row in rows)
    common = max(rows, key=lambda row: row["pool"])
    assert 1 <= common["ours"] < common["factorised"] < common["naive"] * 3
    means = module.means(rows, 20_000)
    assert (
        means["ours"]["windows alike, those that the pool hit"]
        < means["factorised"]["windows alike, those that the pool hit"]
    )
    small = module.uniformity(np.random.default_rng(0), each=20)
    assert all(window["all_found_and_no_other"] and window["p"] > 1e-4 for window in small["windows"])


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")
def test_images_on_a_disk_or_streamed_take_little_memory(benchmark_alone: Any, tmp_path: Path) -> None:
    module = benchmark_alone("data_storage")
    folder = module.make_images(tmp_path / "images", 300)
    size = 340 * 3 * 448**2
    settings = {
        "resolution": 448,
        "workers": 2,
        "batch": 8,
        "seconds": 0.1,
        "cache": str(tmp_path / "cache"),
        "limits": {"cache._MAPPED": size // 20, "cache._COMMIT": size // 20, "images._CHUNK": size // 20},
    }
    results = {storage: module.measured(storage, folder, settings) for storage in ("disk", "stream")}
    for storage in results:
        assert 0 < results[storage]["resident_gib_above_start"] < size / 2**30, results  # of which torch takes half
        assert len(results[storage]["images_a_second"]) == 3
    assert len(results["stream"]["peer_images_a_second"]) == 3


def test_the_forest_is_beaten(benchmark_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = benchmark_module("attentive_forest")
    monkeypatch.setattr(module, "SEEDS", range(1))
    space = get_space("attentive-nas")
    forest, table = module.load_forest(space), counted_table(space, "madds")
    models = json.loads((module.FOLDER / "models.json").read_text())["models"]
    for name, model in models.items():
        result = module.beat(model, forest, table)
        assert result["climb"]["predicted"][0] >= result["predicted"] - 1e-9, name
        assert result["climb"]["madds"] <= result["madds"]


def test_the_package_agrees_about_accuracy_and_latency(benchmark_module: Any) -> None:
    needs_ofa()
    peers = benchmark_module("peers")
    module = benchmark_module("ofa_note10")
    space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolutions=module.RESOLUTIONS)
    table = load_ofa_latency(peers.OFA_DATA / "note10_latency.csv.gz", space)
    predictor = MLPPredictor.from_ofa(peers.OFA_DATA / "accuracy_predictor_w1.2.safetensors", space)
    peer = peers.OFASearch()
    off = module.agreement(predictor, table, peer)
    assert off["accuracy_points"] < 1e-4
    assert off["latency_ms"] < 1e-9
    accuracy, latency, _ = peer.run(30, 0, rounds=1)
    assert 70 < accuracy < 84
    assert latency <= 30


def test_the_package_is_right_about_the_same_images(benchmark_module: Any) -> None:
    needs_ofa()
    module = benchmark_module("candidates")
    space = get_space("ofa-mobilenet-v3", resolution=32, num_classes=module.CLASSES)
    result = module.compare(space, 32, 200, 100, repeats=1, archs=1)
    assert result["greatest_difference_in_images_right"] <= 1
    assert set(result["median_seconds"]) == {"ours", "ofa, batches of 100", "ofa, batches of 250"}


def test_many_scenarios(benchmark_module: Any) -> None:
    module = benchmark_module("scenarios")
    family = module.make_family(4, width_mult=0.1, resolution=16)
    result = module.measure(family, few=5, lists=20, many=60)
    assert list(result) == ["5 scenarios", "20 different class lists", "60 scenarios"]
    assert result["60 scenarios"]["per_second"] > 60
    # sixty scenarios are less than what a process gives back meanwhile, so only the order of the two can be told
    assert result["60 scenarios"]["scenarios_mb"] <= result["60 scenarios"]["peak_mb"]
    scenarios = module.random_scenarios(family, 3, np.random.default_rng(0))
    with pytest.raises(SystemExit, match="superclass 2 under"):
        module.check(family.specialize_many(scenarios[::-1])[1:], scenarios[1:])


def test_batch_norm_of_a_retrained_network(benchmark_module: Any, tmp_path: Path) -> None:
    import snugnet
    from snugnet import pipeline
    from snugnet.data import load_data
    from snugnet.recipe import load_recipe
    from snugnet.supernets import Supernet

    module = benchmark_module("retraining")
    small = ["space.width_mult=0.1", "data.resolution=8", "data.train_rows=200"]
    recipe = load_recipe(FOLDER.parent / "recipes" / "quickstart.yaml", small)
    data = load_data(recipe.data, progress=False)
    space = pipeline.make_space(recipe, data)
    family = pipeline.make_family(recipe, data, Supernet(space), pipeline.make_generator(recipe, space, data), {})
    network = snugnet.retrain(family, group="round", epochs=1, out=tmp_path, data=data, progress=False)
    measured = module.measure(family, network, data.validation)
    assert list(measured) == [name for name in module.MEASURED if name != "seconds"]
    assert measured["averages"] == network.validation_accuracy
    assert measured["start"] == network.provenance["validation"]["start"]


def test_a_path_costs_what_its_network_does(benchmark_module: Any) -> None:
    """Peak memory of a training step, however many alternatives there are, and how many widths; time is not measured here."""
    module = benchmark_module("paths")
    small = {"blocks": [1, 1, 2, 1], "channels": [16, 24, 32, 48], "stem": 8, "last": 64}
    for options in ({"block_choices": [0]}, {}, {"channel_scales": [1.0]}):
        found = module.a_step(module.small_space(**small, **options), batch=16, repeats=1, archs=3)
        assert 0.9 < found["peak memory of a step over the static network's"] <= 1.1
    assert module.peak([4, 4, -4, 2, -6]) == 8
    counted = module.counting(get_space("spos-shufflenet-v2"), 20_000, ("madds", "params"))
    assert min(v for k, v in counted.items() if "counted" in k) > 1e6


def test_the_page_of_measured_costs(benchmark_module: Any) -> None:
    """It shows the committed numbers, and those are what the package says."""
    module = benchmark_module("hardware")
    report = json.loads((module.DOCS / "results" / "hardware-nas-bench-201.json").read_text())
    assert module.BEGIN + module.markdown(report["fits"]) + module.END in (module.DOCS / "hardware.md").read_text()
    row = report["fits"][2]
    fit = measured_cost(module.SPACE, row["cost"], row["device"]).fit
    assert fit.rmse == pytest.approx(row["rmse"])
    path = disconnected(module.SPACE)(module.CELLS) == 0
    alone = module.within_5_percent(measured_cost(module.SPACE, row["cost"], row["device"]).values, path)
    assert (
        alone
        == pytest.approx(row["within_5_percent"], abs=1e-4)
        == report["facts"][row["device"]]["fit within 5%"]["a path"]
    )


def test_the_jobs_of_single_paths(benchmark_module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = benchmark_module("single_path")
    found = module.jobs()
    names = [job.name for job in found]
    assert len(set(names)) == len(names)
    assert {need for job in found for need in job.needs} <= set(names)
    space = get_space("spos-shufflenet-v2", **{**module.recipe_of("spos-cifar-10-cpu").space.options,
                      "channel_scales": (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6), "resolution": 32, "num_classes": 10})  # fmt: skip
    table = counted_table(space, "madds")
    for unit in range(4):
        cost = table(space.from_dict(module.widest(unit)))[0]
        assert 0.95 * module.MADDS < cost <= module.MADDS  # networks that are compared cost the same
    report = benchmark_module("single_path_report")
    monkeypatch.setattr(report, "OUT", tmp_path / "out")
    monkeypatch.setattr(module, "RUNS", tmp_path)
    report.report()  # of what there is
    content = json.loads((tmp_path / "out.json").read_text())
    assert set(content["missing"]) | set(content["jobs"]) == set(names)
    assert (tmp_path / "out.png").is_file()


def test_jobs_go_on_where_they_were_stopped(benchmark_module: Any, tmp_path: Path) -> None:
    module = benchmark_module("jobs")
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"jobs": {"done": {"x": 1}, "weights": {"x": 2}}}))
    each = [
        module.Job("done", dict), module.Job("weights", dict, weights=True),
        module.Job("needs result", dict, needs=("done",)), module.Job("needs weights", dict, needs=("weights",)),
    ]  # fmt: skip
    jobs = module.Jobs(each, tmp_path / "runs", report)
    assert jobs.results() == {"done": {"x": 1}, "weights": {"x": 2}}
    missing = [job.name for job in jobs._missing({job.name: job for job in each})]
    assert missing == ["weights", "needs result", "needs weights"]  # a report holds no weights
    jobs = module.Jobs(each[:3], tmp_path / "runs", report)
    jobs.run()
    result = json.loads((tmp_path / "runs" / "needs result.json").read_text())
    assert result["x"] == 1
    assert {"job_seconds", "machine"} <= result.keys()
    assert [path.stem for path in (tmp_path / "runs").glob("*.json")] == ["needs result"]


def test_the_jobs_of_cells(
    benchmark_module: Any, shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = benchmark_module("cells")
    found = module.jobs()
    names = [job.name for job in found.each]
    assert len(set(names)) == len(names)
    assert {need for job in found.each for need in job.needs} <= set(names)
    for device in module.DEVICES:
        limits = module.limits(device)
        shares = [module.within(device, limit).sum() / 15284 for limit in limits]
        assert shares == pytest.approx(module.QUANTILES, abs=1e-3)
    best = module.derived(np.zeros((6, 5)), "pixel3", limits[0])
    assert best["latency_ms@pixel3"] <= limits[0]
    assert module.on_the_table("evolution", "pixel3", 1, 0)["found"]["latency_ms@pixel3"] <= limits[1]
    report = benchmark_module("cells_report")
    monkeypatch.setattr(report, "OUT", tmp_path / "out")
    report.report()  # of what there is
    content = json.loads((tmp_path / "out.json").read_text())
    assert set(content["missing"]) | set(content["jobs"]) == set(names)
    assert (tmp_path / "out.png").is_file()


def test_steps_of_a_cell_search(benchmark_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module = benchmark_module("cell_steps")
    each = ("darts", "dca", "dca without bottleneck")  # a process each
    monkeypatch.setattr(module, "OURS", {name: module.OURS[name] for name in each})
    steps = module.main(batch="4", cells="3", channels="8", repeats=1)["steps"]
    assert list(steps) == list(module.OURS)
    assert steps["darts"]["memory_over_darts"] == 1
    assert steps["dca"]["memory_over_darts"] < 0.5


def test_figures_of_a_gpu_are_rehearsed_and_not_taken_twice(
    benchmark_alone: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = benchmark_alone("gpu")
    path = tmp_path / "rehearsal.json"
    monkeypatch.setattr(module, "REHEARSAL", path)
    monkeypatch.setattr(module, "MEASURES", {name: module.MEASURES[name] for name in ("training", "static")})
    report = module.main(["--rehearse"])
    assert json.loads(path.read_text()) == report
    named = {name for rows in report["measures"].values() for name in rows}
    steps = {"largest stage", "first 40 elastic steps", "elastic step, 2 sub-networks + teacher"}
    assert named == {*steps, "static network, eager"} <= module.BEFORE.keys()
    printed = capsys.readouterr().out
    assert all(name in printed for name in named)
    monkeypatch.setattr(module, "static", lambda bench: pytest.fail("measured twice"))
    monkeypatch.setattr(module, "MEASURES", {"training": module.static, "static": module.static})
    assert module.main(["--rehearse"])["measures"] == report["measures"]
