"""Routes: a router's logits, files, budgets and bundle, on a trained family."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snugnet import bundles
from snugnet.bundles import ROUTER, index_checksum
from snugnet.data import ImageSet
from snugnet.deploy import FileOptions, onnx_bytes, onnx_difference, onnx_session
from snugnet.errors import BudgetError, ConfigError, FamilyError, SpaceError
from snugnet.family import Family
from snugnet.family.networks import Specialized
from snugnet.nn.network import told
from snugnet.routing import Made, Router, make_route, run
from snugnet.routing.bundle import write_route
from snugnet.routing.scorer import RouterScorer
from snugnet.spaces.blueprint import Superclasses

GROUPS = {"round": ("0", "6", "8", "9"), "five": ("5",), "others": ("1", "7", "2")}  # 3 and 4 are left out


@pytest.fixture(scope="module")
def made(family: Family) -> Made:
    return make_route(family, GROUPS, evaluations=5, progress=False, madds="40%")


@pytest.fixture(scope="module")
def bundle(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_route(made, tmp_path_factory.mktemp("bundle") / "route", {})


def _or_killed(left: Any) -> Any:
    """The next way to write, or a kill where there is none left."""
    for each in left:
        return each
    raise KeyboardInterrupt


def bytes_of(images: ImageSet) -> np.ndarray:
    return images.pixels(slice(None)).permute(0, 2, 3, 1).contiguous().numpy()


@given(st.lists(st.integers(1, 4), min_size=2, max_size=5), st.integers(0, 1000), st.sampled_from([0.1, 5.0, 80.0]))
def test_a_superclass_has_the_probability_of_its_classes(sizes: list[int], seed: int, scale: float) -> None:
    logits = scale * torch.randn(3, sum(sizes), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    summed = told(logits, Superclasses(tuple(sizes), "sum"))
    parts = logits.softmax(1).split(sizes, 1)
    expected = torch.stack([part.sum(1) for part in parts], 1)
    assert torch.allclose(summed - logits.logsumexp(1, keepdim=True), expected.log(), atol=1e-9)
    largest = told(logits, Superclasses(tuple(sizes), "max"))
    superclass = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    assert torch.equal(largest.argmax(1), superclass[logits.argmax(1)])  # the class with the largest logit is in it
    assert torch.equal(largest.amax(1), logits.amax(1))
    assert torch.equal(told(logits, None), logits)


@pytest.mark.parametrize("over", ["sum", "max"])
@pytest.mark.parametrize("opset", [14, 17, 21])
def test_the_file_tells_the_superclasses_that_torch_tells(family: Family, over: Any, opset: int) -> None:
    classes = [name for each in GROUPS.values() for name in each]
    network = family.specialize(classes, madds="30%")
    router = Router.of(network, GROUPS, over)
    content = onnx_bytes(router.module, router.metadata(), FileOptions(opset=opset))
    assert onnx_difference(router.module, content) < 1e-4
    images, _ = router.pictures(family.validation).arrays()
    (got,) = onnx_session(content).run(None, {"image": images})
    assert got.shape == (len(images), 3)
    with torch.no_grad():
        assert np.allclose(got, told(network.module(torch.from_numpy(images)), router.superclasses), atol=1e-4)
    # nothing is counted for it, and the layers are those that are counted
    assert router.blueprint.madds == network.costs["madds"] == network.blueprint.madds
    assert f"each the {over} over its own" in str(router.blueprint)
    assert router.blueprint.with_classes(4).superclasses is None
    with pytest.raises(SpaceError, match="are not those of 8 outputs"):
        network.blueprint.with_superclasses(Superclasses((4, 3), "sum"))


def test_a_route_keeps_its_budget_and_says_what_is_expected(family: Family, made: Made) -> None:
    route, limit = made.route, made.limits["madds"]
    assert set(route.networks) == {"round", "others"}  # of one class nothing is left to tell
    assert max(route.madds.values()) <= limit
    assert 5 < made.evaluated <= 10  # the generator's at each share, and another
    assert {each.share for each in made.tried} == {0, 0.25, 0.5, 0.75, 1}
    best = max(each.validation.top1 for each in made.tried)
    assert made.best.validation.top1 == best
    judged, said = made.best.validation, route.answers(family.validation)
    own = family.validation.of_classes(route.router.class_indices)
    assert judged.images == len(own) == len(said.top1)
    # by the layers of the very networks, image by image
    madds = dict.fromkeys(GROUPS, route.router.blueprint.madds)
    for name, network in route.networks.items():
        madds[name] += network.blueprint.madds
        assert network.group == name
    spent = sum(madds[list(GROUPS)[g]] for g in said.superclass.tolist())
    assert judged.madds * judged.images == pytest.approx(spent, abs=1e-3)
    assert route.madds == madds
    classes = route.router.classes
    for g, name in zip(said.superclass.tolist(), [classes[i] for i in said.top1.tolist()], strict=True):
        assert name in GROUPS[list(GROUPS)[g]]  # what is told lies in the superclass that was told
    assert judged.top1 <= judged.router
    assert judged.top1 == int((said.top1 == said.right).sum()) / judged.images
    assert all(each.validation.router >= each.generator_router for each in made.tried)  # it is judged too
    for name, network in made.one_network.items():
        assert name in ("generator", "search")
        assert network.costs["madds"] <= limit
        assert network.classes == classes


def test_a_candidate_is_judged_as_the_router_that_is_handed_out(family: Family, made: Made) -> None:
    indices = [[family.classes.index(name) for name in classes] for classes in GROUPS.values()]
    scorer = RouterScorer(
        family.supernet, family.calibration_batches, family.validation, indices, family.mean, family.std
    )
    (score,) = scorer(made.route.router.row[None])
    assert score[0] == max(score[1:])
    at = 1 + ("sum", "max").index(made.route.router.over)
    n = made.best.validation.images
    assert score[at] == pytest.approx(made.best.validation.router, abs=1.01 / n)
    assert scorer(family.space.smallest[:0]).shape == (0, 3)


def test_the_runner_answers_as_the_library_does(family: Family, made: Made, bundle: Path, tmp_path: Path) -> None:
    said = made.route.answers(family.validation)
    images = bytes_of(family.validation.of_classes(made.route.router.class_indices))
    answers = run.Route(bundle).answers(images)
    names, classes = list(GROUPS), made.route.router.classes
    alike = [
        (each.label, each.superclass, each.madds) == (classes[c], names[g], made.route.madds[names[g]])
        for each, c, g in zip(answers, said.top1.tolist(), said.superclass.tolist(), strict=True)
    ]
    assert sum(alike) >= len(alike) - 1  # two logits may be equal but for rounding
    # by itself: the file in the folder, in a Python that is told nothing of this package, on bytes and on a picture
    from PIL import Image

    np.save(tmp_path / "three.npy", images[:3])
    Image.fromarray(images[3]).save(tmp_path / "a.png")
    command = [sys.executable, "-I", bundle / "run.py", tmp_path / "three.npy", tmp_path / "a.png", "--json"]
    done = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert [(each["label"], each["madds"]) for each in done["images"]] == [(a.label, a.madds) for a in answers[:4]]
    assert done["mean_madds"] == pytest.approx(sum(each.madds for each in answers[:4]) / 4)
    index = json.loads((bundle / "router.json").read_text())
    assert index["classes_left_out"] == ["3", "4"]
    assert index["superclasses"]["five"]["file"] is None
    assert {run.FORMAT, run.VERSION} == {f"snugnet-{ROUTER.kind}", ROUTER.version}
    assert "snugnet" not in {line.split()[1] for line in (bundle / "run.py").read_text().splitlines() if line.startswith(("import ", "from "))}  # fmt: skip


def test_a_bundle_that_is_damaged_or_of_another_version_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "image.npy", np.zeros((1, 8, 8, 3), np.uint8))

    def refused(change: Any, image: str = "image.npy") -> str:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        folder = shutil.copytree(bundle, tmp_path / "copy")
        change(folder)
        assert run.main([str(tmp_path / image), "--bundle", str(folder)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err

    def index(**changes: Any) -> Any:
        def change(folder: Path, checked: bool = changes.pop("checked", True)) -> None:
            own = json.loads((folder / "router.json").read_text())
            del own["sha256"]
            own.update(changes)
            own["sha256"] = index_checksum(own) if checked else "0"
            (folder / "router.json").write_text(json.dumps(own))

        return change

    def file(content: bytes | None) -> Any:
        def change(folder: Path) -> None:
            path = next(folder.glob("3-others-*.onnx"))
            path.write_bytes(content) if content is not None else path.unlink()

        return change

    assert "lacks 3-others-" in refused(file(None))
    assert "truncated or altered" in refused(file(b"short"))
    assert "of version 2, this runner takes 1" in refused(index(version=2))
    assert "not the index of a router" in refused(index(format="snugnet-family"))
    assert "was altered" in refused(index(checked=False))
    assert "cannot read" in refused(lambda folder: (folder / "router.json").unlink())
    assert "cannot read" in refused(lambda folder: (folder / "router.json").write_text("{"))
    assert "No such file" in refused(lambda folder: None, "nowhere.png")
    np.save(tmp_path / "large.npy", np.zeros((1, 9, 9, 3), np.uint8))
    assert "of shape (n, 8, 8, 3), got uint8 (1, 9, 9, 3)" in refused(lambda folder: None, "large.npy")
    np.save(tmp_path / "none.npy", np.uint8(3))
    assert "holds no images" in refused(lambda folder: None, "none.npy")
    (tmp_path / "text.npy").write_text("no array")
    assert "no file of numpy's, or damaged" in refused(lambda folder: None, "text.npy")
    assert "lists no files" in refused(index(files=None))


def test_a_writer_that_is_killed_leaves_the_old_bundle_or_none(
    made: Made, family: Family, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = make_route(family, ["round", "curvy"], share=0.0, evaluations=0, progress=False, madds="10%")
    assert small.evaluated == 1
    assert list(small.one_network) == ["generator"]
    image = bytes_of(family.validation)[:1]
    before, write = run.Route(bundle).answers(image), bundles.write_atomically
    for stopped_at in (1, 3):  # of the router, two networks, the index
        old, new = shutil.copytree(bundle, tmp_path / f"old-{stopped_at}"), tmp_path / f"new-{stopped_at}"
        for folder in (old, new):
            left = iter([write] * stopped_at)
            monkeypatch.setattr(bundles, "write_atomically", lambda path, content, left=left: _or_killed(left)(path, content))  # fmt: skip
            with pytest.raises(KeyboardInterrupt):
                write_route(small, folder, {})
        assert run.Route(old).answers(image) == before
        with pytest.raises(run.RunError, match="cannot read"):
            run.Route(new)
    monkeypatch.setattr(bundles, "write_atomically", write)
    for folder in (old, new):
        write_route(small, folder, {})
        assert set(run.Route(folder).index["superclasses"]) == {"round", "curvy"}
        assert len(list(folder.glob("*.onnx"))) == 3
    for name in ("notes.txt", "run.py", "router.json"):
        (tmp_path / f"of {name}").mkdir()
        (tmp_path / f"of {name}" / name).write_text("{}")
        with pytest.raises(ConfigError, match=rf"holds {name}, which is not of a router"):
            write_route(small, tmp_path / f"of {name}", {})
        assert [path.read_text() for path in (tmp_path / f"of {name}").iterdir()] == ["{}"]


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "LA", "P", "I;16"])
def test_image_files_are_read_as_they_were_for_training(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    from snugnet.data.images import decode_image

    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
    image, more = Image.fromarray(pixels).convert("P" if mode == "P" else mode.replace("I;16", "L")), {}
    if mode == "P":
        more = {"transparency": 3}
    if mode == "I;16":
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    image.save(tmp_path / "image.png", **more)
    if mode == "I;16":
        with pytest.raises(run.RunError, match="more than 8 bits"):
            run.read_image(tmp_path / "image.png", 8)
        return
    expected = decode_image(tmp_path / "image.png", 8).transpose(1, 2, 0)
    np.testing.assert_array_equal(run.read_image(tmp_path / "image.png", 8), expected)


def test_budgets_of_files_and_of_memory(family: Family) -> None:
    limits = {"madds": "60%", "params": "50%", "peak_memory": "90%"}
    made = make_route(family, evaluations=0, share=0.5, progress=False, **limits)
    every: list[Specialized] = [made.route.router, *made.route.networks.values()]
    assert sum(network.costs["params"] for network in every) <= made.limits["params"]
    assert max(network.costs["peak_memory"] for network in every) <= made.limits["peak_memory"]
    assert max(made.route.madds.values()) <= made.limits["madds"]


def test_each_share_of_a_loose_budget_judges_routers_of_its_own(family: Family) -> None:
    """Of as many draws with one seed, three of four would be of architectures that another share has judged."""
    made = make_route(family, GROUPS, over="sum", evaluations=30, progress=False, madds="100%")
    assert 24 <= made.evaluated <= 30


def test_the_smallest_route_is_named_and_can_be_had(family: Family) -> None:
    router = family.cost_range("madds")[0]
    behind = max(family.cost_range("madds", group)[0] for group in family.groups)
    least = int(router + behind)
    with pytest.raises(BudgetError, match=f"feasible: {least:,} .{int(router):,} for the router, {int(behind):,} behind it"):  # fmt: skip
        make_route(family, madds=least - 1)
    made = make_route(family, evaluations=0, share=0.5, progress=False, madds=least)
    assert max(made.route.madds.values()) == least


@pytest.mark.parametrize(
    ("groups", "budgets", "error", "says"),
    [
        ({"a": ["0", "1"], "b": ["1", "2"]}, {"madds": "50%"}, ConfigError, "class '1' is in superclasses 'a' and 'b'"),
        (["round"], {"madds": "50%"}, ConfigError, "at least two superclasses apart, got round"),
        (["round", "round"], {"madds": "50%"}, ConfigError, "'round' is named twice"),
        (["round", "square"], {"madds": "50%"}, FamilyError, "no group 'square'; groups: round"),
        ({"a": ["0"], "b": ["x"]}, {"madds": "50%"}, FamilyError, "no class 'x'"),
        ({"a": ["0"], "b": []}, {"madds": "50%"}, ConfigError, "'b' has no class"),
        ({"a": ["0", "0"], "b": ["1"]}, {"madds": "50%"}, ConfigError, "class '0' is named twice in superclass 'a'"),
        ({"": ["0"], "b": ["1"]}, {"madds": "50%"}, ConfigError, "a superclass has no name"),
        ({"\u00e9": ["0"], "e\u0301": ["1"]}, {"madds": "50%"}, ConfigError, "'\u00e9' is named twice"),
        (None, {"bitops": 1e9}, BudgetError, "bitops is 0 of every route, so there is nothing to share out"),
        (None, {}, BudgetError, "shares out a budget; give one"),
        (None, {"peak_memory": "50%"}, BudgetError, "shares out a budget; give one"),
        (None, {"watts": 3}, BudgetError, "no cost 'watts'"),
    ],
)
def test_what_is_no_router_is_refused(
    family: Family, groups: Any, budgets: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        make_route(family, groups, progress=False, **budgets)


def test_a_cost_of_which_it_is_not_known_how_it_adds_up(family: Family) -> None:
    from snugnet.routing import budgets

    table = family.table("madds", 10)
    with pytest.raises(BudgetError, match="not known how layers adds up over a route; costs along it: madds, "):
        budgets._kind("layers", table)
    assert budgets._kind("latency_ms@pixel", table) == "along"
