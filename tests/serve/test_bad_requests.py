"""Thousands of requests that are wrong in some way: each is refused in words, and none of them is the service's fault."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import string
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from asking import ask
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image
from schemathesis import checks

REQUESTS = 4_000
NETWORKS = "/v1/families/digits/networks"
JSON = {"Content-Type": "application/json"}


def scalar(rng: random.Random) -> Any:
    """A value that may stand in JSON, and hardly where it is wanted."""
    texts = [
        "",
        "round",
        "madds",
        "40%",
        "-1%",
        "1e999",
        "é",
        "\ud800",
        "\0",
        "a" * 5000,
        "../..",
        "NaN",
        "0x10",
        "１２",
    ]
    numbers = [0, -1, 1, 10**30, -(10**400), 1.5, 1e308, 1e-320, float("inf"), float("nan"), True, False, None]
    return rng.choice([*texts, *numbers])


def value(rng: random.Random, depth: int = 0) -> Any:
    """A piece of JSON."""
    kind = rng.random()
    if depth > 3 or kind < 0.6:
        return scalar(rng)
    if kind < 0.8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    keys = ["group", "classes", "budgets", "best_of", "scenarios", "madds", "params", "peak_memory", "none", ""]
    return {rng.choice(keys): value(rng, depth + 1) for _ in range(rng.randrange(4))}


def scenario(rng: random.Random) -> dict[str, Any]:
    """A right scenario in which something is put that is hardly right."""
    right: dict[str, Any] = {"group": "round", "budgets": {"madds": "50%"}}
    place = rng.choice(["group", "classes", "budgets", "best_of", "scenarios", "other", "cost"])
    if place == "cost":
        right["budgets"][rng.choice(["madds", "params", "bitops", "none", "a" * 300])] = value(rng)
    else:
        right[place] = value(rng)
    return right


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Bytes with a few of them changed, or cut short."""
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 6)):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed[: rng.randrange(1, len(changed) + 1)] if rng.random() < 0.4 else changed)


def images() -> dict[str, bytes]:
    """Small files of the kinds that are read."""
    found = {}
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        buffer = BytesIO()
        Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(buffer, kind)
        found[kind] = buffer.getvalue()
    return found


def requests(rng: random.Random, network: str) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Method, path, body and headers of wrong requests, without end."""
    files = images()
    names = [
        "..",
        "../../etc",
        "%2e%2e",
        "..%2f..",
        "\\..\\",
        "a\0b",
        "~",
        "digits/..",
        "digits\n",
        "é",
        "a" * 3000,
        "CON",
        "-",
    ]
    while True:
        kind = rng.randrange(6)
        if kind == 0:
            yield "POST", NETWORKS, json.dumps(scenario(rng)).encode(), JSON
        elif kind == 1:
            many = [scenario(rng) for _ in range(rng.randrange(1, 5))]
            yield "POST", NETWORKS, json.dumps({"scenarios": many}).encode(), JSON
        elif kind == 2:
            noise = [
                b"[" * 3000,
                b"{",
                b"\xff\xfe",
                b"",
                b"1" * 5000,
                json.dumps(value(rng)).encode(),
                rng.randbytes(50),
            ]
            yield "POST", NETWORKS, rng.choice(noise), rng.choice([JSON, {}, {"Content-Type": "text/plain"}])
        elif kind == 3:
            name = rng.choice([*names, "".join(rng.choices(string.printable, k=8))])
            ends = [
                f"{NETWORKS}/{name}.onnx",
                f"/v1/families/{name}",
                f"/{name}",
                f"{NETWORKS}/{network}{name}.onnx",
                f"/v1/{name}",
            ]
            yield rng.choice(["GET", "POST", "HEAD", "DELETE", "OPTIONS"]), rng.choice(ends), b"", {}
        elif kind == 4:
            body = (
                damaged(rng, rng.choice(list(files.values())))
                if rng.random() < 0.8
                else rng.randbytes(rng.randrange(200))
            )
            types = [
                "image/png",
                "image/*",
                "application/octet-stream",
                "multipart/form-data; boundary=x",
                "multipart/form-data",
                "x",
            ]
            yield "POST", f"{NETWORKS}/{network}/predict", body, {"Content-Type": rng.choice(types)}
        else:
            pairs = [
                "group=round",
                "group=none",
                "classes=1",
                "classes=1&classes=8",
                "budget=madds=40%25",
                "budget=madds",
                "x=1",
            ]
            pairs += [
                "budget=madds=1",
                "budget=params=-5",
                "budget=%00=1",
                "group=%ff",
                "cost=none",
                "budget=madds=1e999",
            ]
            query = "&".join(rng.sample(pairs, rng.randrange(4)))
            yield "GET", f"/v1/families/digits/costs?{query}", b"", {}


def test_bad_requests_are_refused_in_words(folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from snugnet.serve.app import create_app
    from snugnet.serve.settings import Limits, Settings

    caplog.set_level(logging.WARNING)
    limits = Limits(pixels=10_000, trials=4)
    app = create_app(Settings({"digits": str(folder)}, tmp_path, limits))
    rng = random.Random(0)
    statuses: Counter[int] = Counter()

    async def run() -> None:
        application = app.app.app  # type: ignore[attr-defined]
        async with application.router.lifespan_context(application):
            body = json.dumps({"group": "round", "budgets": {"madds": "0%"}}).encode()
            network = (await ask(app, "POST", NETWORKS, body, JSON)).json["id"]
            every = requests(rng, network)
            for _ in range(REQUESTS):
                method, path, body, headers = next(every)
                answer = await ask(app, method, path, body, headers)
                statuses[answer.status] += 1
                told = (method, path, body[:300], answer.body[:300])
                assert 200 <= answer.status < 500, told
                assert b"Traceback" not in answer.body, told
                if answer.status >= 400 and method != "HEAD":
                    assert answer.headers["content-type"] == "application/problem+json", told
                    assert answer.json["status"] == answer.status
                    assert len(answer.json["detail"]) > 5
            good = await ask(app, "POST", NETWORKS, json.dumps({"group": "round"}).encode(), JSON)
            assert good.status == 200

    asyncio.run(run())
    assert statuses[422] > REQUESTS / 10
    assert statuses[404] > REQUESTS / 20
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR or record.exc_info]
    assert {path.name for path in tmp_path.iterdir()} <= {"locks"} | {path.name for path in tmp_path.glob("*.bin")}


def test_what_openapi_says(service: Any) -> None:
    """Answers to what is made up from the description: its statuses, types and documents."""
    schema = schemathesis.openapi.from_url(f"{service.base_url}openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) == 14
    wanted = (
        checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
        checks.response_schema_conformance, checks.response_headers_conformance,
    )  # fmt: skip
    calm = settings(
        max_examples=5, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for operation in operations:
        if operation.path.endswith("/reload"):
            continue

        @calm
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate(checks=wanted)

        check()
