"""A small study on the digits: what its tables say is what its networks do, and it can be stopped at any time."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import snugnet
from snugnet.data import ImageSet
from snugnet.errors import BudgetError, ConfigError
from snugnet.pipeline import make_family, make_generator, make_space
from snugnet.study import Results, StudyConfig, family_of, load_study, run_study
from snugnet.study.images import StudyImages, halves, unseen
from snugnet.supernets import Supernet

PNG = b"\x89PNG"
ROOT = Path(__file__).parents[2]


def content(output: Path | str) -> dict[str, Any]:
    return {
        "name": "tiny",
        "output": str(output),
        "seeds": [0, 1],
        "budgets": 2,
        "report": "validation",
        "recipe": {
            "device": "cpu",
            "threads": 1,
            "data": {"source": "digits", "groups": "digits", "resolution": 8, "train_rows": 200},
            "space": {
                "name": "ofa-mobilenet-v3",
                "width_mult": 0.1,
                "stem_stride": 1,
                "stage_strides": [2, 1, 1, 1, 1],
            },
            "training": {
                "batch_size": 64,
                "stages": [
                    {"name": "largest", "epochs": 2, "learning_rate": 0.1},
                    {"name": "all", "epochs": 1, "learning_rate": 0.05, "elastic": "all"},
                ],
            },
            "generator": {"steps": 2, "pairs": 2, "images": 8, "budgets": 3},
            "evaluation": {"calibration_images": 64},
        },
        "supernets": {"p 0.6": {}, "p 0": {"training.superclass_dropout": 0.0}},
        "methods": [
            {"name": "Random", "supernet": "p 0.6", "search": "random"},
            {"name": "OFA-V", "supernet": "p 0", "search": "predictor", "per_superclass": False},
            {"name": "OFA-T", "supernet": "p 0", "search": "predictor"},
            {"name": "EAS-V", "supernet": "p 0.6", "search": "generator", "per_superclass": False},
            {"name": "EAS", "supernet": "p 0.6", "search": "generator"},
        ],
        "tables": {"Methods": ["Random", "OFA-V", "OFA-T", "EAS-V", "EAS"], "One": ["EAS"]},
        "baseline": "OFA-T",
        "predictor": {"architectures": 25, "kind": "forest", "preset": "spos", "generations": 3},
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return run_study(StudyConfig(**content(folder)), progress=False)


def test_every_method_has_every_scenario(results: Results) -> None:
    assert [(o.method, o.seed) for o in results.outcomes] == [
        (name, seed) for seed in (0, 1) for name in ("Random", "EAS-V", "EAS", "OFA-V", "OFA-T")
    ]
    for outcome in results.outcomes:
        assert [(row.group, row.budget) for row in outcome.rows] == [
            (group, budget) for group in results.groups for budget in results.budgets
        ]
        assert all(0 <= row.accuracy <= 1 and row.costs["madds"] <= row.budget for row in outcome.rows)
        assert outcome.seconds["supernet"] > 0
        assert outcome.seconds["teacher"] > 0
        assert (outcome.seconds["preparation"] > 0) == (outcome.method != "Random")


def test_one_architecture_for_all_or_one_for_each(results: Results) -> None:
    for outcome in results.outcomes:
        of_budget = [{tuple(r.arch) for r in outcome.rows if r.budget == b} for b in results.budgets]
        if outcome.method in ("OFA-V", "EAS-V"):
            assert all(len(archs) == 1 for archs in of_budget)
        if outcome.method == "Random":
            assert all(len(archs) == len(results.groups) for archs in of_budget)
            assert all(row.costs["madds"] > 0.85 * row.budget for row in outcome.rows)


def test_means_and_deviations(results: Results) -> None:
    for line in results.lines(["Random", "OFA-T"]):
        seeds = [
            100 * np.mean([row.accuracy for row in outcome.rows if row.budget == line.budget])
            for outcome in results.of(line.method)
        ]
        assert line.accuracy == pytest.approx(np.mean(seeds))
        assert line.deviation == pytest.approx(abs(seeds[0] - seeds[1]) / np.sqrt(2))
    by_group = results.by_group("EAS", results.budgets[0])
    assert list(by_group) == results.groups
    first = results.lines(["EAS"])[0]
    assert np.mean([mean for mean, _ in by_group.values()]) == pytest.approx(first.accuracy)


def test_differences_are_taken_seed_by_seed(results: Results) -> None:
    for i, (budget, mean, deviation) in enumerate(results.ahead("EAS", "OFA-T")):
        assert budget == results.budgets[i]
        ours, theirs = (results.lines([method])[i].accuracy for method in ("EAS", "OFA-T"))
        assert mean == pytest.approx(ours - theirs)
        each = [
            100 * np.mean([a.accuracy - b.accuracy for a, b in zip(x.rows, y.rows, strict=True) if a.budget == budget])
            for x, y in zip(results.of("EAS"), results.of("OFA-T"), strict=True)
        ]
        assert deviation == pytest.approx(abs(each[0] - each[1]) / np.sqrt(2))
    assert all(mean == deviation == 0 for _, mean, deviation in results.ahead("OFA-T", "OFA-T"))


def test_the_predictor_is_judged_on_architectures_that_it_was_not_fitted_on(results: Results) -> None:
    for outcome in results.outcomes:
        assert {len(values) for values in outcome.predictor.values()} == (
            {5} if outcome.method.startswith("OFA") else set()
        )


def test_saved_and_read(results: Results, tmp_path: Path) -> None:
    paths = results.save(tmp_path)
    assert {"study.json", "study.md", "methods.png", "one.png", "similarity.png"} <= {path.name for path in paths}
    assert all(path.read_bytes().startswith(PNG) for path in paths if path.suffix == ".png")
    again = Results.read(tmp_path / "study.json")
    assert again == results
    text = (tmp_path / "study.md").read_text()
    line = results.lines(["EAS"])[0]
    assert f"{line.accuracy:.2f} ± {line.deviation:.2f}" in text
    _, mean, deviation = results.ahead("EAS", "OFA-T")[0]
    assert f"| EAS | {mean:+.2f} ± {deviation:.2f} |" in text
    titles = [str(table.title) for table in results.rich_tables()]
    assert titles == [
        "Methods", "Methods: points ahead, seed by seed", "One", "One: points ahead, seed by seed",
        "training and search cost",
    ]  # fmt: skip
    for damaged in ("{}", '{"config": {}, "outcomes": [], "machine": {}}', "[]"):
        (tmp_path / "study.json").write_text(damaged)
        with pytest.raises(ConfigError, match="holds no study's results"):
            Results.read(tmp_path / "study.json")


def test_similarity(results: Results) -> None:
    alike = results.similarity("EAS-V")
    assert [budget for budget, _, _ in alike] == results.budgets
    assert all(mean == pytest.approx(1) for _, mean, _ in alike)
    assert all(0 < mean < 1 for _, mean, _ in results.similarity("Random"))


def test_a_study_goes_on_where_it_stopped(results: Results, folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    (copied / "seed-1" / "searches" / "eas.json").unlink()  # stopped before this one
    stamp = (copied / "seed-0" / "searches" / "eas.json").stat().st_mtime_ns
    config = content(folder)  # checkpoints know their starting point by content, so they may be moved
    again = run_study(StudyConfig(**{**config, "output": str(copied)}), progress=False)
    assert [o.rows for o in again.outcomes] == [o.rows for o in results.outcomes]
    assert (copied / "seed-0" / "searches" / "eas.json").stat().st_mtime_ns == stamp


def test_another_split_is_reported_without_searching_again(results: Results, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    again = run_study(
        StudyConfig(**{**content(folder), "output": str(tmp_path / "copy"), "report": "test"}), progress=False
    )
    for old, new in zip(results.outcomes, again.outcomes, strict=True):
        assert [(r.group, r.budget, r.arch) for r in old.rows] == [(r.group, r.budget, r.arch) for r in new.rows]
        assert old.seconds == new.seconds
    assert [o.rows for o in results.outcomes] != [o.rows for o in again.outcomes]


def test_a_line_is_handed_out_as_a_family(results: Results, folder: Path, tmp_path: Path) -> None:
    config = StudyConfig(**content(folder))
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    family_of(config, "EAS", 1, progress=False).save(tmp_path / "family")
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}, "trained again"
    family = snugnet.load(tmp_path / "family")
    [outcome] = [each for each in results.of("EAS") if each.seed == 1]
    for row in outcome.rows:
        assert family.specialize(row.group, madds=row.budget).row.tolist() == row.arch
    assert family.provenance["recipe"]["seed"] == 1


def test_a_line_that_is_no_family(folder: Path) -> None:
    config = StudyConfig(**content(folder))
    for method, seed, says in [
        (
            "OFA-T",
            0,
            "OFA-T is searched by predictor: nothing learns to hand out networks; methods with a generator: EAS-V, EAS",
        ),
        ("DARTS", 0, "no method 'DARTS'; methods with a generator: EAS-V, EAS"),
        ("EAS", 7, "the study has no seed 7; seeds: 0, 1"),
    ]:
        with pytest.raises(ConfigError) as refused:
            family_of(config, method, seed, progress=False)
        assert str(refused.value) == says


def test_random_networks_of_every_supernet_without_any_search(tmp_path: Path) -> None:
    """What the table says is what the networks do; the second run reads it; another split is measured anew."""
    config = {**content(tmp_path / "out"), "methods": [], "tables": {}, "baseline": None, "sampled": 3, "seeds": [0, 1]}
    results = run_study(StudyConfig(**config), progress=False)
    assert [(each.supernet, each.seed) for each in results.sampled] == [
        (name, seed) for seed in (0, 1) for name in ("p 0.6", "p 0")
    ]
    each = results.sampled[0]
    assert len(each.random) == 3
    assert all(0 < accuracy < 1 for accuracy in (each.smallest, each.largest, *each.random))
    assert each.seconds.keys() == {"teacher", "supernet"}

    recipe = StudyConfig(**config).recipe_of("p 0.6", 0)
    images = StudyImages(progress=False)
    data, judged = images.of(recipe), images.judge(recipe)
    supernet = Supernet(make_space(recipe, data))
    saved = load_file(tmp_path / "out" / "seed-0" / "p 0.6" / "supernet.ckpt.safetensors")
    supernet.load_state_dict({name[9:]: tensor for name, tensor in saved.items() if name.startswith("supernet.")})
    family = make_family(recipe, data, supernet, make_generator(recipe, supernet.space, data), {})
    network = family.build(supernet.space.largest)
    x = torch.stack([torch.tensor(family.mean), torch.tensor(family.std)])[:, :, None, None]
    logits = network((judged.images.float() / 255 - x[0]) / x[1])
    assert each.largest == pytest.approx(float((logits.argmax(1) == judged.labels).float().mean()), abs=1e-6)

    stamp = (tmp_path / "out" / "seed-0" / "p 0" / "sampled-validation.json").stat().st_mtime_ns
    assert run_study(StudyConfig(**config), progress=False).sampled == results.sampled
    assert (tmp_path / "out" / "seed-0" / "p 0" / "sampled-validation.json").stat().st_mtime_ns == stamp
    assert run_study(StudyConfig(**{**config, "report": "test"}), progress=False).sampled != results.sampled

    paths = results.save(tmp_path / "saved")
    assert [path.name for path in paths] == ["study.json", "study.md"]
    assert Results.read(tmp_path / "saved" / "study.json") == results
    means = [100 * np.mean(own.random) for own in results.sampled if own.supernet == "p 0"]
    assert (
        f"| p 0 | {np.mean(means):.2f} ± {np.std(means, ddof=1):.2f} |" in (tmp_path / "saved" / "study.md").read_text()
    )
    assert [str(table.title) for table in results.rich_tables()] == ["networks of every supernet, over all classes"]


def test_a_budget_that_nothing_is_within_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="budgets: no architecture"):
        run_study(StudyConfig(**{**content(tmp_path / "out"), "budgets": ["1k"]}), progress=False)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_fresh_removes_what_a_study_wrote_and_nothing_else(results: Results, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    (tmp_path / "seed-corpus").mkdir()
    (tmp_path / "seed-0" / "searches").mkdir(parents=True)
    few = content(tmp_path)
    few |= {"methods": few["methods"][:1], "supernets": {"p 0.6": {}}, "tables": {"T": ["Random"]}, "seeds": [0]}
    few["baseline"] = None
    (tmp_path / "seed-0" / "searches" / "random.json").write_text("no JSON")
    run_study(StudyConfig(**few), fresh=True, progress=False)
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert (tmp_path / "seed-corpus").is_dir()
    assert json.loads((tmp_path / "seed-0" / "searches" / "random.json").read_text())["result"]["rows"]


def test_other_budgets_evaluate_no_architecture_again(results: Results, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    evaluated = tmp_path / "copy" / "seed-0" / "p 0" / "evaluated.npz"
    stamp = evaluated.stat().st_mtime_ns
    again = run_study(
        StudyConfig(**{**content(folder), "output": str(tmp_path / "copy"), "budgets": 1}), progress=False
    )
    assert len(again.budgets) == 1
    assert evaluated.stat().st_mtime_ns == stamp


def test_what_is_damaged_is_done_again(results: Results, folder: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(folder, copied)
    (copied / "seed-0" / "searches" / "ofa-t.json").write_text("[1")
    (copied / "seed-0" / "p 0" / "evaluated.npz").write_bytes(b"PK no zip")
    (next(copied.glob("seed-1/teacher-*")) / "done.json").write_text("[]")
    (copied / "seed-1" / "validation" / "eas.json").write_text("[]")
    again = run_study(StudyConfig(**{**content(folder), "output": str(copied)}), progress=False)
    assert [o.rows for o in again.outcomes] == [o.rows for o in results.outcomes]


def test_one_superclass_and_names_of_any_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = content(tmp_path) | {"seeds": [0], "name": "$#$ [/b]"}
    few["recipe"]["data"]["groups"] = {"$all$ [/i]": list("0123456789")}
    few["supernets"] = {"p 0": few["supernets"]["p 0"]}
    few["methods"] = [
        {"name": name, "supernet": "p 0", "search": "predictor", "per_superclass": per}
        for name, per in (("V [/V]", False), ("$T$ #$", True))
    ]
    few |= {"tables": {"$T#$ [/c]": ["V [/V]", "$T$ #$"]}, "baseline": None}
    found = run_study(StudyConfig(**few), progress=True)
    paths = found.save(tmp_path / "saved")
    assert {"study.json", "study.md", "t-c.png", "architectures-t.png"} <= {path.name for path in paths}
    assert len(found.groups) == 1
    assert "V [/V]" in capsys.readouterr().err
    assert not np.isnan([line.accuracy for line in found.lines(["V [/V]", "$T$ #$"])]).any()


@pytest.mark.parametrize(
    ("supernets", "budgets", "says"),
    [
        ({"a": {}, "b": {"space.width_mult": 0.2}}, 2, "a and b have not the same range of madds; give the budgets as a list"),
        ({"a": {}, "b": {"generator.budget": "params"}}, ["500k"], "a and b have not the same generator.budget"),
    ],
)  # fmt: skip
def test_supernets_that_cannot_be_compared(tmp_path: Path, supernets: dict[str, Any], budgets: Any, says: str) -> None:
    few = content(tmp_path / "out") | {"supernets": supernets, "budgets": budgets, "baseline": None}
    few |= {"methods": [{"name": "R", "supernet": "a", "search": "random"}], "tables": {"T": ["R"]}}
    with pytest.raises(ConfigError, match=says):
        run_study(StudyConfig(**few), progress=False)
    assert not (tmp_path / "out").exists()


def test_no_images_are_no_accuracy(results: Results, tmp_path: Path) -> None:
    outcome = results.outcomes[0]
    none = replace(outcome, rows=[replace(outcome.rows[0], accuracy=float("nan")), *outcome.rows[1:]])
    replace(results, outcomes=[none, *results.outcomes[1:]]).save(tmp_path)
    again = Results.read(tmp_path / "study.json").outcomes[0]
    assert np.isnan(again.rows[0].accuracy)
    assert again.rows[1:] == outcome.rows[1:]


def test_halves_share_no_image_and_every_class() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 2, 2, 1])
    images = torch.arange(9, dtype=torch.uint8)[:, None, None, None].expand(9, 3, 2, 2)
    first, second = halves(ImageSet(images, labels))
    kept = [half.images[:, 0, 0, 0].tolist() for half in (first, second)]
    assert sorted(kept[0] + kept[1]) == list(range(9))
    assert first.labels.bincount().tolist() == [2, 2, 1]
    assert second.labels.bincount().tolist() == [1, 2, 1]


def test_what_was_seen_is_not_judged_on(tmp_path: Path) -> None:
    every = ImageSet(torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 2, 2), torch.arange(6))
    assert unseen(every, every.take(torch.tensor([4, 1]))).labels.tolist() == [0, 2, 3, 5]
    recipe = StudyConfig(**content(tmp_path)).recipe_of("p 0", 0)
    few, whole = (
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"train_rows": n})}) for n in (300, None)
    )
    images = StudyImages(progress=False)
    other = len(images.judge(whole))
    assert abs(other - len(images.of(whole).validation)) <= len(images.of(whole).classes)
    judged, trained = images.judge(few), images.of(few).train
    assert len(trained) == 300
    assert len(unseen(judged.take(torch.arange(other, len(judged))), trained)) == len(judged) - other
    assert len(judged) - other == len(unseen(images.of(whole).train, trained)) > 300


def test_side_by_side_gives_the_same(results: Results, tmp_path: Path) -> None:
    few = copy.deepcopy(content(tmp_path)) | {"workers": 2}
    few["methods"] = [few["methods"][0], few["methods"][4]]
    few["supernets"] = {"p 0.6": {}}
    few |= {"tables": {"Methods": ["Random", "EAS"]}, "baseline": None}
    again = run_study(StudyConfig(**few), progress=False)
    for method in ("Random", "EAS"):
        assert [o.rows for o in again.of(method)] == [o.rows for o in results.of(method)]


def test_workers_end_with_a_study_that_is_killed(tmp_path: Path) -> None:
    long = content(tmp_path) | {"workers": 2}
    long["recipe"]["training"]["stages"][0]["epochs"] = 1e5
    (tmp_path / "study.yaml").write_text(json.dumps(long))
    command = [sys.executable, "-m", "snugnet", "study", str(tmp_path / "study.yaml")]
    study = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    logs = [tmp_path / f"seed-{seed}" for seed in (0, 1)]

    def steps() -> list[int]:
        return [sum(p.stat().st_size for p in log.glob("teacher-*/log.jsonl")) for log in logs]

    def until(true: Callable[[], bool]) -> None:
        end = time.monotonic() + 300  # two more processes that import torch, on a machine that may be busy
        while not true():
            assert time.monotonic() < end
            time.sleep(0.1)

    try:
        until(lambda: all(steps()))
    finally:
        study.kill()
        study.wait()
    time.sleep(1)
    before = steps()
    time.sleep(2)
    assert steps() == before


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"supernets": {}}, "supernets is {}"),
        ({"tables": {"T": ["EASY"]}}, "table 'T': no method 'EASY'; methods: Random"),
        ({"seeds": [0, 0]}, "seed 0 stands twice"),
        ({"methods": [{"name": "A", "supernet": "q", "search": "random"}]}, "method A: no supernet 'q'; supernets: p 0.6, p 0"),
        (
            {"methods": [{"name": "A", "supernet": "p 0", "search": "random", "generator": {"steps": 1}}]},
            "A: generator settings are for search: generator",
        ),
        (
            {
                "methods": [{"name": "EAS", "supernet": "p 0", "search": "generator", "generator": {"encodng": "x"}}],
                "tables": {"One": ["EAS"]}, "baseline": None,
            },
            "method EAS: no key 'generator.encodng'; did you mean 'encoding'?",
        ),
        ({"tables": {"A b": ["EAS"], "a-B": ["EAS"]}}, "table a-b stands twice"),
        ({"tables": {}}, "tables is {}"),
        ({"methods": [], "tables": {}, "baseline": None}, "nothing is compared"),
        ({"tables": {"Similarity": ["EAS"]}}, "no table is called similarity"),
        (
            {"methods": [{"name": "A", "supernet": "p 0", "search": "generator", "generator": {"budget": "params"}}]},
            "A: generator.budget is the same for all methods",
        ),
        ({"seeds": [0, -1]}, "seeds.1 is -1"),
        ({"budgets": ["40X"]}, "40X"),
        ({"budgets": 0}, "at least one budget"),
        ({"supernets": {"p 0.6": {"evaluation.best_of": 3}, "p 0": {}}}, "recipe.evaluation.best_of: a study decides"),
        ({"predictor": {"architectures": 3}}, "predictor.architectures is 3"),
        ({"supernets": {"p 0.6": {"training.superclass_dropot": 1}, "p 0": {}}}, "supernet p 0.6: no key"),
        ({"baseline": "EASY"}, "baseline: no method 'EASY'; methods: Random"),
        ({"report": "train"}, "'validation' or 'test'"),
    ],
)  # fmt: skip
def test_wrong_studies(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(json.dumps({**content(tmp_path / "out"), **changes}))
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    assert says in str(caught.value)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("study-*.yaml")), ids=lambda path: path.stem)
def test_studies_that_come_with_the_project(path: Path) -> None:
    config = load_study(path)
    assert len(config.seeds) >= 3
    assert config.report == ("test" if config.methods else "validation")  # what is chosen is not chosen on test
    assert path.read_text().startswith(f"# snugnet study recipes/{path.name}\n")
    for supernet in config.supernets:
        assert config.recipe_of(supernet, 0).training.stages[0].largest_only
