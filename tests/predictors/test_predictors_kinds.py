"""What holds for every kind of predictor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestRegressor

from snugnet.costs import counted_table
from snugnet.errors import ConfigError, PredictorError, SpaceError
from snugnet.predictors import (
    ForestPredictor,
    GaussianProcessPredictor,
    fit_predictor,
    list_predictors,
    load_predictor,
    score,
)
from snugnet.predictors.predictor import levels
from snugnet.spaces import get_space, list_spaces

QUICK = {"mlp": {"hidden": (64, 64), "steps": 300}, "best": {"iterations": 10}, "forest": {"trees": 30}}
SPACE = get_space("ofa-mobilenet-v3", depths=[1, 2], kernel_sizes=[3, 5], resolution=32)


def samples(space, n, seed=0):
    """Architectures, and an accuracy that rises towards a ceiling with what they cost, with noise."""
    rng = np.random.default_rng(seed)
    rows = np.unique(space.sample(n, rng), axis=0)
    rng.shuffle(rows)
    cost = np.log(counted_table(space, "madds")(rows))
    cost = (cost - cost.mean()) / cost.std()
    return rows, 80 - 3 * np.exp(-cost / 2) + 0.02 * rng.standard_normal(len(rows))


def fitted(kind, space=SPACE, n=300, **changes):
    rows, values = samples(space, n)
    return fit_predictor(kind, space, rows, values, **{**QUICK[kind], **changes}), rows, values


@pytest.mark.parametrize("name", list_spaces())
@pytest.mark.parametrize("kind", list_predictors())
def test_every_space(kind, name):
    space = get_space(name)
    rows, values = samples(space, 800)  # a space may have hundreds of options
    predictor = fit_predictor(kind, space, rows[:700], values[:700], **QUICK[kind])
    assert score(predictor, rows[700:], values[700:])["kendall_tau"] > 0.5
    assert predictor.predict(rows).shape == (len(rows),)


@pytest.mark.parametrize("kind", list_predictors())
def test_learns_a_smooth_accuracy(kind):
    rows, values = samples(SPACE, 700)
    predictor = fit_predictor(kind, SPACE, rows[:400], values[:400], **QUICK[kind])
    result = score(predictor, rows[400:], values[400:])
    least = {"best": 0.96, "mlp": 0.85, "forest": 0.7}[kind]
    assert result["kendall_tau"] > least
    assert result["spearman"] > result["kendall_tau"]
    assert result["mae"] < {"best": 0.06, "mlp": 0.3, "forest": 0.6}[kind]


@pytest.mark.parametrize("kind", list_predictors())
def test_saved_and_loaded_it_predicts_the_same(kind, tmp_path: Path):
    predictor, rows, _ = fitted(kind)
    again = load_predictor(predictor.save(tmp_path / "predictor"))
    assert type(again) is type(predictor)
    assert again.space.to_json() == SPACE.to_json()
    assert (again.targets, again.provenance) == (predictor.targets, predictor.provenance)
    assert np.array_equal(again.predict(rows), predictor.predict(rows))
    assert sorted(path.suffix for path in (tmp_path / "predictor").iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize("kind", list_predictors())
def test_several_targets(kind, tmp_path: Path):
    rows, values = samples(SPACE, 300)
    both = np.stack([values, -10 * values + 7], axis=1)
    predictor = fit_predictor(kind, SPACE, rows, both, targets=("top1", "loss"), **QUICK[kind])
    predicted = load_predictor(predictor.save(tmp_path)).predict(rows)
    assert predicted.shape == both.shape
    scores = score(predictor, rows, both)
    assert list(scores) == ["top1", "loss"]
    assert min(each["kendall_tau"] for each in scores.values()) > 0.8


@pytest.mark.parametrize("kind", list_predictors())
def test_the_seed_decides(kind):
    first, rows, _ = fitted(kind, seed=1)
    second, _, _ = fitted(kind, seed=1)
    assert np.array_equal(first.predict(rows), second.predict(rows))


@pytest.mark.parametrize("kind", list_predictors())
def test_a_row_is_predicted_alike_in_any_batch(kind):
    predictor, rows, _ = fitted(kind)
    many = np.tile(rows, (12, 1))
    assert np.allclose(predictor.predict(many)[: len(rows)], predictor.predict(rows), rtol=0, atol=1e-3)
    assert np.allclose(predictor.predict(rows[5:6]), predictor.predict(rows)[5], rtol=0, atol=1e-3)
    assert predictor.predict(rows[:0]).shape == (0,)


@pytest.mark.parametrize("kind", list_predictors())
def test_few_rows_and_equal_values(kind):
    rows, values = samples(SPACE, 20)
    assert len(rows) == 20
    assert np.isfinite(fit_predictor(kind, SPACE, rows, values, **QUICK[kind]).predict(rows)).all()
    constant = fit_predictor(kind, SPACE, rows, np.full(20, 71.0), **QUICK[kind])
    assert np.allclose(constant.predict(rows), 71, atol=0.3)
    assert np.isnan(score(constant, rows, np.full(20, 71.0))["kendall_tau"])


@pytest.mark.parametrize("kind", list_predictors())
def test_wrong_samples(kind):
    rows, values = samples(SPACE, 40)
    with pytest.raises(PredictorError, match="19 measured architectures are too few; at least 20"):
        fit_predictor(kind, SPACE, rows[:19], values[:19])
    with pytest.raises(PredictorError, match=r"need values of shape \(40, 1\), got \(39,\)"):
        fit_predictor(kind, SPACE, rows[:40], values[:39])
    with pytest.raises(PredictorError, match="row 3: accuracy is nan"):
        fit_predictor(kind, SPACE, rows, np.where(np.arange(len(rows)) == 3, np.nan, values))
    with pytest.raises(SpaceError, match="shape"):
        fit_predictor(kind, SPACE, rows[:, 1:], values)
    with pytest.raises(PredictorError, match="unknown setting 'layers'"):
        fit_predictor(kind, SPACE, rows, values, layers=3)


def test_unknown_kind_and_wrong_rows():
    rows, values = samples(SPACE, 30)
    with pytest.raises(ConfigError, match="unknown kind of predictor 'svm'; known: best, forest, mlp"):
        fit_predictor("svm", SPACE, rows, values)
    predictor, _, _ = fitted("forest")
    with pytest.raises(PredictorError, match="have shape"):
        predictor.predict(rows[:, 1:])
    with pytest.raises(PredictorError, match="1 measured architectures are too few; at least 2"):
        score(predictor, rows[:1], values[:1])


def test_forest_is_that_of_scikit_learn():
    rows, values = samples(SPACE, 500)
    predictor = ForestPredictor.fit(SPACE, rows[:250], values[:250], seed=3)
    reference = RandomForestRegressor(100, max_depth=15, random_state=3)
    reference.fit(levels(SPACE, rows[:250]).astype(np.float32), values[:250])
    fresh = SPACE.sample(5000, np.random.default_rng(9))
    expected = reference.predict(levels(SPACE, fresh).astype(np.float32))
    assert np.abs(predictor.predict(fresh) - expected).max() < 1e-9
    assert np.abs(predictor.trees(levels(SPACE, fresh))[:, 0] - expected).max() < 1e-9


def test_gaussian_process_with_fewer_centres_than_rows():
    rows, values = samples(SPACE, 900)
    exact = GaussianProcessPredictor.fit(SPACE, rows[:600], values[:600], iterations=10)
    sparse = GaussianProcessPredictor.fit(SPACE, rows[:600], values[:600], iterations=10, centres=300)
    assert len(sparse.arrays()["centres"]) == 300
    assert score(sparse, rows[600:], values[600:])["mae"] < 1.5 * score(exact, rows[600:], values[600:])["mae"]


class TestDamagedFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return fitted("forest", n=60)[0].save(tmp_path / "predictor")

    def test_missing(self, folder: Path, tmp_path: Path):
        with pytest.raises(PredictorError, match="there is no folder"):
            load_predictor(tmp_path / "nowhere")
        next(folder.glob("predictor-*.safetensors")).unlink()
        with pytest.raises(PredictorError, match=r"lacks predictor-[0-9a-f]+\.safetensors"):
            load_predictor(folder)
        (folder / "predictor.json").unlink()
        with pytest.raises(PredictorError, match=r"has no predictor\.json"):
            load_predictor(folder)

    def test_altered(self, folder: Path):
        arrays, index = next(folder.glob("predictor-*.safetensors")), folder / "predictor.json"
        content = arrays.read_bytes()
        arrays.write_bytes(content[:-5])
        with pytest.raises(PredictorError, match="truncated or replaced"):
            load_predictor(folder)
        arrays.write_bytes(content[:-5] + b"12345")
        with pytest.raises(PredictorError, match="altered"):
            load_predictor(folder)
        text = index.read_text()
        index.write_text(text.replace('"accuracy"', '"precision"'))
        with pytest.raises(PredictorError, match="altered"):
            load_predictor(folder)
        index.write_text(text[:100])
        with pytest.raises(PredictorError, match="damaged"):
            load_predictor(folder)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"version": 3}, "version 3, this snugnet reads up to 2"),
            ({"format": "x"}, "not the index"),
            ({"kind": "svm"}, "unknown kind"),
            ({"kind": "mlp"}, "no whole predictor"),
            ({"targets": ["a", "b"]}, "1 outputs, and 2 targets"),
            ({"space": {"name": "ofa-mobilenet-v3", "options": {"depths": [1]}}}, "no whole predictor"),
            ({"files": {}}, "does not list"),
        ],
    )
    def test_foreign(self, folder: Path, change, says):
        from snugnet.bundles import index_checksum

        path = folder / "predictor.json"
        index = json.loads(path.read_text())
        del index["sha256"]
        index |= change
        path.write_text(json.dumps({**index, "sha256": index_checksum(index)}))
        with pytest.raises(PredictorError, match=says):
            load_predictor(folder)

    @pytest.mark.parametrize(
        ("name", "value"), [("children_left", 0), ("children_right", 10**6), ("feature", 999), ("tree_offset", 1)]
    )
    def test_a_forest_that_would_not_end(self, folder: Path, name, value):
        predictor = load_predictor(folder)
        arrays = predictor.arrays()
        arrays[name] = arrays[name].copy()
        arrays[name][0] = value
        with pytest.raises(PredictorError):
            ForestPredictor.restore(SPACE, ("accuracy",), arrays)
