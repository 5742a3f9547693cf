"""How fast the service is, over loopback: client and service share the machine's cores.

    python benchmarks/serve.py FAMILY [seconds of mixed load] [OUT.json]

`snugnet serve` runs in a process of its own, with its defaults; the client is some sockets in this one, each with one request
at a time (keep-alive). Measured are: architectures, one scenario a request, all different, at 32 connections; batches of 1,000
scenarios; a cached ONNX file, whole (read into a buffer that stands ready) and as 304; files that nobody has asked for yet, one after the other; images through
`predict` in batches of 64, beside ONNX Runtime alone on the same images in this process, before and after; then a mix of all, with
the memory of the service along the way. Writes docs/results/benchmark-serve.json, or where it is told to.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from snugnet.client import Client
from snugnet.deploy import onnx_session
from snugnet.pipeline import machine

OUT = Path(__file__).resolve().parents[1] / "docs" / "results" / "benchmark-serve.json"
CONNECTIONS, WARM, SECONDS, BATCH, IMAGES, UNCACHED = 32, 2.0, 10.0, 1000, 64, 8
Request = tuple[str, bytes, str]
"""Path, body (none: a GET), more headers."""


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: Request) -> tuple[int, bytes]:
    """One request and its answer, with as little of a client as there can be."""
    path, body, headers = request
    method = "POST" if body else "GET"
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return int(head[9:12]), await reader.readexactly(int(length[1]) if length else 0)


def downloads(
    address: tuple[str, int], path: str, size: int, connections: int, seconds: float
) -> tuple[list[float], dict[int, int]]:
    """Fetch a file over some connections, each in a thread that reads into one buffer: what :func:`load` gives."""
    times: list[float] = []
    statuses: dict[int, int] = {}
    end = time.perf_counter() + seconds

    def one() -> None:
        buffer = memoryview(bytearray(size + 2**16))
        with socket.create_connection(address) as connection:
            while time.perf_counter() < end:
                started, got, whole = time.perf_counter(), 0, size + 2**16
                connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                while got < whole:
                    got += (n := connection.recv_into(buffer[got:]))
                    if not n:
                        raise ConnectionError("the service has closed the connection")
                    if whole > size and (head := bytes(buffer[:got])[:4096].find(b"\r\n\r\n")) >= 0:
                        whole = head + 4 + size
                times.append(time.perf_counter() - started)
                status = int(bytes(buffer[9:12]))
                statuses[status] = statuses.get(status, 0) + 1

    with ThreadPoolExecutor(connections) as pool:
        for done in [pool.submit(one) for _ in range(connections)]:
            done.result()
    return times, statuses


async def load(
    address: tuple[str, int], requests: Iterator[Request], connections: int, seconds: float
) -> tuple[list[float], dict[int, int]]:
    """Send requests over some connections for some time: seconds of each, and how often each status came."""
    times: list[float] = []
    statuses: dict[int, int] = {}
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await asyncio.open_connection(*address, limit=2**26)
        while time.perf_counter() < end:
            started = time.perf_counter()
            status, _ = await exchange(reader, writer, next(requests))
            times.append(time.perf_counter() - started)
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return times, statuses


def rates(times: list[float], statuses: dict[int, int], seconds: float, each: int = 1) -> dict[str, Any]:
    """What a load came to."""
    ordered = sorted(times)
    return {
        "per_second": round(each * len(times) / seconds, 1),
        "p50_ms": round(1e3 * ordered[len(ordered) // 2], 2),
        "p99_ms": round(1e3 * ordered[int(0.99 * (len(ordered) - 1))], 2),
        "statuses": {str(key): count for key, count in statuses.items()},
    }


def scenarios(groups: dict[str, Any], low: float, high: float) -> Iterator[dict[str, Any]]:
    """Scenarios that all differ."""
    rng = random.Random(0)
    for group in itertools.cycle(groups):
        yield {"group": group, "budgets": {"madds": low + (high - low) * (0.05 + 0.95 * rng.random())}}


def memory(process: int) -> float:
    """What a process holds, in MB."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text())[1]) / 1024  # type: ignore[index]


def bare(content: bytes, images: np.ndarray, seconds: float) -> float:
    """Images a second through ONNX Runtime alone, in batches, from the same decoded pixels."""
    session = onnx_session(content)
    n, end, started = 0, time.perf_counter() + seconds, time.perf_counter()
    while time.perf_counter() < end:
        session.run(["logits"], {"image": images})
        n += len(images)
    return n / (time.perf_counter() - started)


def start(family: Path, folder: Path) -> tuple[subprocess.Popen[str], str, float]:
    """A service, its address, and the seconds until it was ready."""
    began = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "snugnet",
        "serve",
        f"family={family}",
        "--port",
        "0",
        "--cache",
        str(folder / "cache"),
    ]
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, stderr=log, text=True)
    while True:
        text = (folder / "log").read_text()
        found = re.search(r"at (http://127\.0\.0\.1:\d+) ", text)
        if found and "Application startup complete" in text:
            return running, found[1], time.perf_counter() - began
        if running.poll() is not None:
            raise SystemExit(text)
        time.sleep(0.02)


def main() -> None:
    family = Path(sys.argv[1]).resolve()
    mixed_seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 60.0
    with tempfile.TemporaryDirectory() as folder:
        running, url, ready = start(family, Path(folder))
        try:
            results = measure(url, running.pid, mixed_seconds)
        finally:
            running.terminate()
            running.wait()
    document = {
        "command": " ".join(["python", *sys.argv]), "ready_seconds": round(ready, 2), **results, "machine": machine(),
    }  # fmt: skip
    (Path(sys.argv[3]) if len(sys.argv) > 3 else OUT).write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document, indent=1))


def measure(url: str, process: int, mixed_seconds: float) -> dict[str, Any]:
    client = Client(url)
    about = client.family("family")
    low, high = about["costs"]["madds"]["low"], about["costs"]["madds"]["high"]
    every = scenarios(about["groups"], low, high)
    host, port = url.removeprefix("http://").split(":")
    address = host, int(port)
    kind = "Content-Type: application/json\r\n"
    path = "/v1/families/family/networks"
    one = ((path, json.dumps(next(every)).encode(), kind) for _ in itertools.count())
    many = (
        (path, json.dumps({"scenarios": list(itertools.islice(every, BATCH))}).encode(), kind)
        for _ in itertools.count()
    )
    network = client.specialize("family", next(iter(about["groups"])), madds="30%")
    content = client.download(network)
    file = f"{path}/{network['id']}.onnx"
    pixels = np.random.default_rng(0).integers(
        0, 256, (IMAGES, 3, about["resolution"], about["resolution"]), dtype=np.uint8
    )
    predict = f"{path}/{network['id']}/predict", pixels.tobytes(), "Content-Type: application/octet-stream\r\n"
    kinds: dict[str, tuple[Iterator[Request], int, int]] = {
        "architectures, 32 connections": (one, CONNECTIONS, 1),
        "scenarios in batches of 1000, 2 connections": (many, 2, BATCH),
        "cached ONNX": (itertools.repeat((file, b"", "")), 4, 1),
        "cached ONNX, not modified": (itertools.repeat((file, b"", "If-None-Match: *\r\n")), CONNECTIONS, 1),
        "predict, images in batches of 64, 2 connections": (itertools.repeat(predict), 2, IMAGES),
    }
    results: dict[str, Any] = {"onnx_bytes": len(content)}
    alone = [bare(content, np.zeros(pixels.shape, np.float32), 3.0)]
    for name, (requests, connections, each) in kinds.items():
        asyncio.run(load(address, requests, connections, WARM))
        began = time.perf_counter()
        if name == "cached ONNX":
            times, statuses = downloads(address, file, len(content), connections, SECONDS)
        else:
            times, statuses = asyncio.run(load(address, requests, connections, SECONDS))
        results[name] = {
            **rates(times, statuses, time.perf_counter() - began, each),
            "load": round(os.getloadavg()[0], 2),
        }
    alone.append(bare(content, np.zeros(pixels.shape, np.float32), 3.0))
    results["bare ONNX Runtime, images in batches of 64"] = {"per_second": [round(rate, 1) for rate in alone]}
    results["uncached ONNX"] = {"largest": uncached(client, about), "at 40%": uncached(client, about, madds="40%")}
    results["mixed"] = asyncio.run(mixed(address, kinds, process, mixed_seconds))
    return results


def uncached(client: Client, about: dict[str, Any], **budgets: str) -> dict[str, Any]:
    """Seconds of files that nobody has asked for."""
    times = []
    for i in range(UNCACHED):
        network = client.specialize(
            "family", about["classes"][i : i + 2] if i + 1 < len(about["classes"]) else about["classes"], **budgets
        )
        began = time.perf_counter()
        client.download(network)
        times.append(time.perf_counter() - began)
    return {"median_seconds": round(statistics.median(times), 3), "least_seconds": round(min(times), 3)}


async def mixed(
    address: tuple[str, int], kinds: dict[str, tuple[Iterator[Request], int, int]], process: int, seconds: float
) -> dict[str, Any]:
    """All at once, and the memory of the service along the way."""
    held: list[float] = []

    async def watch() -> None:
        while True:
            held.append(round(memory(process), 1))
            await asyncio.sleep(max(1.0, seconds / 30))

    watching = asyncio.create_task(watch())
    loads: list[Awaitable[Any]] = [load(address, requests, 2, seconds) for requests, _, _ in kinds.values()]
    found = await asyncio.gather(*loads)
    watching.cancel()
    statuses: dict[str, int] = {}
    for _, own in found:
        for status, count in own.items():
            statuses[str(status)] = statuses.get(str(status), 0) + count
    start = held[len(held) // 6 :]
    return {
        "seconds": seconds, "statuses": statuses, "memory_mb": held, "load": round(os.getloadavg()[0], 2),
        "growth_after_a_sixth": round(max(start) / start[0] - 1, 4),
    }  # fmt: skip


if __name__ == "__main__":
    main()
