"""Published predictors give their published numbers, and the published table is predicted well."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from snugnet.errors import PredictorError
from snugnet.predictors import ForestPredictor, MLPPredictor, fit_predictor, load_predictor, read_table, score
from snugnet.predictors.trees import Trees
from snugnet.spaces import get_space

DATA = Path(os.environ.get("SNUGNET_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"


def shared(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no published data at {path}; set SNUGNET_SHARED to the folder that holds data/")
    return path


ARCH = {
    "depth": [2, 2, 3, 4, 3],
    "kernel_size": [[5, 3], [5, 3], [7, 7, 3], [5, 5, 7, 3], [3, 3, 5]],
    "expand_ratio": [[3, 3], [4, 4], [6, 3, 4], [4, 4, 4, 3], [6, 6, 6]],
}


class TestOFA:
    @pytest.fixture(scope="class")
    def path(self) -> Path:
        return shared("ofa-mobilenet-v3/accuracy_predictor_w1.2.safetensors")

    def test_published_figure(self, path: Path, tmp_path: Path) -> None:
        space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolution=192)
        predictor = MLPPredictor.from_ofa(path, space)
        row = space.from_dict(ARCH)
        assert predictor.predict(row)[0] == pytest.approx(81.71285, abs=2e-5)
        assert load_predictor(predictor.save(tmp_path)).predict(row)[0] == predictor.predict(row)[0]

    def test_resolution_as_a_choice(self, path: Path) -> None:
        space = get_space("ofa-mobilenet-v3", width_mult=1.2, resolutions=[160, 176, 192, 208, 224])
        predictor = MLPPredictor.from_ofa(path, space)
        rows = np.concatenate([space.from_dict({**ARCH, "resolution": r}) for r in (160, 192)])
        assert predictor.predict(rows)[1] == pytest.approx(81.71285, abs=2e-5)
        fixed = get_space("ofa-mobilenet-v3", width_mult=1.2, resolution=160)
        small = MLPPredictor.from_ofa(path, fixed).predict(fixed.from_dict(ARCH))
        assert predictor.predict(rows)[0] == pytest.approx(small[0], abs=1e-4)

    def test_wrong_spaces_and_files(self, path: Path, tmp_path: Path) -> None:
        with pytest.raises(PredictorError, match=r"width_mult 1\.2"):
            MLPPredictor.from_ofa(path, get_space("ofa-mobilenet-v3"))
        with pytest.raises(PredictorError, match="does not know resolution = 100"):
            MLPPredictor.from_ofa(path, get_space("ofa-mobilenet-v3", width_mult=1.2, resolution=100))
        with pytest.raises(PredictorError, match=r"does not know stage1\.block1\.kernel_size = 9"):
            MLPPredictor.from_ofa(path, get_space("ofa-mobilenet-v3", width_mult=1.2, kernel_sizes=[9]))
        with pytest.raises(PredictorError, match="4 blocks a stage"):
            MLPPredictor.from_ofa(path, get_space("ofa-mobilenet-v3", width_mult=1.2, depths=[5]))
        with pytest.raises(PredictorError, match="cannot read"):
            MLPPredictor.from_ofa(tmp_path / "no", get_space("ofa-mobilenet-v3", width_mult=1.2))

    def test_module_is_differentiable_and_agrees(self, path: Path) -> None:
        space = get_space("ofa-mobilenet-v3", width_mult=1.2)
        predictor = MLPPredictor.from_ofa(path, space)
        rows = space.sample(64, np.random.default_rng(0))
        code = torch.from_numpy(space.one_hot(rows)).requires_grad_()
        values = predictor.module(code)
        assert np.allclose(values[:, 0].detach().numpy(), predictor.predict(rows), atol=1e-3)
        values.sum().backward()
        assert code.grad is not None
        assert code.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in predictor.module.parameters())


class TestAttentiveNAS:
    def test_published_models(self) -> None:
        with np.load(shared("attentive-nas/accuracy_forest.npz")) as file:
            trees = Trees(dict(file), 31)
        models = json.loads(shared("attentive-nas/models.json").read_text())["models"]
        features = np.array([model["feature_vector"] for model in models.values()])
        expected = [model["predictor_output"] for model in models.values()]
        assert len(expected) == 3
        assert trees(features)[:, 0] == pytest.approx(expected, abs=1e-6)

    def test_as_a_predictor_of_a_space(self) -> None:
        """Choices and constants as inputs: the level walk agrees with the plain one."""
        with np.load(shared("attentive-nas/accuracy_forest.npz")) as file:
            arrays = dict(file)
        space = get_space("ofa-mobilenet-v3", depths=[3, 4], kernel_sizes=[3, 5], expand_ratios=[4, 5, 6])
        base = json.loads(shared("attentive-nas/models.json").read_text())["models"]["a2"]["feature_vector"]
        features: list[int | str | float] = [float(value) for value in base]
        for s in range(5):
            features[11 + s] = space.column[f"stage{s + 1}.depth"]
            features[18 + s] = f"stage{s + 1}.block1.kernel_size"
            features[25 + s] = f"stage{s + 1}.block1.expand_ratio"
        predictor = ForestPredictor.from_arrays(space, arrays, features)
        rows = space.sample(300, np.random.default_rng(0))
        raw = np.tile(np.array(base, dtype=float), (len(rows), 1))
        for i, feature in enumerate(features):
            if not isinstance(feature, float):
                column = space.column[feature] if isinstance(feature, str) else feature
                raw[:, i] = np.array(space.choices[column].options)[rows[:, column]]
        assert np.abs(predictor.predict(rows) - Trees(arrays, 31)(raw)[:, 0]).max() < 1e-9
        assert len(np.unique(predictor.predict(rows))) > 50
        with pytest.raises(PredictorError, match="feature 0 of the forest is 'width', which is no choice"):
            ForestPredictor.from_arrays(space, arrays, ["width", *features[1:]])
        with pytest.raises(PredictorError, match="inputs that do not exist"):
            ForestPredictor.from_arrays(space, arrays, features[:5])


def test_the_best_predictor_on_held_out_rows_of_the_published_table() -> None:
    """The project's bar, 0.945 and 0.09 points from 1,600 rows, held with half of the rows."""
    space = get_space("ofa-mobilenet-v3")
    table = read_table(shared("ofa-mobilenet-v3/imagenet_accuracy_w1.0.csv.gz"), space)
    values = table.values(["imagenet_top1"])
    order = np.random.default_rng(0).permutation(len(values))
    predictor = fit_predictor("best", space, table.rows[order[:827]], values[order[:827]], iterations=15)
    result = score(predictor, table.rows[order[827:]], values[order[827:]])
    assert result["kendall_tau"] > 0.96
    assert result["mae"] < 0.05
