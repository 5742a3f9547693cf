"""Exported files in the runtimes that people have: python benchmarks/runtimes.py [--family runs/digits] [--only RUNTIME,...]

`make test-runtimes` runs it and compares with what is committed. Every runtime gets an environment of its own below build/runtimes (2 GB in all), and runs in a process of
its own, so that one that does not install, or crashes, is written down as such and the others go on.

Files are of every registered space at two sizes of image, each trained for a few seconds on the digits and judged on their test images,
and the networks of a family (default runs/digits, made by `make quickstart`). Each is tried in every precision that `snugnet export` writes
(float32, float16, static int8 with ranges of training images), in batches of 1 and of 4. Writes docs/results/runtimes.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

import snugnet
from snugnet.data import DataConfig, GroupedImages, load_data, normalise
from snugnet.deploy import PRECISIONS, FileOptions, int8_facts, onnx_bytes
from snugnet.errors import ConfigError, ExportError
from snugnet.nn.network import Network, build
from snugnet.pipeline import machine
from snugnet.spaces import get_space, list_spaces
from snugnet.supernets import Supernet

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "results" / "runtimes.json"
HOME = ROOT / "build" / "runtimes"
FILES = HOME / "files"
WORKER = Path(__file__).with_name("runtime_worker.py")

INSTALLS: dict[str, list[str]] = {
    "onnxruntime": ["onnxruntime"],
    "onnxruntime-old": ["onnxruntime==1.16.3", "numpy<2"],
    "openvino": ["openvino"],
    "opencv-4": ["opencv-python-headless>=4,<5"],
    "opencv-5": ["opencv-python-headless>=5,<6"],
    "mnn": ["MNN"],
    "tract": ["tract"],
    "tvm": ["apache-tvm", "onnx"],
    "litert": ["onnx2tf", "ai-edge-litert"],
}
"""What each environment holds; onnxruntime 1.16.3 is of November 2023."""
SLOW = ("tvm", "litert")
"""Compilers, half a minute a file: of each space they get one file, in float32."""
INSTALL_SECONDS, FILE_SECONDS = 180, 120

SMALL: dict[str, dict[str, Any]] = {
    "attentive-nas": {
        "width_mult": 0.25,
        "stem_stride": 1,
        "stage_strides": (1, 2, 1, 2, 1, 2, 1),
        "depths": ((1,), *[(1, 2)] * 5, (1,)),
    },
    "darts": {"channels": 4, "cells": 3, "nodes": 2},
    "mobilenet-v2": {
        "width_mult": 0.35,
        "stem_stride": 1,
        "stage_strides": (2, 1, 2, 1, 1, 1),
        "blocks": (1, 2, 1, 2, 1, 1),
    },
    "nas-bench-201": {"channels": 8, "cells": 1},
    "ofa-mobilenet-v3": {"width_mult": 0.35, "stem_stride": 1, "stage_strides": (2, 2, 1, 1, 1), "depths": (1, 2)},
    "resnet-mixed-precision": {
        "widths": (16, 16, 24, 32),
        "stem_kernel": 3,
        "stem_stride": 1,
        "stage_strides": (1, 2, 2, 1),
    },
    "spos-shufflenet-v2": {"stem_stride": 1, "channels": (20, 32, 48, 64), "blocks": (1, 2, 1, 1), "last": 96},
}
"""Options that make a space's networks small; one that is not named is tried as it is."""
SIZES = (16, 19, 22)
SEED = 16
"""Of images: halved again and again, they are odd at different depths. Networks are trained at the first one."""


def make_space(name: str, size: int) -> Any:
    """A space for images of that size."""
    options = {"num_classes": 10, **SMALL.get(name, {})}
    sized = {"resolutions": (size,)} if name == "attentive-nas" else {"resolution": size}
    return get_space(name, **options, **sized)


def trained(network: Network, data: GroupedImages, seed: int, epochs: int = 4) -> Network:
    """A few passes over the training images: enough that a wrong file is seen in its accuracy."""
    torch.manual_seed(seed)
    images, labels = normalise(data.train.images, data.mean, data.std), data.train.labels
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    steps = epochs * (len(labels) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 6e-3, total_steps=steps)
    network.requires_grad_(True).train()
    for step in range(steps):
        if step % (len(labels) // 64) == 0:
            order = torch.randperm(len(labels))
        rows = order[step % (len(labels) // 64) * 64 :][:64]
        optimizer.zero_grad()
        F.cross_entropy(network(images[rows]), labels[rows]).backward()
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def networks(family: Path) -> Iterator[tuple[str, Network, GroupedImages, tuple[int, ...]]]:
    """Name, network, images and classes (rows of the data's) of each file."""
    for size in SIZES:
        data = load_data(DataConfig(source="digits", groups="digits", resolution=size, validation=0.15), progress=False)
        for name in list_spaces():
            space = make_space(name, size)
            arch = space.sample(1, np.random.default_rng(SEED))
            kept = FILES / f"{name}.pt"
            if kept.is_file():
                network = build(space.blueprint(arch), torch.load(kept)).eval().requires_grad_(False)
            else:
                network = trained(Supernet(space, seed=0).extract(arch), data, 0)
                torch.save(network.state_dict(), kept)
            yield f"{name}-{size}", network, data, tuple(range(10))
    if not (family / "family.json").is_file():
        print(f"no family in {family}: only networks of the spaces are tried", flush=True)
        return
    held = snugnet.load(family)
    data = load_data(DataConfig(**held.provenance["recipe"]["data"]), progress=False)
    low, high = held.cost_range("madds")
    for group in held.groups:
        network = held.specialize(group, madds=(low + high) / 2)
        yield f"family-{group}", network.module, data, network.class_indices


def write_kinds(
    path: Path, network: Network, classes: tuple[int, ...], training: np.ndarray
) -> Iterator[tuple[str, str]]:
    """The file in every precision; precision and what became of it."""
    for precision in PRECISIONS:
        options = FileOptions(precision)
        try:
            content = onnx_bytes(network, {"classes": list(classes)}, options, (training, training))
            path.with_name(f"{path.name}.{precision}.onnx").write_bytes(content)
            facts = int8_facts(content)
            yield (
                precision,
                f"written, in float: {', '.join(facts.kept_float)}" if facts and facts.kept_float else "written",
            )
        except (ConfigError, ExportError) as error:
            yield precision, f"not written: {error}"


def make_files(family: Path) -> dict[str, dict[str, Any]]:
    """All files, with what torch makes of the images; by name."""
    FILES.mkdir(parents=True, exist_ok=True)
    made = {}
    for name, network, data, classes in networks(family):
        test, train = data.test.among(classes), data.train.among(classes)
        images = normalise(test.images, data.mean, data.std)
        training = normalise(train.images[:256], data.mean, data.std).numpy()
        logits = network(images).numpy()
        np.save(FILES / f"{name}.in.npy", images.numpy())
        for kind, status in write_kinds(FILES / name, network, classes, training):
            about = {"name": name, "kind": kind, "inputs": f"{name}.in.npy", "status": status}
            (FILES / f"{name}.{kind}.json").write_text(json.dumps(about))
            made[f"{name}.{kind}"] = {**about, "logits": logits, "labels": test.labels.numpy()}
        print(
            time.strftime("%H:%M:%S"),
            name,
            f"{100 * (logits.argmax(1) == test.labels.numpy()).mean():.1f}%",
            flush=True,
        )
    return made


def install(name: str) -> str:
    """An environment with a runtime; an empty text, or why there is none."""
    folder = HOME / "environments" / name
    done = folder / "installed"
    if done.is_file():
        return ""
    venv.create(folder, with_pip=True)
    command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    try:
        subprocess.run(
            [*command, "numpy", *INSTALLS[name]], capture_output=True, text=True, check=True, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"not installed in {INSTALL_SECONDS} s"
    except subprocess.CalledProcessError as error:
        return "not installed: " + error.stderr.strip().splitlines()[-1]
    done.touch()
    return ""


def tried(runtime: str, files: list[str]) -> tuple[str, dict[str, str]]:
    """The runtime's version, and how each ``file.batch`` went."""
    version, status = "", {}
    left = list(files)
    while left:
        python = HOME / "environments" / runtime / "bin" / "python"
        process = subprocess.Popen(
            [python, WORKER, runtime, FILES], cwd=HOME,  # some leave files where they run
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""},
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write("\n".join(left))
        process.stdin.close()
        lines: Queue[str] = Queue()
        Thread(target=lambda source=process.stdout, to=lines: [to.put(line) for line in source] + [to.put("")]).start()
        at = ""
        try:
            while line := lines.get(timeout=FILE_SECONDS):
                told = json.loads(line)
                version = told.get("version", version)
                if "file" in told:
                    at = f"{told['file']}.{told['batch']}"
                    status[at] = told["status"]
        except Empty:
            process.kill()
            status[at] = f"hung: more than {FILE_SECONDS} s"
        process.wait()
        if status.get(at) == "begun":
            status[at] = f"crashed: exit code {process.returncode}"
        if not at:
            return version, {"": f"does not start: exit code {process.returncode}"}
        left = left[left.index(at.rpartition(".")[0]) + 1 :]
    return version, status


def compared(runtime: str, made: dict[str, dict[str, Any]], status: dict[str, str]) -> list[dict[str, Any]]:
    """A row for each file and batch size: largest difference relative to torch's largest logit, and top-1 beside torch's."""
    rows = []
    for key, outcome in status.items():
        file, _, batch = key.rpartition(".")
        row = {"runtime": runtime, "file": made[file]["name"], "numbers": made[file]["kind"], "batch": int(batch)}
        if outcome == "ran":
            got = np.load(FILES / f"{file}.{runtime}.{batch}.npy")
            got = got.reshape(len(got), -1)
            expected, labels = made[file]["logits"][: len(got)], made[file]["labels"][: len(got)]
            if got.shape != expected.shape:
                outcome = f"gives {got.shape[1]} numbers an image instead of {expected.shape[1]}"
            else:
                row |= {
                    "difference": float(np.abs(got - expected).max() / np.abs(expected).max()),
                    "images": len(got),
                    "top1": round(100 * float((got.argmax(1) == labels).mean()), 2),
                    "torch_top1": round(100 * float((expected.argmax(1) == labels).mean()), 2),
                }
        rows.append({**row, "outcome": outcome})
    return rows


def table(report: dict[str, Any]) -> str:
    """Markdown: a line for each runtime and kind of numbers; networks with layers at a few bits apart."""
    few = {file.partition(".")[0] for file, status in report["files"].items() if "at a few bits" in status}
    rows = [row | ({"numbers": "few bits"} if row["file"] in few else {}) for row in report["rows"]]
    lines = [
        "| runtime | numbers | ran | refused | crashed or hung | largest difference (where) | top-1 lost at most, points |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for runtime, numbers in dict.fromkeys((row["runtime"], row["numbers"]) for row in rows):
        own = [row for row in rows if (row["runtime"], row["numbers"]) == (runtime, numbers)]
        ran = [row for row in own if "difference" in row]
        worst = max(ran, key=lambda row: row["difference"], default=None)
        lost = max((row["torch_top1"] - row["top1"] for row in ran if row["batch"] > 1), default=None)
        failed = [sum(row["outcome"].startswith(words) for row in own) for words in (("refused",), ("crashed", "hung"))]
        cells = [runtime, numbers, f"{len(ran)} of {len(own)}", *map(str, failed)]
        cells += [
            f"{worst['difference']:.0e} ({worst['file']})" if worst else "-",
            "-" if lost is None else f"{lost:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Install, write, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", type=Path, default=ROOT / "runs" / "digits")
    parser.add_argument("--only", default=",".join(INSTALLS))
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    report: dict[str, Any] = {
        "machine": machine(),
        "command": " ".join(["python", *sys.argv]),
        "seed": 0,
        "runtimes": {},
    }
    made = make_files(asked.family)
    report["files"] = {name: about["status"] for name, about in made.items()}
    rows, runtimes = [], asked.only.split(",")
    if asked.out.exists():  # what was measured of other runtimes stays, with the machine that measured it
        before = json.loads(asked.out.read_text())
        rows = [row for row in before["rows"] if row["runtime"] not in runtimes]
        report["runtimes"] = {name: version for name, version in before["runtimes"].items() if name not in runtimes}
        report["before"] = {key: before.get(key) for key in ("machine", "command", "before")} if rows else None
    for runtime in runtimes:
        files = [name for name, about in made.items() if about["status"].startswith("written")]
        if runtime in SLOW:
            files = [name for name in files if name.endswith(f"-{SIZES[1]}.float32")]
        if problem := install(runtime):
            report["runtimes"][runtime] = problem
            continue
        version, status = tried(runtime, files)
        report["runtimes"][runtime] = version if "" not in status else status.pop("")
        rows += compared(runtime, made, status)
        print(time.strftime("%H:%M:%S"), runtime, report["runtimes"][runtime], flush=True)
        report["rows"], report["machine_after"] = rows, machine()
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table(report))


if __name__ == "__main__":
    main()
