"""What Single Path One-Shot brings on real images: three seeds, CIFAR-10 and tiny-imagenet-10, two CPU cores.

    python benchmarks/single_path.py            all of it, about two hours of two quiet cores; it goes on where it was stopped
    python benchmarks/single_path_report.py     the results so far

Supernets of the three CPU recipes, searches under limits, and what was found trained from fresh weights beside what it is compared
with. Searches see validation images; test images judge what has been trained, once. Each job is a file under runs/single-path, each
run in one of two processes of one thread. Writes docs/results/benchmark-single-path.json and .png.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from jobs import ROOT, Job, Jobs

RUNS = ROOT / "runs" / "single-path"
OUT = ROOT / "docs" / "results" / "benchmark-single-path"
SEEDS = (0, 1, 2)
MADDS = 1_250_000
BITOPS = {"2W2A": 8_650_752, "3W3A": 19_464_192, "4W4A": 34_603_008}
BITS = {"2W2A": 2, "3W3A": 3, "4W4A": 4}
UNITS = ("kernel 3", "kernel 5", "kernel 7", "xception")
BLOCKS = 8
POPULATION, ROUNDS, FEW_ROUNDS = 30, 8, 3
TAU_ARCHITECTURES = 16
FINE_TUNED_EPOCHS = 4
TINY = (
    "training.stages.0.epochs=7", "training.stages.1.epochs=1",
    "training.stages.2.epochs=1", "training.stages.3.epochs=3", "generator.steps=100", "generator.learning_rate=0.03",
)  # fmt: skip
"""A sixth of the recipe's epochs."""


# -- what jobs do ------------------------------------------------------------------------------------------------------


def recipe_of(name: str, *overrides: str) -> Any:
    from snugnet.recipe import load_recipe

    return load_recipe(ROOT / "recipes" / f"{name}.yaml", [*overrides, "threads=1"])


@lru_cache(maxsize=2)
def images(recipe: str) -> Any:
    """Images of a recipe; those of the CIFAR-10 recipes are the same."""
    from snugnet.data import load_data

    return load_data(recipe_of(recipe).data, progress=False)


def images_of(recipe: str) -> Any:
    return images("tiny-imagenet-10-cpu" if recipe.startswith("tiny") else "spos-cifar-10-cpu")


def supernet(recipe: str, folder: str, overrides: Sequence[str]) -> dict[str, Any]:
    """Train a family."""
    import snugnet

    made = snugnet.train(
        recipe_of(recipe, *overrides, f"output={RUNS / folder}"), data=images_of(recipe), progress=False
    )
    log = [json.loads(line) for line in (RUNS / folder / "log.jsonl").read_text().splitlines()]
    last = [line["loss"] for line in log if "loss" in line and "supernet" in str(line)][-10:]
    return {"seconds": made.provenance["seconds"], "loss": sum(last) / max(1, len(last))}


def channels(seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """Train a supernet of widths on the blocks that a search found."""
    blocks = found["winners"][0]["architecture"]["blocks"]
    overrides = [f"seed={seed}", f"space.fixed_blocks={blocks}"]
    return {**supernet("spos-cifar-10-channels-cpu", f"channels-{seed}", overrides), "fixed_blocks": blocks}


def search(folder: str, method: str, cost: str, limits: Sequence[int], seed: int, rounds: int) -> dict[str, Any]:
    """Search a family under each limit: what was best after each evaluation, and the winners."""
    import numpy as np

    import snugnet
    from snugnet.family.limits import search_limits
    from snugnet.search.method import make_method

    family = snugnet.load(RUNS / folder)
    size = (
        {"population": POPULATION, "rounds": rounds} if method == "evolution" else {"evaluations": POPULATION * rounds}
    )
    found = search_limits(family, make_method(method, size), cost, limits, seed=seed, progress=False)
    winners, curves = [], []
    for each in found.searches:
        winners += each.winners()
        curves.append(np.maximum.accumulate(each.result.archive.scores).tolist())
    return {"winners": winners, "curves": curves, "seconds": sum(each.result.seconds for each in found.searches)}


def inherited(folder: str, architectures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy of architectures with a supernet's weights, on all validation images."""
    import numpy as np

    import snugnet
    from snugnet.search.image_scorer import ImageScorer

    family, data = snugnet.load(RUNS / folder), images("spos-cifar-10-cpu")
    everything = [list(range(len(family.classes)))]
    scorer = ImageScorer(
        family.supernet, family.calibration_batches, data.validation, everything, family.mean, family.std
    )
    rows = np.concatenate([family.space.from_dict(arch) for arch in architectures])
    return {"accuracies": scorer(rows)[:, 0].tolist()}


def apart(seed: int, found: dict[str, Any]) -> dict[str, Any]:
    """A supernet of blocks whose alternatives begin with weights of their own, and what its sub-networks reach."""
    from snugnet.supernets import supernet as module

    alike = module._begin_alike
    module._begin_alike = lambda network: None
    try:
        made = supernet("spos-cifar-10-cpu", f"apart-{seed}", [f"seed={seed}"])
    finally:
        module._begin_alike = alike
    return {**made, **inherited(f"apart-{seed}", found["architectures"])}


def judged(network: Any, data: Any) -> dict[str, Any]:
    """Accuracy of a network on test images of its classes."""
    from snugnet.training.calibration import accuracy, network_batches

    test = data.test.among([data.classes.index(name) for name in network.classes])
    batches = network_batches(test, network.family.mean, network.family.std, network.blueprint.resolution)
    return {
        "architecture": network.arch, "costs": network.costs, "validation": network.validation_accuracy,
        "test": accuracy(network.module, batches), "seconds": network.provenance["seconds"],
    }  # fmt: skip


def untrained(recipe: str, overrides: Sequence[str]) -> Any:
    """A family whose weights nobody uses: architectures of its space are trained from fresh ones."""
    from snugnet.pipeline import make_family, make_generator, make_space
    from snugnet.supernets import Supernet

    read, data = recipe_of(recipe, *overrides), images_of(recipe)
    space = make_space(read, data)
    return make_family(read, data, Supernet(space), make_generator(read, space, data), {})


def scratch(name: str, recipe: str, overrides: Sequence[str], arch: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train an architecture from fresh weights, by the recipe's section ``retraining``."""
    import snugnet

    network = snugnet.retrain(
        untrained(recipe, overrides), arch=arch, start="scratch", overrides=[f"seed={seed}"], out=RUNS / name,
        data=images_of(recipe), progress=False,
    )  # fmt: skip
    return judged(network, images_of(recipe))


def scratch_found(
    name: str, recipe: str, overrides: Sequence[str], place: int, seed: int, found: dict[str, Any], *others: Any
) -> dict[str, Any]:
    """The same for the winner of a search under its limit number ``place``; others are what the blocks stand fast by."""
    fixed = [f"space.fixed_blocks={each['fixed_blocks']}" for each in others]
    return scratch(name, recipe, [*overrides, *fixed], found["winners"][place]["architecture"], seed)


def one_unit(unit: int, seed: int) -> dict[str, Any]:
    """A network of one unit alone, its widths such that it costs what the searched ones may."""
    overrides = [f"space.fixed_blocks={[unit] * BLOCKS}"]
    arch = widest(unit)
    return scratch(f"unit-{unit}-{seed}", "spos-cifar-10-channels-cpu", overrides, arch, seed)


def widest(unit: int) -> dict[str, Any]:
    """One scale for all blocks, as large as fits; then the next one for the first blocks, for as many as fit."""
    from snugnet.costs import counted_table
    from snugnet.pipeline import make_space

    space = make_space(
        recipe_of("spos-cifar-10-channels-cpu", f"space.fixed_blocks={[unit] * BLOCKS}"), images("spos-cifar-10-cpu")
    )
    table, scales = counted_table(space, "madds"), list(space.choices[1].options)
    assert scales == space.options["channel_scales"]
    fitting: dict[str, Any] = {}
    for small, large in zip(scales, [*scales[1:], scales[-1]], strict=True):
        for wider in range(BLOCKS):
            arch = {"blocks": [unit] * BLOCKS, "channels": [large] * wider + [small] * (BLOCKS - wider)}
            if table(space.from_dict(arch))[0] <= MADDS:
                fitting = arch
    return fitting


def bits_alike(name: str, seed: int) -> dict[str, Any]:
    """All blocks with the same bits and the original channels."""
    bits = BITS[name]
    arch = {key: [bits] * BLOCKS for key in ("weight_bits", "activation_bits")} | {"channels": [1.0] * BLOCKS}
    overrides = [f"space.bits=[[{bits}, {bits}]]"]
    return scratch(f"bits-{name}-{seed}", "spos-resnet-mixed-precision-cpu", overrides, arch, seed)


def drawn() -> list[dict[str, Any]]:
    """Architectures to compare rankings over, their costs spread evenly."""
    import numpy as np

    from snugnet.costs import counted_table, sample
    from snugnet.pipeline import make_space

    space = make_space(recipe_of("spos-cifar-10-cpu"), images("spos-cifar-10-cpu"))
    table, rng = counted_table(space, "madds"), np.random.default_rng(7)
    low, high = table.range
    edges = np.linspace(low, high, TAU_ARCHITECTURES + 1)
    return [
        space.to_dict(sample(table, 1, rng, budget=upper, at_least=lower)[0])
        for lower, upper in itertools.pairwise(edges)
    ]


def fine_tuned(group: str, seed: int, _: Any) -> dict[str, Any]:
    """A superclass's network of the tiny-imagenet family, before and after a few epochs on its own images."""
    import snugnet
    from snugnet.training.calibration import accuracy

    family, data, group = snugnet.load(RUNS / "tiny"), images("tiny-imagenet-10-cpu"), group.replace("-", " ")
    plain = family.specialize(group, madds="40%")
    test = accuracy(plain.module, family.batches(data.test, plain.class_indices, plain.blueprint.resolution))
    started = time.perf_counter()
    network = snugnet.retrain(
        family, group=group, madds="40%", epochs=FINE_TUNED_EPOCHS, overrides=[f"seed={seed}", "threads=1"],
        out=RUNS / f"fine-{group.replace(' ', '-')}-{seed}", data=data, progress=False,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    return {**judged(network, data), "inherited": test, "inherited_validation": network.provenance["validation"]["start"],
            "wall_seconds": seconds}  # fmt: skip


def in_onnx_runtime(name: str, _: Any) -> dict[str, Any]:
    """A quantised network on all test images: torch's fake-quantised one beside ONNX Runtime, with bytes and with half bytes."""
    import torch

    import snugnet
    from snugnet.deploy import FileOptions, onnx_bytes, onnx_session
    from snugnet.training.calibration import network_batches

    network, data = snugnet.load(RUNS / name), images("spos-cifar-10-cpu")
    made: dict[str, Any] = {"bytes": dict(network.sizes), "images": len(data.test)}
    files = {opset: onnx_bytes(network.module, network.metadata(), FileOptions(opset=opset)) for opset in (17, 21)}
    sessions = {opset: onnx_session(content) for opset, content in files.items()}
    right, other = dict.fromkeys(("torch", *files), 0), dict.fromkeys(files, 0)
    batches = network_batches(data.test, network.family.mean, network.family.std, network.blueprint.resolution)
    for x, labels in batches:
        with torch.no_grad():
            expected = network.module(x).argmax(1)
        right["torch"] += int((expected == labels).sum())
        for opset, session in sessions.items():
            got = torch.from_numpy(session.run(["logits"], {"image": x.contiguous().numpy()})[0]).argmax(1)
            right[opset] += int((got == labels).sum())
            other[opset] += int((got != expected).sum())
    for opset, content in files.items():
        made["bytes"][f"onnx {opset}"] = len(content)
    return {**made, "accuracy": {str(key): n / len(data.test) for key, n in right.items()}, "other answers": other}


# -- which jobs there are ----------------------------------------------------------------------------------------------


def jobs() -> list[Job]:
    """In the order in which they are begun: all of the first seed, and then channels and bits last."""
    blocks, widths, bits = "spos-cifar-10-cpu", "spos-cifar-10-channels-cpu", "spos-resnet-mixed-precision-cpu"
    made = []
    for s in SEEDS:
        made += [
            Job(f"blocks-{s}", supernet, (blocks, f"blocks-{s}", [f"seed={s}"]), weights=True),
            Job(f"bits-{s}", supernet, (bits, f"bits-{s}", [f"seed={s}"]), weights=True),
            Job(f"evolution-{s}", search_blocks, ("evolution", s), (f"blocks-{s}",)),
            Job(f"random-{s}", search_blocks, ("random", s), (f"blocks-{s}",)),
            Job(f"channels-{s}", channels, (s,), (f"evolution-{s}",), weights=True),
            Job(f"bits-search-{s}", search_bits, (s,), (f"bits-{s}",)),
            Job(f"channels-search-{s}", search_channels, (s,), (f"channels-{s}",)),
            Job(f"found-blocks-{s}", scratch_found, (f"found-blocks-{s}", blocks, [], 0, s), (f"evolution-{s}",), weights=True),
            *(Job(f"unit-{unit}-{s}", one_unit, (unit, s)) for unit in range(4)),
            Job(
                f"found-channels-{s}", scratch_found, (f"found-channels-{s}", widths, [], 0, s),
                (f"channels-search-{s}", f"channels-{s}"), weights=True,
            ),
            *(
                Job(f"found-{name}-{s}", scratch_found, (f"found-{name}-{s}", bits, [], i, s), (f"bits-search-{s}",), weights=True)
                for i, name in enumerate(BITOPS)
            ),
            *(Job(f"bits-{name}-{s}", bits_alike, (name, s)) for name in BITOPS),
        ]  # fmt: skip
    groups = [name.replace(" ", "-") for name in tiny_groups()]
    for s in SEEDS:
        made += [Job(f"fine-{group}-{s}", fine_tuned, (group, s), ("tiny",)) for group in groups]
        made += [Job(f"onnx-{n}-{s}", in_onnx_runtime, (f"found-{n}-{s}",), (f"found-{n}-{s}",)) for n in BITOPS]
        made.append(Job(f"inherited-{s}", inherited_drawn, (s,), ("drawn", f"blocks-{s}")))
    of_all = [Job("tiny", supernet, ("tiny-imagenet-10-cpu", "tiny", TINY), weights=True), Job("drawn", architectures)]
    of_all += [Job(f"drawn-{i}", scratch_drawn, (i,), ("drawn",)) for i in range(TAU_ARCHITECTURES)]
    apart_0 = Job("apart-0", apart, (0,), ("drawn",))
    first = [job for job in made if job.name.endswith("-0")]
    rest = [job for job in made if not job.name.endswith("-0")]
    late = ("channels", "bits", "found-channels", *(f"{kind}-{n}" for kind in ("found", "onnx") for n in BITOPS))
    return [
        *first,
        *of_all,
        *sorted(rest, key=lambda job: (job.name.startswith(late), not job.name.startswith("fine"))),
        apart_0,
    ]


def tiny_groups() -> list[str]:
    return list(json.loads((ROOT.parent / "shared/data/tiny-imagenet-10/superclasses.json").read_text()))


def search_blocks(method: str, seed: int, _: Any) -> dict[str, Any]:
    return search(f"blocks-{seed}", method, "madds", [MADDS], seed, ROUNDS)


def search_channels(seed: int, _: Any) -> dict[str, Any]:
    return search(f"channels-{seed}", "evolution", "madds", [MADDS], seed, FEW_ROUNDS)


def search_bits(seed: int, _: Any) -> dict[str, Any]:
    return search(f"bits-{seed}", "evolution", "bitops", list(BITOPS.values()), seed, FEW_ROUNDS)


def architectures() -> dict[str, Any]:
    return {"architectures": drawn()}


def inherited_drawn(seed: int, found: dict[str, Any], _: Any) -> dict[str, Any]:
    return inherited(f"blocks-{seed}", found["architectures"])


def scratch_drawn(place: int, found: dict[str, Any]) -> dict[str, Any]:
    return scratch(f"drawn-{place}", "spos-cifar-10-cpu", [], found["architectures"][place], 0)


def all_jobs() -> Jobs:
    """All of them, and where their results lie."""
    return Jobs(jobs(), RUNS, OUT.with_suffix(".json"))


if __name__ == "__main__":
    all_jobs().run()
    from single_path_report import report

    report()
