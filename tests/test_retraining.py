"""From a family to a network of its own, for every space: what it is trained on, what is kept, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from tiny_spaces import TINY_SPACES

import snugnet
from snugnet import pipeline, retraining
from snugnet.bundles import index_checksum
from snugnet.data import GroupedImages, load_data
from snugnet.errors import BudgetError, ConfigError, DataError, FamilyError, NetworkError, SnugnetError, SpaceError
from snugnet.family import Family, StoredNetwork, load_network, stored
from snugnet.nn.network import module_name
from snugnet.nn.quantise import weight_codes
from snugnet.recipe import load_recipe, parse_recipe
from snugnet.supernets import Supernet
from snugnet.training.calibration import accuracy

FIXED = ("resolution", "num_classes", "in_channels")
FAST = ("retraining.inherited.batch_size=40", "retraining.scratch.batch_size=40")


def untrained(space: str, **data: Any) -> Family:
    """A family of a space on the digits, its weights those of the start."""
    options = {key: value for key, value in TINY_SPACES[space].items() if key not in FIXED}
    resolution = max(8, *TINY_SPACES[space].get("resolutions", (9,)))
    content = {
        "name": "tiny", "output": "unused", "device": "cpu",
        "data": {"source": "digits", "groups": "digits", "resolution": resolution, "train_rows": 200, **data},
        "space": {"name": space, **options},
        "training": {"batch_size": 64, "stages": [{"name": "largest", "epochs": 1, "learning_rate": 0.1}]},
        "evaluation": {"calibration_images": 64, "validation_images": 20},
    }  # fmt: skip
    if "resolutions" in TINY_SPACES[space]:
        content["space"]["resolutions"] = list(TINY_SPACES[space]["resolutions"])  # type: ignore[index]
    recipe = parse_recipe(content)
    images = load_data(recipe.data, progress=False)
    made = pipeline.make_space(recipe, images)
    generator = pipeline.make_generator(recipe, made, images)
    return pipeline.make_family(recipe, images, Supernet(made, seed=3), generator, {})


@pytest.fixture(scope="module")
def family() -> Family:
    return untrained("ofa-mobilenet-v3")


@pytest.fixture(scope="module")
def data(family: Family) -> GroupedImages:
    return load_data(parse_recipe(family.provenance["recipe"]).data, progress=False)


def same(one: StoredNetwork, other: StoredNetwork) -> bool:
    return one.weights.keys() == other.weights.keys() and all(
        torch.equal(one.weights[name], other.weights[name]) for name in one.weights
    )


@pytest.mark.parametrize("space", TINY_SPACES)
@pytest.mark.parametrize("start", ["inherited", "scratch"])
def test_every_space(space: str, start: Any, tmp_path: Path) -> None:
    family = untrained(space)
    low, high = family.cost_range("madds", "curvy")
    budget = (low + high) / 2
    made = snugnet.retrain(
        family, group="curvy", madds=budget, start=start, epochs=2, overrides=FAST, out=tmp_path / "one", progress=False
    )
    assert made.classes == ("2", "3", "5")
    assert made.costs["madds"] == made.blueprint.madds <= budget
    assert made.costs["params"] == made.blueprint.params
    assert (made.row == family.specialize("curvy", madds=budget).row).all()
    assert 0 <= made.validation_accuracy <= 1  # type: ignore[operator]
    loaded = snugnet.load(tmp_path / "one")
    assert isinstance(loaded, StoredNetwork)
    assert same(made, loaded) or made.blueprint.quantised
    for name in ("group", "classes", "arch", "costs", "budgets", "provenance", "blueprint"):
        assert getattr(loaded, name) == getattr(made, name), name
    size = loaded.blueprint.resolution
    x = torch.randn(3, 3, size, size)
    assert torch.equal(loaded.module(x), made.module(x))
    assert loaded.export(tmp_path / "net.onnx").is_file()
    before = family.network("curvy", made.row).module.state_dict()
    assert any(not torch.equal(before[name], made.weights[name]) for name in before)


def test_quantised_weights_take_their_bits_on_disk_and_are_the_same_function(tmp_path: Path) -> None:
    family = untrained("resnet-mixed-precision")
    made = snugnet.retrain(
        family, group="curvy", bitops="60%", start="scratch", epochs=2, overrides=FAST, out=tmp_path, progress=False
    )
    index = json.loads((tmp_path / "network.json").read_text())
    held = safetensors.torch.load_file(tmp_path / index["files"]["weights.safetensors"]["file"])
    layers = {
        f"{module_name(block)}.{layer.name}": layer
        for block in made.blueprint.blocks
        for layer in block.all_layers
        if layer.weight_bits
    }
    assert layers
    loaded = load_network(tmp_path)
    for name, layer in layers.items():
        weights = made.weights[f"{name}.conv.weight"]
        assert f"{name}.conv.weight" not in held
        assert held[f"{name}.conv.codes"].nbytes == -(-weights.numel() * layer.weight_bits // 8)
        back = weight_codes(loaded.weights[f"{name}.conv.weight"], layer.weight_bits)
        assert torch.equal(back.codes, weight_codes(weights, layer.weight_bits).codes)
        assert len(back.values.unique()) <= 2**layer.weight_bits
    assert index["bytes"] == made.sizes
    assert made.sizes["stored"] == sum(tensor.nbytes for tensor in held.values()) < made.sizes["float32"]
    x = torch.randn(8, 3, *[made.blueprint.resolution] * 2)
    assert torch.equal(loaded.module(x), made.module(x))
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again" / "network.json").read_text() == (tmp_path / "network.json").read_text()
    count = len(made.arch["weight_bits"])
    other_bits = {**made.arch, "weight_bits": [4] * count, "activation_bits": [4] * count}
    assert other_bits != made.arch
    for key, value, words in (
        ("architecture", other_bits, "bits take"),
        ("costs", {**made.costs, "madds": made.costs["madds"] + 1}, "madds .* is not that of its architecture"),
        ("costs", {**made.costs, "bitops": "x"}, "bitops 'x' is not that"),
    ):
        foreign = {name: each for name, each in index.items() if name != "sha256"} | {key: value}
        (tmp_path / "network.json").write_text(json.dumps({**foreign, "sha256": index_checksum(foreign)}))
        with pytest.raises(NetworkError, match=f"holds no whole network .*{words}"):
            load_network(tmp_path)


def test_a_quantised_network_that_was_kept_in_float_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = untrained("resnet-mixed-precision")
    monkeypatch.setattr(stored, "packed_state", lambda blueprint, state: state)
    made = snugnet.retrain(family, group="curvy", bitops="60%", epochs=1, overrides=FAST, out=tmp_path, progress=False)
    assert same(made, load_network(tmp_path))


def test_an_architecture_for_all_classes_or_for_some(family: Family, data: GroupedImages, tmp_path: Path) -> None:
    row = family.space.sample(1, np.random.default_rng(0))[0]
    arch = family.space.to_dict(row)
    whole = snugnet.retrain(family, arch=arch, epochs=1, out=tmp_path / "all", data=data, progress=False)
    some = snugnet.retrain(
        family, arch=arch, group=["7", "1"], epochs=1, out=tmp_path / "two", data=data, progress=False
    )
    assert (whole.classes, some.classes) == (family.classes, ("7", "1"))
    assert whole.arch == some.arch == arch
    assert whole.costs["madds"] == family.space.blueprint(row).madds
    assert some.costs["madds"] < whole.costs["madds"]


def test_images_of_the_classes_alone_in_their_order_with_the_family_s_normalisation(
    family: Family, data: GroupedImages
) -> None:
    found = family.specialize(["8", "0", "6"])
    recipe = retraining.retraining_recipe(family, "inherited", None, ())
    loaded = retraining.class_images(found, recipe, None, progress=False)
    given = retraining.class_images(found, recipe, data, progress=False)
    for name in ("train", "validation"):
        one, other, whole = getattr(loaded, name), getattr(given, name), getattr(data, name)
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        wanted = [i for i, label in enumerate(whole.labels.tolist()) if data.classes[label] in ("8", "0", "6")]
        assert torch.equal(one.images, whole.images[wanted])
        names = [data.classes[label] for label in whole.labels[wanted].tolist()]
        assert [("8", "0", "6")[place] for place in one.labels.tolist()] == names
    assert (loaded.mean, loaded.std) == (family.mean, family.std)


def test_classes_in_another_order_are_matched_by_name(family: Family, data: GroupedImages) -> None:
    turned = GroupedImages(**{**vars(data), "classes": data.classes[::-1]})
    recipe = retraining.retraining_recipe(family, "inherited", None, ())
    images = retraining.class_images(family.specialize(["9", "0"]), recipe, turned, progress=False)
    names = [turned.classes[label] for label in turned.train.labels.tolist()]
    wanted = [i for i, name in enumerate(names) if name in ("9", "0")]
    assert [("9", "0")[place] for place in images.train.labels.tolist()] == [names[i] for i in wanted]


def test_test_images_are_never_decoded(family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    real = retraining.load_split

    def watched(config: Any, name: str, **options: Any) -> Any:
        asked.append(name)
        return real(config, name, **options)

    monkeypatch.setattr(retraining, "load_split", watched)
    monkeypatch.setattr("snugnet.data.dataset.load_data", lambda *_, **__: pytest.fail("all splits were loaded"))
    snugnet.retrain(family, group="round", best_of=3, epochs=1, out=tmp_path, progress=False)
    assert asked == ["train", "validation"]


def test_what_is_said_about_accuracies_is_so(family: Family, data: GroupedImages, tmp_path: Path) -> None:
    made = snugnet.retrain(family, group="round", epochs=2, out=tmp_path, data=data, progress=False)
    found = family.network("round", made.row)
    resolution = made.blueprint.resolution
    about = made.provenance
    for said, module in (("start", found.module), ("accuracy", made.module)):
        batches = family.batches(data.validation, made.class_indices, resolution)
        assert about["validation"][said] == accuracy(module, batches)
    assert made.validation_accuracy == about["validation"]["accuracy"]
    labels = [data.classes[label] for label in data.train.labels.tolist()]
    assert about["images"]["train"] == sum(label in made.classes for label in labels)
    assert about["settings"]["learning_rate"] == pytest.approx(0.16 * 64 / 1024)


def test_the_same_retraining_gives_the_same_weights_and_goes_on_with_its_own(family: Family, tmp_path: Path) -> None:
    given: dict[str, Any] = {"group": "round", "epochs": 1, "progress": False}
    one = snugnet.retrain(family, out=tmp_path / "a", **given)
    assert same(one, snugnet.retrain(family, out=tmp_path / "b", **given))
    stamp = (tmp_path / "a" / "network.ckpt.safetensors").stat().st_mtime_ns
    assert same(one, snugnet.retrain(family, out=tmp_path / "a", **given))
    assert (tmp_path / "a" / "network.ckpt.safetensors").stat().st_mtime_ns == stamp
    scratch = snugnet.retrain(family, out=tmp_path / "a", start="scratch", fresh=True, **given)
    assert not same(one, scratch)
    assert scratch.provenance["validation"]["start"] is None


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"epochs": 2}, r"settings\.epochs"),
        ({"group": "straight"}, "classes"),
        ({"start": "scratch"}, "start"),
        ({"overrides": ["seed=5"]}, "seed"),
        ({"overrides": ["augment.flip=true"]}, r"augment\.flip"),
        ({"overrides": ["data.train_rows=150"]}, "images"),
    ],
)
def test_another_retraining_s_checkpoint_is_refused_and_kept(
    family: Family, tmp_path: Path, changes: dict[str, Any], names: str
) -> None:
    given: dict[str, Any] = {"group": "round", "epochs": 1, "out": tmp_path, "progress": False}
    snugnet.retrain(family, **given)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(SnugnetError, match=f"another retraining .not the same .*{names}"):
        snugnet.retrain(family, **{**given, **changes})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_network_without_its_checkpoint_is_not_written_over(family: Family, tmp_path: Path) -> None:
    made = snugnet.retrain(family, group="round", madds="30%", epochs=1, out=tmp_path / "one", progress=False)
    folder = made.save(tmp_path / "bare")
    before = (folder / "network.json").read_text()
    with pytest.raises(ConfigError, match="bare holds a network already; give another --out, or --fresh"):
        snugnet.retrain(family, group="round", madds="60%", epochs=1, out=folder, progress=False)
    assert (folder / "network.json").read_text() == before
    snugnet.retrain(family, group="round", madds="60%", epochs=1, out=folder, fresh=True, progress=False)
    assert (folder / "network.json").read_text() != before


def test_other_weights_of_the_family_are_another_retraining(tmp_path: Path) -> None:
    family = untrained("mobilenet-v2")
    given: dict[str, Any] = {"group": "round", "epochs": 1, "progress": False}
    snugnet.retrain(family, out=tmp_path / "inherited", **given)
    snugnet.retrain(family, out=tmp_path / "scratch", start="scratch", **given)
    with torch.no_grad():
        next(family.supernet.parameters()).mul_(1.5)
    with pytest.raises(SnugnetError, match=r"not the same family\)"):
        snugnet.retrain(family, out=tmp_path / "inherited", **given)
    snugnet.retrain(family, out=tmp_path / "scratch", start="scratch", **given)  # does not depend on them


def as_searched(network: StoredNetwork) -> StoredNetwork:
    """The same network as a differentiable search leaves it: never trained, with a recipe that knows no family."""
    keys = ("seed", "device", "precision", "threads", "data", "augment", "space", "retraining")
    recipe = {key: network.provenance["recipe"][key] for key in keys}
    about = {"recipe": recipe, "start": "untrained", "validation": {"start": None, "accuracy": None}}
    return replace(network, provenance=about)


AS_DARTS = (
    "augment.cutout=4", "retraining.scratch.drop_path=0.2", "retraining.scratch.auxiliary=0.4", "retraining.scratch.clip=5",
    "retraining.scratch.nesterov=false", "retraining.scratch.batch_size=40",
)  # fmt: skip


@pytest.mark.parametrize("space", ["darts", "nas-bench-201"])
def test_a_cell_that_was_searched_is_trained_from_scratch(space: str, tmp_path: Path) -> None:
    """From a network on disk whose recipe knows no family; stopped or not, the same weights."""
    family = untrained(space)
    arch = family.space.to_dict(family.space.largest)
    made = snugnet.retrain(family, arch=arch, start="scratch", epochs=1, overrides=FAST, out=tmp_path / "f",
                           progress=False)  # fmt: skip
    found = as_searched(made)
    found.save(tmp_path / "found")
    given: dict[str, Any] = {"start": "scratch", "epochs": 2, "overrides": AS_DARTS, "progress": False}
    one = snugnet.retrain(tmp_path / "found", out=tmp_path / "one", **given)
    assert same(one, snugnet.retrain(found, out=tmp_path / "two", **given))
    assert (one.arch, one.classes, one.costs) == (found.arch, found.classes, found.costs)
    assert one.provenance["network"] == found.provenance
    settings = one.provenance["settings"]
    assert {key: settings[key] for key in ("drop_path", "auxiliary", "clip", "nesterov", "distillation")} == {
        "drop_path": 0.2, "auxiliary": 0.4, "clip": 5, "nesterov": False, "distillation": 0
    }  # fmt: skip
    loaded = load_network(tmp_path / "one")
    assert same(one, loaded)
    assert not any("head.0" in name or "auxiliary" in name for name in loaded.weights)
    assert loaded.weights.keys() == found.weights.keys()
    plain = snugnet.retrain(found, out=tmp_path / "plain", **{**given, "overrides": FAST})
    assert not same(one, plain)
    with pytest.raises(ConfigError, match="never trained; train it --from scratch"):
        snugnet.retrain(found, out=tmp_path / "three", progress=False)


def test_a_network_is_fine_tuned_on_labels_alone(family: Family, data: GroupedImages, tmp_path: Path) -> None:
    first = snugnet.retrain(family, group="round", madds="60%", start="scratch", epochs=3, out=tmp_path / "first",
                            data=data, progress=False)  # fmt: skip
    before = {name: tensor.clone() for name, tensor in first.weights.items()}
    given: dict[str, Any] = {"epochs": 1, "data": data, "progress": False, "out": tmp_path / "second"}
    second = snugnet.retrain(first, **given)
    assert all(torch.equal(first.weights[name], before[name]) for name in before)  # it is trained on a copy
    assert not same(first, second)
    assert second.provenance["validation"]["start"] == first.validation_accuracy
    assert second.provenance["settings"]["distillation"] == 0
    assert second.provenance["recipe"]["retraining"]["inherited"]["distillation"] == 0
    assert (second.classes, second.arch, second.budgets) == (first.classes, first.arch, first.budgets)
    stamp = (tmp_path / "second" / "network.ckpt.safetensors").stat().st_mtime_ns
    assert same(second, snugnet.retrain(tmp_path / "first", **given))
    assert (tmp_path / "second" / "network.ckpt.safetensors").stat().st_mtime_ns == stamp
    next(iter(first.module.parameters())).mul_(1.5)
    with pytest.raises(SnugnetError, match=r"not the same network\)"):
        snugnet.retrain(first, **given)


def test_what_is_not_for_a_network(family: Family, data: GroupedImages, tmp_path: Path) -> None:
    made = snugnet.retrain(family, group="round", epochs=1, out=tmp_path / "made", data=data, progress=False)

    def refused(error: type[Exception], says: str, **given: Any) -> None:
        with pytest.raises(error, match=says):
            snugnet.retrain(made, **{"out": tmp_path / "net", "progress": False, **given})

    for given in ({"group": "round"}, {"arch": made.arch}, {"madds": "50%"}, {"best_of": 2}):
        refused(ConfigError, "tiny is one network; architectures, classes, budgets and --best-of choose", **given)
    refused(ConfigError, "one network, without a teacher: retraining.inherited.distillation=0 is what it takes",
            overrides=["retraining.inherited.distillation=0.5"])  # fmt: skip
    refused(ConfigError, r"retraining\.scratch\.auxiliary: no place .* known in ofa-mobilenet-v3, but in darts, "
            "nas-bench-201; give 0", start="scratch", overrides=["retraining.scratch.auxiliary=0.4"])  # fmt: skip
    refused(ConfigError, r"data\.test cannot be changed", overrides=["data.test=0.5"])
    refused(ConfigError, "cutout is 10 pixels a side, and images have 9", overrides=["augment.cutout=10"])
    assert not (tmp_path / "net").exists()
    with pytest.raises(ConfigError, match="is what would be retrained; give the network another folder"):
        snugnet.retrain(tmp_path / "made", out=tmp_path / "made", fresh=True, progress=False)
    assert same(made, load_network(tmp_path / "made"))


def test_wrong_input(family: Family, tmp_path: Path) -> None:
    def refused(error: type[Exception], says: str, **given: Any) -> None:
        with pytest.raises(error, match=says):
            snugnet.retrain(family, **{"out": tmp_path / "net", "progress": False, **given})

    refused(ConfigError, "give an architecture, or a group")
    refused(ConfigError, "from inherited or scratch, got 'teacher'", group="round", start="teacher")
    refused(FamilyError, "no group 'square'; groups: ", group="square")
    refused(BudgetError, "feasible: ", group="round", madds=10)
    refused(BudgetError, "no cost 'joules'; costs: madds", group="round", joules=1)
    arch = family.space.to_dict(family.space.smallest)
    refused(ConfigError, "nothing is to be found under madds", arch=arch, madds="1M")
    other = snugnet.get_space("mobilenet-v2")
    refused(SpaceError, "no architecture of tiny's space ofa-mobilenet-v3: ", arch=other.to_dict(other.smallest))
    refused(ConfigError, "training.batch_size cannot be changed.*allowed: seed, device", group="round",
            overrides=["training.batch_size=4"])  # fmt: skip
    refused(ConfigError, r"data\.seed cannot be changed: images that were trained on", group="round",
            overrides=["data.seed=1"])  # fmt: skip
    refused(ConfigError, r"data\.validation cannot be changed", group="round",
            overrides=["data={source: digits, resolution: 9, groups: digits, validation: 0.3}"])  # fmt: skip
    refused(ConfigError, "images of 9 pixels, not 12", group="round", overrides=["data.resolution=12"])
    refused(
        ConfigError, r"retraining\.scratch\.schedule", group="round", overrides=["retraining.scratch.schedule=step"]
    )
    refused(ConfigError, r"retraining\.inherited\.epochs", group="round", epochs=0)
    refused(DataError, r"say where with data\.source=", group="round", overrides=["data.source=gone.parquet"])
    refused(ConfigError, "not the classes of tiny", group="round",
            overrides=["data.groups={a: ['0', '1'], b: ['2', '3']}", "data.ungrouped=drop"])  # fmt: skip
    assert not (tmp_path / "net").exists()
    folder = family.save(tmp_path / "family")
    refused(ConfigError, "holds a family; give the network another folder", group="round", out=folder)


def test_a_recipe_says_how_networks_are_retrained() -> None:
    recipe = load_recipe(Path(__file__).parents[1] / "recipes" / "quickstart.yaml", ["retraining.scratch.epochs=5"])
    assert recipe.retraining.scratch.epochs == 5
    assert recipe.retraining.inherited.distillation == 1
    with pytest.raises(ConfigError, match="warmup_epochs"):
        load_recipe(
            Path(__file__).parents[1] / "recipes" / "quickstart.yaml", ["retraining.inherited.warmup_epochs=50"]
        )
