"""Recipes: what is accepted, and one clear line for what is not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from snugnet.errors import ConfigError
from snugnet.recipe import NetworkRecipe, Recipe, load_recipe, parse_network_recipe, parse_recipe
from snugnet.yaml_content import read_assignment

RECIPES = [
    path
    for path in sorted((Path(__file__).resolve().parents[1] / "recipes").glob("*.yaml"))
    if not path.name.startswith("study-")  # those hold a recipe; tests/study loads them
]
CELL_RECIPES = [path for path in RECIPES if path.stem.startswith("dca-")]
RECIPES = [path for path in RECIPES if path not in CELL_RECIPES]  # of families

SMALL: dict[str, Any] = {
    "name": "small",
    "output": "runs/small",
    "data": {"source": "digits", "resolution": 16},
    "training": {
        "stages": [
            {"name": "largest", "epochs": 1, "learning_rate": 0.1},
            {"name": "all", "epochs": 1, "learning_rate": 0.1, "elastic": {"depth": 2}},
        ]
    },
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def make(text: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return make


@pytest.fixture
def small(write: Callable[[str], Path]) -> Path:
    return write(yaml.safe_dump(SMALL))


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_there_are_recipes() -> None:
    assert {"quickstart", "tiny-imagenet-10", "tiny-imagenet-10-cpu"} <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_opens_with_the_command_that_runs_it(path: Path) -> None:
    recipe = load_recipe(path)
    elastic_at_once = path.stem == "attentive-nas" or path.stem.startswith("spos-")  # trains no largest network first
    assert recipe.training.stages[0].elastic == ("all" if elastic_at_once else {})
    first = path.read_text(encoding="utf-8").split("\n")[0]
    assert first.startswith("# snugnet ")
    assert f"recipes/{path.name}" in first


@pytest.mark.parametrize("path", CELL_RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_a_cell_search_is_none_of_a_family(path: Path) -> None:
    with pytest.raises(ConfigError, match="is a recipe of 'snugnet search-cell'"):
        load_recipe(path)


def test_single_path_one_shot_at_the_papers_scale() -> None:
    recipe = load_recipe(RECIPES[0].parent / "spos-shufflenet-v2.yaml")
    (stage,) = recipe.training.stages
    assert (stage.epochs, stage.learning_rate, stage.schedule, stage.subnets) == (120, 0.5, "linear", 1)
    assert (stage.elastic, stage.sampling, stage.sandwich) == ("all", "cost", False)
    training = recipe.training
    assert (training.batch_size, training.weight_decay, training.label_smoothing) == (1024, 4e-5, 0.1)
    assert training.superclass_dropout == 0
    assert (recipe.data.resolution, recipe.data.validation) == (224, 50_000)


def test_attentive_nas_at_the_papers_scale() -> None:
    recipe = load_recipe(RECIPES[0].parent / "attentive-nas.yaml")
    (stage,), training = recipe.training.stages, recipe.training
    assert (stage.epochs, stage.warmup_epochs, stage.learning_rate) == (360, 5, 0.1 * training.batch_size / 256)
    assert (stage.sampling, stage.candidates, stage.sandwich, stage.subnets + 2) == ("best-up", 3, True, 4)
    assert (training.batch_size, training.weight_decay, training.label_smoothing) == (2048, 1e-5, 0.1)
    assert (training.dropout, training.drop_connect, training.drop_connect_stages) == (0.2, 0.2, 2)
    assert (training.gradients, training.clip_value, training.zero_init_residual) == ("sum", 1.0, True)
    assert recipe.augment.auto_augment == "imagenet"
    assert recipe.space.options["resolutions"] == [192, 224, 256, 288]


def test_mixed_precision_and_retraining_at_the_papers_scale() -> None:
    recipes = [
        load_recipe(RECIPES[0].parent / f"{name}.yaml")
        for name in ("spos-shufflenet-v2", "spos-resnet-mixed-precision")
    ]
    for recipe in recipes:
        (stage,), training = recipe.training.stages, recipe.training
        assert (stage.epochs, stage.learning_rate, stage.schedule) == (120, 0.5, "linear")
        assert (training.batch_size, training.weight_decay, training.superclass_dropout) == (1024, 4e-5, 0)
        alone = recipe.retraining.scratch.resolved(training.batch_size)
        assert (alone.epochs, alone.batch_size, alone.learning_rate, alone.schedule) == (240, 1024, 0.5, "linear")
        assert (alone.weight_decay, alone.distillation) == (4e-5, 0)
    bits = recipes[1]
    assert (bits.training.cost, bits.generator.budget) == ("bitops", "bitops")
    assert [round(budget / 2**30, 2) for budget in bits.evaluation.budgets] == [6.32, 14.21, 25.27]  # type: ignore[operator, union-attr]


def test_the_recipe_of_one_network_needs_no_family(small: Path) -> None:
    """Both kinds come back from what a network carries, each as what it is, and resolve their batch."""
    whole = load_recipe(small)
    keys = ("seed", "device", "precision", "threads", "data", "augment", "space", "retraining")
    alone = parse_network_recipe({key: whole.to_json()[key] for key in keys})
    assert type(alone) is NetworkRecipe
    assert parse_network_recipe(alone.to_json()) == alone
    assert parse_network_recipe(whole.to_json()) == whole
    assert alone.retraining.scratch.resolved(alone.batch_size).batch_size == 96
    assert whole.retraining.scratch.resolved(whole.batch_size).batch_size == whole.training.batch_size == 128
    with pytest.raises(ConfigError, match="no key 'generator'; allowed: name, seed"):
        parse_network_recipe({**alone.to_json(), "generator": {}})


def test_json_gives_the_same_recipe_again(small: Path) -> None:
    recipe = load_recipe(small)
    assert Recipe.model_validate(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    ("overrides", "read", "expected"),
    [
        (["training.batch_size=64"], lambda r: r.training.batch_size, 64),
        (["training.stages.1.epochs=2.5"], lambda r: r.training.stages[1].epochs, 2.5),
        (["training.stages.1.elastic.depth=3"], lambda r: r.training.stages[1].elastic, {"depth": 3}),
        (["evaluation.budgets=[1M, 2e6, 300]"], lambda r: r.evaluation.budgets, ("1M", "2e6", 300.0)),
        (["evaluation.budgets=7"], lambda r: r.evaluation.budgets, 7),
        (["generator.temperature=[2, 1]"], lambda r: r.generator.temperature, (2.0, 1.0)),
        (["space.width_mult=0.5", "space.stage_strides=[1,2,1,2,1]"], lambda r: r.space.options,
         {"width_mult": 0.5, "stage_strides": [1, 2, 1, 2, 1]}),
        (["training.weight_decay=1e-4"], lambda r: r.training.weight_decay, 1e-4),
        (["data.groups={a: [x, y], b: [z]}"], lambda r: r.data.groups, {"a": ["x", "y"], "b": ["z"]}),
        (["name=a=b"], lambda r: r.name, "a=b"),
        (["threads="], lambda r: r.threads, None),
        (["seed=1", "seed=2"], lambda r: r.seed, 2),
    ],
)  # fmt: skip
def test_overrides(small: Path, overrides: list[str], read: Callable[[Recipe], Any], expected: Any) -> None:
    assert read(load_recipe(small, overrides)) == expected


def test_an_override_fills_a_section_that_is_empty_in_the_file(write: Callable[[str], Path]) -> None:
    path = write(yaml.safe_dump(SMALL) + "augment:\n")
    assert "augment is None" in message(path)
    assert load_recipe(path, ["augment.flip=true"]).augment.flip


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("training.batchsize=64", "no key 'training.batchsize'; did you mean 'batch_size'? allowed: batch_size, stages"),
        ("training.stages.0.epoch=1", "no key 'training.stages.0.epoch'; did you mean 'epochs'? allowed: name, epochs"),
        ("zzz=1", "no key 'zzz'; allowed: name, seed, device"),
        ("data.zzz=1", "no key 'data.zzz'; allowed: source, resolution"),
        ("training.batch_size=many", "training.batch_size is 'many': input should be a valid integer"),
        ("training.batch_size=1", "training.batch_size is 1: input should be greater than or equal to 2"),
        ("training.batch_size=64.5", "training.batch_size is 64.5"),
        ("training.batch_size=true", "batch_size is True; true is a yes or no, which it does not take"),
        ("training.stages.0.elastic={depth: yes}", "elastic is {'depth': True}; true is a yes or no"),
        ("generator.temperature=[no, 1]", "temperature is [False, 1]; false is a yes or no"),
        ("training.stages=[]", "training.stages is []"),
        ("training.stages.0.learning_rate=.nan", "training.stages.0.learning_rate is nan"),
        ("training.stages.0.learning_rate=.inf", "training.stages.0.learning_rate is inf: input should be a finite number"),
        ("training.stages.0.learning_rate=-1", "greater than 0"),
        ("training.stages.0.sampling=best-up", "sampling best-up draws from the whole space: it needs elastic: all"),
        ("training.stages.0.sampling=bestup", "'uniform', 'cost', 'best-up' or 'worst-up'"),
        ("training.stages.0.elastic={depth: 0}", "elastic counts are at least 1"),
        ("training.dropout=0.2", "no stage has it"),
        ("training.predictor=runs/p", "no stage has it"),
        ("training.stages.1.elastic.depth=0", "elastic counts are at least 1"),
        ("training.stages.1.elastic.depth=x", "training.stages.1.elastic.depth is 'x'"),
        ("training.stages.1.warmup_epochs=9", "warmup_epochs (9.0) is more than epochs (1.0)"),
        ("training.superclass_dropout=1.5", "less than or equal to 1"),
        ("training=5", "training is 5"),
        ("generator.encoding=both", "generator.encoding is 'both': input should be 'single-path' or 'multi-path'"),
        ("generator.temperature=[1, 0]", "temperatures are above 0"),
        ("generator.temperature=[1]", "generator.temperature"),
        ("device=tpu", "'auto', 'cpu' or 'cuda'"),
        ("evaluation.budgets=0", "at least one budget"),
        ("evaluation.budgets=lots", "valid integer, unable to parse string as an integer or input should be a valid tuple"),
        ("evaluation.budgets=[40Q]", "evaluation: a budget is a positive number"),
        ("evaluation.budgets=[-1]", "evaluation: a budget is a positive number"),
        ("space.resolution=32", "space: resolution follows from the data"),
        ("data.resolution=big", "data.resolution is 'big'"),
        ("data.validation=1.5", "data.validation is 1.5"),
        ("data.groups={a: b}", "data.groups.a is 'b'"),
        ("data.on_bad_image=ignore", "'error' or 'skip'"),
        ("seed=-1", "seed is -1"),
        ("name=[a]", "name is ['a']: input should be a valid string"),
        ("augment.cutout=17", "augment.cutout is 17 pixels a side, and images have 16; make it smaller"),
        ("augment.cutout=-1", "augment.cutout is -1"),
        ("retraining.scratch.drop_path=1", "retraining.scratch.drop_path is 1"),
        ("retraining.inherited.clip=0", "retraining.inherited.clip is 0"),
        ("name=2024-01-01", "name is datetime.date(2024, 1, 1)"),
    ],
)  # fmt: skip
def test_wrong_keys_and_values(small: Path, override: str, says: str) -> None:
    text = message(small, override)
    assert text.startswith(f"{small}: ")
    assert says in text


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("seed", "settings are key=value, got 'seed'"),
        ("=1", "settings are key=value, got '=1'"),
        ("", "settings are key=value, got ''"),
        ("seed=[1", "seed: '[1' is not YAML"),
        ("seed.x=1", "seed.x: seed is a value, not a section"),
        ("name.first.x=1", "name.first.x: name is a value"),
        ("training.stages.2.epochs=1", "'2' is not a position in a list of 2"),
        ("training.stages.-1.epochs=1", "'-1' is not a position"),
        ("training.stages.largest.epochs=1", "'largest' is not a position"),
        ("training.stages.5={}", "'5' is not a position"),
    ],
)
def test_wrong_overrides(write: Callable[[str], Path], override: str, says: str) -> None:
    assert says in message(write(yaml.safe_dump({**SMALL, "seed": 0})), override)


@pytest.mark.parametrize("key", ["name", "output", "data", "training", "data.source", "training.stages.0.epochs"])
def test_missing_keys(write: Callable[[str], Path], key: str) -> None:
    content: Any = yaml.safe_load(yaml.safe_dump(SMALL))
    place = content
    *sections, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for section in sections:
        place = place[section]
    del place[last]
    assert f"needs the key {key!r}, and it is not given" in message(write(yaml.safe_dump(content)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("\tx: 1", "is not YAML"),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
        ("name: a\nname: b", "key 'name' stands twice"),
        ("training: {batch_size: 1, batch_size: 2}", "key 'batch_size' stands twice"),
        ("a: 2024-99-99", "is not YAML"),
        ("- 1\n- 2", "a recipe is a YAML mapping, got list"),
        ("just text", "a recipe is a YAML mapping, got str"),
        ("", "a recipe is a YAML mapping, got NoneType"),
        ("1: 2", "recipe.yaml: 1 is 1: keys should be strings"),
        ("nam: a", "recipe.yaml: no key 'nam'; did you mean 'name'?"),
        ("? [a, b]\n: 1", "is not YAML"),
    ],
)
def test_files_that_are_no_recipe(write: Callable[[str], Path], text: str, says: str) -> None:
    assert says in message(write(text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in message(tmp_path / "nowhere.yaml")
    assert "Is a directory" in message(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x81")
    assert "is not UTF-8 text" in message(binary)


def test_plain_data_says_that_it_is_a_recipe() -> None:
    with pytest.raises(ConfigError, match=r"^recipe: no key 'sede'; did you mean 'seed'\?"):
        parse_recipe({**SMALL, "sede": 1})


def test_assignments_read_yaml() -> None:
    assert read_assignment("a=[1, 2.5, x]") == ("a", [1, 2.5, "x"])
    assert read_assignment("a=") == ("a", None)
