"""What the service says, beside what the family says from Python."""

from __future__ import annotations

import json
import logging
import shutil
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import torch
from measured import rows_of, write_rows
from PIL import Image

from snugnet.cli.specialize import describe
from snugnet.deploy.sessions import onnx_session
from snugnet.family import Family, load_family
from snugnet.family.ranges import feasible_ranges
from snugnet.profiling.measuring import import_measured, needed_widths

NETWORKS = "families/digits/networks"


def post(service: httpx.Client, **body: Any) -> httpx.Response:
    """Ask for networks."""
    return service.post(NETWORKS, json=body)


def problem(answer: httpx.Response, status: int) -> str:
    """The words of a problem."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert {"type", "title", "detail"} <= document.keys()
    return str(document["detail"])


def png(seed: int, side: int = 20) -> bytes:
    """An image file."""
    buffer = BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def files_made(service: httpx.Client) -> float:
    """How many files were made so far."""
    lines = service.get("metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('snugnet_files_total{place="made"'))


# -- families ----------------------------------------------------------------------------------------------------------


def test_families_and_groups(service: httpx.Client, family: Family) -> None:
    good, bad = service.get("families").json()["families"]
    assert good == {"name": "digits", "available": True, "reason": None}
    assert (bad["name"], bad["available"]) == ("broken", False)
    assert "family.json is damaged" in bad["reason"]
    assert "family.json is damaged" in problem(service.get("families/broken"), 503)
    assert problem(service.get("families/none"), 404) == "there is no family 'none' here; families: digits, broken"
    found = service.get("families/digits").json()
    assert found["groups"] == {name: list(classes) for name, classes in family.groups.items()}
    assert found["classes"] == list(family.classes)
    for name, cost in found["costs"].items():
        assert (cost["low"], cost["high"]) == family.cost_range(name)


def test_ranges_move_with_other_budgets(service: httpx.Client, family: Family) -> None:
    group = next(iter(family.groups))
    query = {"group": group, "budget": ["madds=30%", "peak_memory=100%"]}
    costs = service.get("families/digits/costs", params=query).json()["costs"]
    assert costs.keys() == feasible_ranges(family, group, {}).keys()
    for name, found in feasible_ranges(family, group, {"madds": "30%", "peak_memory": "100%"}).items():
        assert costs[name]["feasible_low"] == found.feasible_low
        assert costs[name]["feasible_high"] == found.feasible_high
    assert costs["params"]["feasible_high"] < costs["params"]["high"]
    ends = {"madds": "30%", "params": costs["params"]["feasible_low"]}
    assert post(service, group=group, budgets=ends).status_code == 200
    text = problem(service.get("families/digits/costs", params={"group": group, "budget": "madds"}), 422)
    assert text == "a budget is given as NAME=VALUE, such as madds=40M or madds=40%, got 'madds'"


# -- networks ----------------------------------------------------------------------------------------------------------


def test_a_body_that_is_not_json_is_told_where(service: httpx.Client) -> None:
    answer = service.post(NETWORKS, content=b'{"group": nobody}', headers={"Content-Type": "application/json"})
    assert problem(answer, 422) == "the body is not JSON: Expecting value, at character 11"


@pytest.mark.parametrize("budgets", [{}, {"madds": "40%"}, {"params": "20%", "activations": "60%"}])
def test_a_network_is_the_family_s(service: httpx.Client, family: Family, budgets: dict[str, Any]) -> None:
    for asked in ({"group": next(iter(family.groups))}, {"classes": ["8", "1"]}):
        found = post(service, **asked, budgets=budgets).json()
        expected = describe(family.specialize(next(iter(asked.values())), **budgets))  # type: ignore[arg-type]
        assert {key: found[key] for key in expected if key != "family"} == {
            key: value for key, value in json.loads(json.dumps(expected)).items() if key != "family"
        }
        again = service.get(f"{NETWORKS}/{found['id']}").json()
        assert (again["architecture"], again["classes"]) == (found["architecture"], found["classes"])


def test_a_blueprint_is_the_family_s(service: httpx.Client, family: Family) -> None:
    group = list(family.groups)[1]
    network = family.specialize(group, madds="30%")
    found = post(service, group=group, budgets={"madds": "30%"}).json()
    answer = service.get(f"{NETWORKS}/{found['id']}/blueprint").json()
    assert [block["name"] for block in answer["blocks"]] == [block.name for block in network.blueprint.blocks]
    assert [layer["madds"] for block in answer["blocks"] for layer in block["layers"]] == [
        layer.madds for layer in network.blueprint.layers()
    ]
    for cost in ("madds", "params"):
        assert sum(block[cost] for block in answer["blocks"]) == answer["costs"][cost] == network.costs[cost]
    assert answer["costs"].keys() == set(family.costs)

    largest = service.get(f"{NETWORKS}/{answer['largest']}/blueprint").json()
    assert largest["costs"]["madds"] == family.cost_range("madds", group)[1]
    whole = service.get(f"{NETWORKS}/{answer['all_classes']}", params={"images_of": found["id"]}).json()
    assert (whole["classes"], whole["architecture"]) == (list(family.classes), found["architecture"])
    own = family.validation.of_classes(network.class_indices)
    built, r = family.build(network.row), network.blueprint.resolution
    with torch.no_grad():
        right = sum(
            int((built(images).argmax(1) == labels).sum())
            for images, labels in family.batches(own, range(len(family.classes)), r)
        )
    assert whole["validation_accuracy"] == pytest.approx(right / len(own))
    assert service.get("families/digits/costs", params={"group": group}).json()["validation_images"] == len(own)
    other = service.get(f"{NETWORKS}/{found['id']}", params={"images_of": answer["all_classes"]})
    assert "images of its own classes" in problem(other, 422)


def test_many_scenarios(service: httpx.Client, family: Family) -> None:
    groups = list(family.groups)
    scenarios = [{"group": groups[i % 3], "budgets": {"madds": f"{i}%"}} for i in range(100)]
    found = post(service, scenarios=scenarios).json()["networks"]
    expected = family.specialize_many([(each["group"], each["budgets"]) for each in scenarios])  # type: ignore[misc]
    assert [each["architecture"] for each in found] == json.loads(json.dumps([each.arch for each in expected]))
    assert all(each["costs"]["madds"] <= each["budgets"]["madds"] for each in found)
    alone = [post(service, **scenario).json() for scenario in scenarios[::25]]
    assert alone == found[::25]
    wrong = [*scenarios[:50], {"group": groups[0], "budgets": {"madds": 1}}, {"group": "none"}]
    text = problem(post(service, scenarios=wrong), 422)
    assert text.startswith(f"scenario 51: no network of {family.name} for {groups[0]} has madds <= 1; feasible: ")


def test_requests_side_by_side_get_their_own(service: httpx.Client, family: Family) -> None:
    group, other = list(family.groups)[:2]

    def one(i: int) -> tuple[int, str]:
        if i % 5 == 4:
            return i, problem(post(service, group=group, budgets={"madds": i}), 422)
        budgets = {"madds": f"{i}%"} if i % 2 else {"params": f"{i}%"}
        return i, json.dumps(post(service, group=other if i % 3 else group, budgets=budgets).json()["architecture"])

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(64)))
    for i, text in found:
        if i % 5 == 4:
            assert f"has madds <= {i};" in text
        else:
            budgets = {"madds": f"{i}%"} if i % 2 else {"params": f"{i}%"}
            assert text == json.dumps(family.specialize(other if i % 3 else group, **budgets).arch)


def test_the_best_of_several_has_an_accuracy(service: httpx.Client, family: Family) -> None:
    group = next(iter(family.groups))
    found = post(service, group=group, budgets={"madds": "60%"}, best_of=3).json()
    best = family.specialize(group, best_of=3, madds="60%")
    assert found["architecture"] == json.loads(json.dumps(best.arch))
    assert found["validation_accuracy"] == pytest.approx(family.validation_accuracy(best))
    assert "best_of adds up to 100" in problem(post(service, group=group, best_of=100), 413)

    scenarios = [{"group": group}, {"group": group, "budgets": {"madds": "60%"}, "best_of": 3}, {"group": group}]
    assert [each["id"] for each in post(service, scenarios=scenarios).json()["networks"]] == [
        post(service, group=group).json()["id"], found["id"], post(service, group=group).json()["id"],
    ]  # fmt: skip
    scenarios[2] = {"group": "nobody", "best_of": 2}
    assert problem(post(service, scenarios=scenarios), 422).startswith("scenario 3: ")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "the classes are given by group or by classes, one of the two; neither is given"),
        ({"group": "round", "classes": ["1"]}, "the classes are given by group or by classes, one of the two; both are given"),
        ({"group": "none"}, "tiny has no group 'none'; groups: "),
        ({"classes": ["1"]}, "a network tells at least two classes apart, got 1"),
        ({"classes": ["1", "1"]}, "a class is named twice: 1, 1"),
        ({"classes": ["1", "nine"]}, "tiny has no class 'nine'; classes: "),
        ({"group": "round", "budgets": {"none": 1}}, "tiny has no cost 'none'; costs: madds"),
        ({"group": "round", "budgets": {"madds": "x"}}, "a budget is a positive number such as"),
        ({"group": "round", "budgets": {"madds": -1}}, "a budget is a positive number such as"),
        ({"group": "round", "budgets": {"madds": "140%"}}, "a share of the range of a cost is from 0% to 100%, got '140%'"),
        ({"group": "round", "budgets": {"madds": True}}, "budgets.madds"),
        ({"grup": "round"}, "grup: no such key"),
        ({"group": "round", "best_of": 0}, "best_of: input should be greater than or equal to 1"),
        ({"scenarios": [{}], "group": "round"}, "groups, classes and budgets stand in each of scenarios, not beside them"),
    ],
)  # fmt: skip
def test_refusals_say_what_is_allowed(service: httpx.Client, body: dict[str, Any], text: str) -> None:
    assert text in problem(post(service, **body), 422)


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_file_is_the_network_and_is_cached(service: httpx.Client, family: Family) -> None:
    found = post(service, classes=["3", "5", "7"], budgets={"madds": "50%"}).json()
    path = f"{NETWORKS}/{found['id']}.onnx"
    file = service.get(path)
    network = family.specialize(["3", "5", "7"], madds="50%")
    images = torch.randn(4, 3, network.blueprint.resolution, network.blueprint.resolution)
    (got,) = onnx_session(file.content).run(["logits"], {"image": images.numpy()})
    assert np.abs(got - network.module(images).numpy()).max() < 1e-3 * np.abs(got).max()
    metadata = {each.key: each.value for each in onnx.load(BytesIO(file.content)).metadata_props}
    assert json.loads(metadata["classes"]) == ["3", "5", "7"]
    assert "immutable" in file.headers["cache-control"]
    made = files_made(service)
    for tag in (file.headers["etag"], f'"x", W/{file.headers["etag"]}', "*"):
        same = service.get(path, headers={"If-None-Match": tag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", file.headers["etag"])
    assert service.get(path, headers={"If-None-Match": '"another"'}).content == file.content
    assert files_made(service) == made


def test_one_build_for_all_who_ask(service: httpx.Client) -> None:
    found = post(service, classes=["2", "4", "6"], budgets={"madds": "70%"}).json()
    made = files_made(service)
    with ThreadPoolExecutor(12) as pool:
        files = list(pool.map(lambda _: service.get(f"{NETWORKS}/{found['id']}.onnx"), range(12)))
    assert {file.status_code for file in files} == {200}
    assert len({file.content for file in files}) == 1
    assert files_made(service) == made + 1


def test_torch_export(service: httpx.Client, family: Family) -> None:
    found = post(service, classes=["1", "8"], budgets={"madds": "0%"}).json()
    file = service.get(f"{NETWORKS}/{found['id']}.pt2")
    program = torch.export.load(BytesIO(file.content))
    network = family.specialize(["1", "8"], madds="0%")
    images = torch.randn(3, 3, network.blueprint.resolution, network.blueprint.resolution)
    assert torch.allclose(program.module()(images), network.module(images), atol=1e-4)


def test_a_network_of_no_family(service: httpx.Client) -> None:
    name = "0" * 16 + "AAAAAA"
    for path in (f"{name}.onnx", f"{name}.pt2", name):
        assert "as it is now has no network" in problem(service.get(f"{NETWORKS}/{path}"), 404)
    assert "string should match pattern" in problem(service.get(f"{NETWORKS}/name"), 422)


def test_accuracy_and_curve(service: httpx.Client, family: Family) -> None:
    group = next(iter(family.groups))
    curve = service.get("families/digits/curve", params={"group": group, "cost": "params"}).json()
    budgets = [point["budget"] for point in curve["points"]]
    assert (budgets[0], budgets[-1]) == family.cost_range("params", group)
    for point in curve["points"][::4]:
        network = family.specialize(group, params=point["budget"])
        assert point["costs"] == network.costs
        assert point["costs"]["params"] <= point["budget"]
        assert point["validation_accuracy"] == pytest.approx(family.validation_accuracy(network))
        assert service.get(f"{NETWORKS}/{point['id']}").json()["validation_accuracy"] == point["validation_accuracy"]
    made = files_made(service)
    assert service.get("families/digits/curve", params={"group": group, "cost": "params"}).json() == curve
    assert files_made(service) == made
    assert "has no cost 'none'" in problem(
        service.get("families/digits/curve", params={"group": group, "cost": "none"}), 422
    )


# -- images ------------------------------------------------------------------------------------------------------------


def test_predictions_are_the_network_s(service: httpx.Client, family: Family) -> None:
    from snugnet.data import decode_image, normalise

    group = next(iter(family.groups))
    found = post(service, group=group, budgets={"madds": "50%"}).json()
    path = f"{NETWORKS}/{found['id']}/predict"
    files = [png(i, 20 + i) for i in range(3)]
    pixels = np.stack([decode_image(file, family.space.resolution) for file in files])
    logits = family.specialize(group, madds="50%").module(normalise(torch.from_numpy(pixels), family.mean, family.std))
    expected = logits.softmax(1).numpy()
    one = service.post(path, content=files[0], headers={"Content-Type": "image/png"}).json()["predictions"]
    form = service.post(path, files=[("image", (f"{i}.png", file)) for i, file in enumerate(files)]).json()
    raw = service.post(path, content=pixels.tobytes(), headers={"Content-Type": "application/octet-stream"}).json()
    assert form["classes"] == found["classes"]
    assert form["predictions"] == raw["predictions"]
    assert one == form["predictions"][:1]
    for each, probabilities in zip(form["predictions"], expected, strict=True):
        assert np.allclose(each["probabilities"], probabilities, atol=1e-4)
        assert each["class"] == found["classes"][int(probabilities.argmax())]


def test_images_that_are_refused(
    service: httpx.Client, serve: Callable[..., Any], folder: Path, tmp_path: Path
) -> None:
    found = post(service, classes=["0", "1"], budgets={"madds": "0%"}).json()
    path = f"{NETWORKS}/{found['id']}/predict"
    kind = {"Content-Type": "image/png"}
    assert "not an image (JPEG, PNG" in problem(service.post(path, content=b"text", headers=kind), 422)
    assert "image cannot be decoded" in problem(service.post(path, content=png(0)[:-40], headers=kind), 422)
    assert problem(service.post(path, files={"a": png(0), "b": b"x"}), 422).startswith("image 2: ")
    raw = {"Content-Type": "application/octet-stream"}
    assert "pixels are n x 3 x 8 x 8 bytes" in problem(service.post(path, content=b"x" * 191, headers=raw), 422)
    assert "pixels are n x 3" in problem(service.post(path, headers=raw), 422)
    assert "got 'text/plain'" in problem(service.post(path, content=b"x", headers={"Content-Type": "text/plain"}), 415)
    form = {"Content-Type": "multipart/form-data"}
    assert "the form cannot be read" in problem(service.post(path, content=b"x", headers=form), 422)
    limits = {"pixels": 399, "images": 2, "body_bytes": 5000}
    with serve({"digits": folder}, tmp_path, limits=limits) as small:
        assert "has 20 x 20 pixels, and at most 399 are read" in problem(
            small.post(path, content=png(0), headers=kind), 422
        )
        assert "a call has 2 images at most, got 3" in problem(
            small.post(path, content=b"x" * 192 * 3, headers=raw), 413
        )
        assert "a body has at most 5,000 bytes" in problem(small.post(path, content=b"x" * 5001, headers=raw), 413)
        assert "a body has at most 5,000 bytes" in problem(
            small.post(path, content=iter([b"x" * 3000] * 2), headers=raw), 413
        )


# -- limits, token, headers --------------------------------------------------------------------------------------------


def raw_request(service: httpx.Client, text: str) -> socket.socket:
    """A connection on which a part of a request was sent."""
    connection = socket.create_connection((service.base_url.host, service.base_url.port), timeout=30)
    connection.sendall(text.encode())
    return connection


def test_limits(serve: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    limits = {"open_requests": 1, "scenarios": 2, "seconds": 1.5}
    with serve({"digits": folder}, tmp_path, limits=limits) as small:
        scenario = {"group": "round"}
        assert "1 to 2 scenarios, got 3" in problem(post(small, scenarios=[scenario] * 3), 413)
        assert "1 to 2 scenarios, got 0" in problem(post(small, scenarios=[]), 413)
        half = (
            f"POST /v1/{NETWORKS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n"
        )
        with raw_request(small, half + '{"gr') as slow:
            for _ in range(200):
                refused = small.get("families")
                if refused.status_code == 429:
                    break
            assert "1 requests are open" in problem(refused, 429)
            assert refused.headers["retry-after"] == "1"
            assert small.get("health").status_code == 200  # answered whatever else is open
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        for _ in range(200):
            if small.get("families").status_code == 200:
                break
        assert small.get("families").status_code == 200


def test_too_many_builds_and_late_answers(
    serve: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snugnet.serve.hosted import Hosted

    go, built = threading.Event(), Hosted.file

    def slow(self: Hosted, network: Any, suffix: str) -> bytes:
        assert go.wait(30)
        return built(self, network, suffix)

    monkeypatch.setattr(Hosted, "file", slow)
    with serve({"digits": folder}, tmp_path, limits={"waiting_builds": 1, "seconds": 1.0}) as small:
        first, second = (post(small, classes=classes).json()["id"] for classes in (["1", "2"], ["3", "4"]))
        late = small.get(f"{NETWORKS}/{first}.onnx")
        assert "no answer within 1 seconds" in problem(late, 503)
        assert late.headers["retry-after"] == "1"
        busy = small.get(f"{NETWORKS}/{second}.onnx")
        assert "1 networks are being built or wait" in problem(busy, 429)
        go.set()
        for _ in range(50):  # the first build went on, for who asks again
            file = small.get(f"{NETWORKS}/{first}.onnx")
            if file.status_code == 200:
                break
        assert file.status_code == 200
        assert files_made(small) == 1


def test_token(serve: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    with serve({"digits": folder}, tmp_path, token="a-token-of-some-length") as service:
        assert service.get("families").status_code == 200
        found = post(service, group="round", budgets={"madds": "0%"}).json()
        assert service.get(f"{NETWORKS}/{found['id']}.onnx").headers["cache-control"].startswith("private")
        for given in (
            "",
            "Bearer",
            "Bearer a-token-of-some-lengt",
            "Basic a-token-of-some-length",
            "Bearer \u00e9".encode("latin-1"),
        ):
            for path in ("families", "metrics", "openapi.json", "none", f"{NETWORKS}/{found['id']}.onnx"):
                answer = service.get(path, headers={"Authorization": given})
                assert "this service wants its token" in problem(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
        assert service.get("health", headers={"Authorization": ""}).status_code == 200
        assert service.get("ready", headers={"Authorization": ""}).status_code == 200
        assert service.post("admin/reload").status_code == 200


def test_headers_and_other_pages(
    service: httpx.Client, serve: Callable[..., Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in ("families", "none", "families/none", "../none"):
        headers = service.get(path, headers={"Origin": "http://elsewhere", "X-Request-ID": "mine.1"}).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-request-id"] == "mine.1"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers or "uvicorn" in headers["server"]  # this one was not started by 'snugnet serve'
    assert service.get("families", headers={"X-Request-ID": "a b"}).headers["x-request-id"] != "a b"
    assert problem(service.put("families"), 405) == "Method Not Allowed"
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<p>page")
    monkeypatch.setattr("snugnet.serve.app.PAGE", tmp_path / "page")
    with serve({"digits": folder}, tmp_path / "cache", origins=("http://elsewhere",)) as open_:
        headers = open_.get("families", headers={"Origin": "http://elsewhere"}).headers
        assert headers["access-control-allow-origin"] == "http://elsewhere"
        assert "access-control-allow-origin" not in open_.get("families", headers={"Origin": "http://other"}).headers
        asks = {
            "Origin": "http://elsewhere",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        root = str(open_.base_url).removesuffix("/v1/")
        page = open_.get(f"{root}/")
        assert page.text == "<p>page"
        assert page.headers["content-security-policy"].startswith("default-src 'self'")
        for path in ("/none", "/%2e%2e/cache/locks", "/..%2fcache", "//etc"):
            assert open_.get(f"{root}{path}").status_code == 404
    with serve({"digits": folder}, tmp_path / "cache", origins=("http://elsewhere",), token="secret") as closed:
        del closed.headers["Authorization"]  # a browser asks without it whether it may ask
        assert closed.options("families", headers=asks).status_code == 200
        refused = closed.get("families", headers={"Origin": "http://elsewhere"})
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "http://elsewhere"


def test_the_log_has_requests_and_no_images(
    service: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from snugnet.serve.hosted import Hosted
    from snugnet.serve.running import JsonLines

    caplog.set_level(logging.INFO)
    found = post(service, group="round", budgets={"madds": "0%"}).json()
    path = f"{NETWORKS}/{found['id']}/predict"
    service.post(path, content=png(0), headers={"Content-Type": "image/png", "X-Request-ID": "mine"})

    def fail(self: Hosted) -> dict[str, Any]:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(Hosted, "describe", fail)
    failed = service.get("families/digits", headers={"X-Request-ID": "failing"})
    assert "request failing" in problem(failed, 500)
    assert "a fault" not in failed.text
    lines = [json.loads(JsonLines().format(record)) for record in caplog.records if record.name.startswith("snugnet")]
    (own,) = [line for line in lines if line.get("request") == "mine"]
    assert (own["method"], own["path"], own["status"]) == ("POST", f"/v1/{path}"[:200], 200)
    assert own["ms"] > 0
    assert "IHDR" not in str(lines)
    error = next(line for line in lines if line.get("request") == "failing" and line["level"] == "error")
    assert "a fault of ours" in error["traceback"]


# -- loading anew ------------------------------------------------------------------------------------------------------


def test_reload_drops_no_request(serve: Callable[..., Any], folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "digits"
    shutil.copytree(folder, own)
    with serve({"digits": own}, tmp_path / "cache") as service:
        before = post(service, group="round", budgets={"madds": "0%"}).json()
        stop, statuses = threading.Event(), set[int]()

        def ask() -> None:
            while not stop.is_set():
                statuses.add(post(service, group="round", budgets={"madds": "50%"}).status_code)

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        changed = load_family(own)
        with torch.no_grad():
            for parameter in changed.supernet.parameters():
                parameter.mul_(1.5)
        changed.save(own)
        assert service.post("admin/reload").json() == {"status": "loaded", "families": {"digits": None}}
        after = post(service, group="round", budgets={"madds": "0%"}).json()
        assert after["id"] != before["id"]
        assert after["architecture"] == before["architecture"]
        assert "ask for its scenario again" in problem(service.get(f"{NETWORKS}/{before['id']}.onnx"), 404)
        for file in own.glob("supernet-*"):
            file.write_bytes(file.read_bytes()[:-1])
        reason = service.post("admin/reload").json()["families"]["digits"]
        assert "truncated" in reason
        assert post(service, group="round", budgets={"madds": "0%"}).json() == after  # the one before stays
        stop.set()
        for thread in asking:
            thread.join()
        assert statuses == {200}


def test_no_family_is_not_ready(serve: Callable[..., Any], tmp_path: Path) -> None:
    with serve({"none": tmp_path / "none"}, tmp_path / "cache") as service:
        assert service.get("health").json()["families"]["none"].startswith("there is no folder")
        assert "no family could be loaded: there is no folder" in problem(service.get("ready"), 503)


def test_costs_by_their_short_names(serve: Any, family: Family, tmp_path: Path) -> None:
    """Of one device a measured cost needs no name: in scenarios, ranges and curves as on the command line."""
    widths = needed_widths(family.groups, len(family.classes))
    table = write_rows(tmp_path / "here.csv", rows_of(family.space, widths))
    own = load_family(family.save(tmp_path / "family"))
    profile = import_measured(own.space, widths, table, "here", "ms")
    own.add_measured(profile)
    own.save(tmp_path / "family")
    with serve({"digits": tmp_path / "family"}, tmp_path / "cache") as service:
        given = {"latency_ms": "60%"}
        found = post(service, scenarios=[{"group": "round", "budgets": given}, {"group": "round"}])
        assert found.status_code == 200, found.text
        one, other = found.json()["networks"]
        assert one["costs"]["latency_ms@here"] <= one["budgets"]["latency_ms@here"]
        assert not other["budgets"]
        ranges = service.get("families/digits/costs", params={"group": "round", "budget": "latency_ms=60%"}).json()
        assert ranges["costs"]["latency_ms@here"]["budget"] == one["budgets"]["latency_ms@here"]
        curve = service.get("families/digits/curve", params={"group": "round", "cost": "latency_ms"})
        assert curve.status_code == 200, curve.text
        told = service.get("families/digits/curve", params={"group": "round", "cost": "bitops"})
        assert "of all networks" in problem(told, 422)
