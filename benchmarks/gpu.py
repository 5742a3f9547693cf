"""What a step, a candidate and a generator step take on a GPU, beside what they took before graphs and what the ofa package takes.

    python benchmarks/gpu.py [FOLDER of tiny-imagenet-10]   on a CUDA device; writes docs/results/benchmark-gpu.json
    python benchmarks/gpu.py --rehearse                     the same code on a CPU, tiny, on digits; writes build/benchmark-gpu-rehearsal.json

Every measure is written as soon as it is there; those that are, of the same machine and versions, are not taken again. ``ms`` is the median
of three runs of some steps, the host's time included; ``gpu_ms`` the sum of the kernels' own times, ``kernels`` how many there are.
``before`` is of 2026-11-27 on an H100, torch 2.11: ``ofa-mobilenet-v3`` of width 1.0 at 64 pixels, batches of 256, bf16.
"""

from __future__ import annotations

import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from snugnet import pipeline
from snugnet.data import GroupedImages, load_data, normalise
from snugnet.generator import training as generator_training
from snugnet.nn.network import with_layout
from snugnet.recipe import Recipe, parse_recipe
from snugnet.search.image_scorer import ImageScorer
from snugnet.supernets import Supernet
from snugnet.training import supernet as supernet_training
from snugnet.training.device import make_fabric
from snugnet.training.loop import RunLog, seed_step
from snugnet.training.optimizer import make_optimizer

ROOT = Path(__file__).parents[1]
RESULTS, REHEARSAL = ROOT / "docs/results/benchmark-gpu.json", ROOT / "build/benchmark-gpu-rehearsal.json"
BEFORE: dict[str, dict[str, float]] = {
    "largest stage": {"ms": 98.6, "gpu_ms": 32.2, "kernels": 1997},
    "static network, eager": {"ms": 49.4, "gpu_ms": 31.6, "kernels": 1461},
    "static network, one graph": {"ms": 31.5, "gpu_ms": 31.5},
    "first 40 elastic steps": {"ms": 83_000},
    "elastic step, 2 sub-networks + teacher": {"ms": 209.6, "gpu_ms": 44.1, "kernels": 4197},
    "2 sub-networks alone": {"ms": 130.6, "gpu_ms": 38.2, "kernels": 3144},
    "batch, augmented": {"ms": 14.7, "gpu_ms": 0.5, "kernels": 201},
    "ofa package, contiguous": {"ms": 160, "gpu_ms": 91, "kernels": 3215},
    "ofa package, channels last": {"ms": 213, "gpu_ms": 36, "kernels": 3215},
    "generator step": {"ms": 307.7, "gpu_ms": 142.4, "kernels": 6092},
    "candidate, the first": {"ms": 11_200},
    "candidate, warm": {"ms": 700, "gpu_ms": 240, "kernels": 23532},
}
Row = dict[str, Any]


def sync() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    sync()
    began = time.perf_counter()
    work()
    sync()
    return time.perf_counter() - began


class Bench:
    """What the measures share, made when it is first asked for."""

    def __init__(self, rehearse: bool, images: str) -> None:
        self.rehearse = rehearse
        self.steps, self.warm = (1, 1) if rehearse else (7, 3)
        self.folder = Path(tempfile.mkdtemp())
        self.source = {"source": images, "groups": f"{images}/superclasses.json", "resolution": 64, "validation": 5000}

    def recipe(self, graphs: str = "auto") -> Recipe:
        """Of the notes that ``before`` comes from."""
        content: dict[str, Any] = {
            "name": "gpu", "output": str(self.folder), "data": self.source,
            "augment": {"random_resized_crop": [0.35, 1.0], "flip": True, "color_jitter": 0.2},
            "space": {"width_mult": 1.0, "stem_stride": 1, "stage_strides": [2, 2, 2, 1, 2]},
            "training": {
                "batch_size": 256, "superclass_dropout": 0.6, "weight_decay": 1e-4, "graphs": graphs,
                "stages": [
                    {"name": "largest", "epochs": 60, "learning_rate": 0.01},
                    {"name": "all", "epochs": 30, "learning_rate": 0.01, "elastic": "all", "subnets": 2},
                ],
            },
            "generator": {"steps": 1500, "pairs": 16, "images": 32, "learning_rate": 0.01},
            "evaluation": {"calibration_images": 3000},
        }  # fmt: skip
        if self.rehearse:
            content |= {"device": "cpu", "threads": 1, "evaluation": {"calibration_images": 64}}
            content["data"] = {
                "source": "digits",
                "groups": "digits",
                "resolution": 8,
                "train_rows": 160,
                "validation": 0.2,
            }
            content["space"] |= {"width_mult": 0.1, "stage_strides": [2, 1, 1, 1, 1]}
            content["training"]["batch_size"] = 8
            content["generator"] = {"steps": 10, "pairs": 2, "images": 4}
        return parse_recipe(content)

    @cached_property
    def data(self) -> GroupedImages:
        return load_data(self.recipe().data)

    @cached_property
    def fabric(self) -> Any:
        return make_fabric(self.recipe())

    @cached_property
    def supernet(self) -> Supernet:
        space = pipeline.make_space(self.recipe(), self.data)
        return with_layout(Supernet(space, seed=0).to(self.fabric.device), torch.channels_last).train()

    def measured(self, step: Callable[[int], object], n: int = 0) -> Row:
        """Medians of three runs of ``n`` steps, and what the profiler counts."""
        n = n or self.steps
        for i in range(self.warm):
            step(i)
        times = [seconds(lambda k=k: [step(self.warm + k * n + i) for i in range(n)]) / n for k in range(3)]  # type: ignore[misc]
        row: Row = {"ms": round(1e3 * statistics.median(times), 2)}
        if torch.cuda.is_available():
            from torch.profiler import ProfilerActivity, profile

            torch.cuda.reset_peak_memory_stats()
            with profile(activities=[ProfilerActivity.CUDA]) as profiled:
                for i in range(2):
                    step(1000 + i)
                sync()
            events = [event for event in profiled.key_averages() if "CUDA" in str(event.device_type)]
            row["gpu_ms"] = round(sum(event.self_device_time_total for event in events) / 2e3, 2)
            row["kernels"] = sum(event.count for event in events) // 2
            row["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        return row

    @contextlib.contextmanager
    def training(self, graphs: str) -> Any:
        """A training of the supernet whose phases are handed to whoever asks, instead of being run."""
        with RunLog(self.folder) as log:
            supernet = Supernet(self.supernet.space, seed=0)
            made = supernet_training.SupernetTraining(
                self.recipe(graphs), supernet, self.data, self.fabric, self.folder, log, False
            )
            made._save = lambda *args, **named: None  # type: ignore[method-assign]
            yield made


def phases(module: Any, run: Callable[[str, Callable[[int], object]], None], work: Callable[[], object]) -> None:
    """Do work with the loop of a module replaced: each phase's step is handed to ``run``, with its name."""
    real = module.run_phase

    def instead(name: str, step_of: Any, save: Any, **how: Any) -> None:
        run(name, lambda step: step_of(step, seed_step(how["seed"], how["phase"], step)))

    module.run_phase = instead
    try:
        work()
    finally:
        module.run_phase = real


def training(bench: Bench, graphs: str) -> dict[str, Row]:
    """Both stages of a training; the first 40 steps of the elastic one with all that comes before them."""
    rows: dict[str, Row] = {}
    suffix = "" if graphs == "auto" else ", no graphs"
    since = [0.0]

    def run(name: str, step: Callable[[int], object]) -> None:
        if name == "supernet: all":
            for i in range(2 if bench.rehearse else 40):
                step(i)
            sync()
            rows[f"first 40 elastic steps{suffix}"] = {"ms": round(1e3 * (time.perf_counter() - since[0]), 1)}
            rows[f"elastic step, 2 sub-networks + teacher{suffix}"] = bench.measured(lambda i: step(100 + i))
        else:
            rows[f"largest stage{suffix}"] = bench.measured(step)
        sync()
        since[0] = time.perf_counter()

    with bench.training(graphs) as made:
        phases(supernet_training, run, made.run)
    return rows


def alone(bench: Bench) -> dict[str, Row]:
    """Two sub-networks, cross-entropy and SGD: with block graphs and without, and augmentation by itself."""
    rows: dict[str, Row] = {}
    for graphs in ("off", "auto"):
        with bench.training(graphs) as made:
            config = made.recipe.training.model_copy(update={"stages": made.recipe.training.stages[1:]})
            made.recipe = made.recipe.model_copy(update={"training": config})
            made.teacher = None

            def batch(i: int, made: Any = made) -> Tensor:
                seed_step(0, 0, i)
                images, _ = made.batches.batch(i)
                return normalise(made.augment(images), bench.data.mean, bench.data.std, channels_last=True)

            x, labels = batch(0), made.batches.batch(0)[1]
            if graphs == "off":
                rows["batch, augmented"] = bench.measured(batch)

            def bare(model: Any, _: Any, archs: Any, x: Tensor = x, labels: Tensor = labels) -> dict[str, Tensor]:
                for arch in archs:
                    loss = F.cross_entropy(model(x, arch), labels) / len(archs)
                    loss.backward()
                return {"loss": loss}

            made._taught = bare
            made.augment = torch.Tensor.float

            def run(name: str, step: Callable[[int], object], graphs: str = graphs) -> None:
                rows["2 sub-networks alone" + (", no graphs" if graphs == "off" else "")] = bench.measured(step)

            phases(supernet_training, run, made.run)
    return rows


def static(bench: Bench) -> dict[str, Row]:
    """The largest architecture as a network of its own."""
    device, cuda = bench.fabric.device, torch.cuda.is_available()
    net = with_layout(bench.supernet.extract(bench.supernet.space.largest).to(device), torch.channels_last).train()
    batch, size = bench.recipe().training.batch_size, bench.data.train.resolution
    x = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % len(bench.data.classes)
    optimizer = make_optimizer(net, 0.9, 1e-4)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3

    def step(i: int = 0) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=cuda, cache_enabled=False):
            out = net(x)
        F.cross_entropy(out.float(), labels).backward()
        optimizer.step()

    rows = {"static network, eager": bench.measured(step)}
    if cuda:
        aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(aside)
        optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            step()
        rows["static network, one graph"] = bench.measured(lambda i: graph.replay())
    return rows


def generator(bench: Bench) -> dict[str, Row]:
    """A step of the architecture generator."""
    rows: dict[str, Row] = {}
    recipe, space = bench.recipe(), bench.supernet.space
    made = pipeline.make_generator(recipe, space, bench.data)
    supernet = Supernet(space, seed=0)
    with RunLog(bench.folder) as log:
        table = recipe.cost_table(space, "madds")
        search = generator_training.GeneratorTraining(
            recipe, supernet, made, table, bench.data, bench.fabric, bench.folder, log, False
        )
        search._save = lambda *args, **named: None  # type: ignore[method-assign]

        def run(name: str, step: Callable[[int], object]) -> None:
            rows["generator step"] = bench.measured(step, 1 if bench.rehearse else 3)

        phases(generator_training, run, search.run)
    return rows


def candidates(bench: Bench) -> dict[str, Row]:
    """Candidates on images: one that no shape has been seen of, and others later."""
    recipe, space = bench.recipe(), bench.supernet.space
    made = pipeline.make_generator(recipe, space, bench.data)
    family = pipeline.make_family(recipe, bench.data, Supernet(space, seed=0), made, {}).to(bench.fabric.device)
    groups = [family.class_indices(group) for group in family.groups]
    scorer = ImageScorer(
        family.supernet.eval(), family.calibration_batches, family.validation, groups, family.mean, family.std
    )
    archs = space.sample(64, np.random.default_rng(1))
    first = seconds(lambda: scorer.accuracies(archs[:1]))
    row = bench.measured(lambda i: scorer.accuracies(archs[i % 64 :][:1]), 1 if bench.rehearse else 5)
    return {"candidate, the first": {"ms": round(1e3 * first, 1)}, "candidate, warm": row}


def depthwise(bench: Bench) -> dict[str, Row]:
    """Forward and backward of a depthwise convolution in both layouts: the first use of a shape, and later ones."""
    rows: dict[str, Row] = {}
    device, dtype = bench.fabric.device, torch.bfloat16 if torch.cuda.is_available() else torch.float32
    images, size = (2, 8) if bench.rehearse else (256, 16)
    for name, layout in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
        for channels, kernel in ((96, 3), (112, 5), (136, 7)):
            x = torch.randn(images, channels, size, size, device=device, dtype=dtype).to(memory_format=layout)
            weight = torch.randn(channels, 1, kernel, kernel, device=device, dtype=dtype, requires_grad=True)
            x.requires_grad_()

            def step(i: int = 0, x: Tensor = x, weight: Tensor = weight) -> None:
                out = F.conv2d(x, weight, padding=weight.shape[-1] // 2, groups=len(weight))
                torch.autograd.grad(out, (x, weight), torch.ones_like(out))

            first = seconds(step)
            row = {**bench.measured(step), "first_ms": round(1e3 * first, 1)}
            rows[f"depthwise {kernel}x{kernel} of {channels}, {name}"] = row
    return rows


def ofa(bench: Bench) -> dict[str, Row]:
    """The ofa package's own network at the same sizes: 128 pixels and a stem of stride 2."""
    try:
        from ofa.imagenet_classification.elastic_nn.networks import OFAMobileNetV3
    except ImportError as error:
        print(f"ofa package: left out ({error}); pip install --no-deps ofa tqdm")
        return {}
    device, cuda = bench.fabric.device, torch.cuda.is_available()
    net = OFAMobileNetV3(
        n_classes=60, bn_param=(0.1, 1e-5), dropout_rate=0.0, ks_list=[3, 5, 7], expand_ratio_list=[3, 4, 6], depth_list=[2, 3, 4]
    ).to(device).train()  # fmt: skip
    batch, size = bench.recipe().training.batch_size, 32 if bench.rehearse else 128
    labels = torch.arange(batch, device=device) % 60
    rows: dict[str, Row] = {}
    for name, layout in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last)):
        net = net.to(memory_format=layout)
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True)
        x = torch.randn(batch, 3, size, size, device=device).to(memory_format=layout)
        random.seed(0)

        def step(i: int, x: Tensor = x, optimizer: Any = optimizer, net: Any = net) -> None:
            optimizer.zero_grad(set_to_none=True)
            for _ in range(2):
                net.sample_active_subnet()
                with torch.autocast(device.type, torch.bfloat16, enabled=cuda):
                    out = net(x)
                (F.cross_entropy(out.float(), labels) / 2).backward()
            optimizer.step()

        for i in range(0 if bench.rehearse else 25):  # shapes that it has not seen
            step(i)
        rows[f"ofa package, {name}"] = bench.measured(step)
    return rows


MEASURES: dict[str, Callable[[Bench], dict[str, Row]]] = {
    "depthwise": depthwise,  # first: later measures have seen shapes
    "training": lambda bench: training(bench, "auto"),
    "training without graphs": lambda bench: training(bench, "off"),
    "alone": alone,
    "static": static,
    "candidates": candidates,
    "generator": generator,
    "ofa": ofa,
}


def show(rows: dict[str, Row], before: dict[str, dict[str, float]]) -> None:
    for name, row in rows.items():
        was = before.get(name.removesuffix(", no graphs"))
        beside = f"  before: {was['ms']:>9.1f} ms, {was['ms'] / row['ms']:.2f} x" if was and row["ms"] else ""
        more = " ".join(f"{key} {value}" for key, value in row.items() if key != "ms")
        print(f"{name:<52} {row['ms']:>9.1f} ms  {more:<48}{beside}", flush=True)


def main(arguments: list[str]) -> dict[str, Any]:
    """All measures that are not there yet."""
    rehearse = "--rehearse" in arguments
    if not rehearse and not torch.cuda.is_available():
        sys.exit("there is no CUDA device here; --rehearse runs the same code on a CPU")
    paths = [each for each in arguments if not each.startswith("--")]
    bench = Bench(rehearse, paths[0] if paths else str(ROOT.parent / "shared/data/tiny-imagenet-10"))
    path = REHEARSAL if rehearse else RESULTS
    own = {key: pipeline.machine()[key] for key in ("snugnet", "torch", "gpu", "cpus")}
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if report.get("made_on") != own:
        report = {"made_on": own, "machine": pipeline.machine(), "before": {} if rehearse else BEFORE, "measures": {}}
    for name, measure in MEASURES.items():
        if name not in report["measures"]:
            report["measures"][name] = measure(bench)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(report, indent=1) + "\n")
        show(report["measures"][name], report["before"])
    return report


if __name__ == "__main__":
    main(sys.argv[1:])
