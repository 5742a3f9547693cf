"""Block graphs, the teacher's graph and fused updates on a CUDA device. ``make test-gpu``."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snugnet.data import load_data
from snugnet.nn.convolution import convolve
from snugnet.nn.network import with_layout
from snugnet.pipeline import train_supernet
from snugnet.recipe import parse_recipe
from snugnet.spaces import Layer, SearchSpace, get_space
from snugnet.spaces.graph import steps
from snugnet.spaces.variants import block_variants
from snugnet.supernets import Supernet
from snugnet.supernets.graphs import BlockGraphs, CudaRecorder, fitting, recorded_output
from snugnet.training.device import make_fabric
from snugnet.training.graphs import folded_copy
from snugnet.training.loop import RunLog
from snugnet.training.optimizer import make_optimizer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]
IMAGES = 32
PRECISIONS = {
    "bfloat16": (torch.bfloat16, partial(torch.autocast, "cuda", torch.bfloat16, cache_enabled=False)),
    "float32": (torch.float32, nullcontext),
}


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)


def space_of() -> SearchSpace:
    strides = {"stem_stride": 1, "stage_strides": (2, 2, 2, 1, 2)}
    return get_space("ofa-mobilenet-v3", width_mult=0.5, resolution=32, num_classes=10, **strides)


def supernet_of(space: SearchSpace) -> Supernet:
    return with_layout(Supernet(space, seed=1).cuda(), torch.channels_last).train()


def images_of(space: SearchSpace, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(IMAGES, 3, space.resolution, space.resolution, generator=generator)
    return x.cuda().to(memory_format=torch.channels_last)


def learn(supernet: Supernet, archs: np.ndarray, precision: Any, **how: Any) -> list[Tensor]:
    logits = []
    for i, arch in enumerate(archs):
        with precision():
            out = supernet(images_of(supernet.space, i), arch, **how)
        logits.append(out.detach().clone())
        F.cross_entropy(out.float(), torch.arange(IMAGES, device="cuda") % 10).backward()
    return logits


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", PRECISIONS)
def test_gradients_are_those_without_graphs(name: str) -> None:
    dtype, precision = PRECISIONS[name]
    space = space_of()
    eager, graphed = supernet_of(space), supernet_of(space)
    archs = np.concatenate([space.largest, space.sample(4, np.random.default_rng(0)), space.smallest])
    graphs = BlockGraphs(graphed, IMAGES, CudaRecorder(), dtype, precision)
    blocks = list(dict.fromkeys(step.node for arch in archs for step in steps(space.blueprint(arch))))
    assert graphs.add(blocks) == ""
    for key, tensor in eager.state_dict().items():
        assert torch.equal(tensor, graphed.state_dict()[key]), key  # warming up leaves no traces
    for _ in range(2):
        eager.zero_grad(set_to_none=True)
        graphs.begin(archs)
        expected, got = learn(eager, archs, precision), learn(graphed, archs, precision, blocks=graphs)
        torch.cuda.synchronize()
        for one, other in zip(expected, got, strict=True):
            assert torch.equal(one, other)
        ours = gradients(graphed)
        for key, gradient in gradients(eager).items():
            assert torch.equal(gradient, ours.pop(key)), key
        assert not ours
    assert not graphs.missed


def test_one_graph_of_the_largest_network() -> None:
    dtype, precision = PRECISIONS["bfloat16"]
    space = space_of()
    eager, graphed = supernet_of(space), supernet_of(space)
    graphs = BlockGraphs(graphed, IMAGES, CudaRecorder(), dtype, precision)
    whole = graphs.whole(space.largest)
    graphs.begin(space.largest)
    x, labels = images_of(space, 0), torch.arange(IMAGES, device="cuda") % 10
    F.cross_entropy(whole(x).float(), labels).backward()
    learn(eager, space.largest, precision)
    for key, gradient in gradients(eager).items():
        assert torch.equal(gradient, gradients(graphed)[key]), key


def test_the_memory_is_about_what_was_estimated() -> None:
    dtype, precision = PRECISIONS["bfloat16"]
    space = space_of()
    supernet = supernet_of(space)
    variants = block_variants(space)
    blocks, size = fitting(variants, IMAGES, dtype.itemsize, 1e12)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    graphs = BlockGraphs(supernet, IMAGES, CudaRecorder(), dtype, precision)
    assert graphs.add(blocks) == ""
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() - before < 2 * size + (1 << 30)  # pools are cut into pieces of 2 and 20 MiB


def test_the_teacher_as_one_graph() -> None:
    dtype, precision = PRECISIONS["bfloat16"]
    space = space_of()
    supernet = supernet_of(space)
    with torch.no_grad():
        for seed in range(20):  # statistics that are not the trivial ones
            supernet(images_of(space, seed), space.largest)
    teacher = supernet.extract(space.largest).eval()
    run = recorded_output(folded_copy(teacher, dtype), images_of(space, 0), CudaRecorder(), precision)
    x = images_of(space, 99)
    with torch.no_grad():
        expected = teacher(x)
    assert (run(x).float() - expected).norm() < 0.05 * expected.norm()


def test_depthwise_convolutions_in_either_layout_are_the_same() -> None:
    layer = Layer("depthwise", "conv", 24, 24, 16, 5, stride=2, groups=24)
    x = torch.randn(8, 24, 16, 16, device="cuda", requires_grad=True)
    weight = torch.randn(24, 1, 7, 7, device="cuda").to(memory_format=torch.channels_last)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        out = convolve(x.to(memory_format=layout), weight[:, :, 1:6, 1:6], None, layer)
        assert out.is_contiguous(memory_format=layout)
        found.append((out, *torch.autograd.grad(out.square().sum(), x)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_parameters_are_updated_by_few_kernels() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).cuda()
    assert make_optimizer(module, 0.9, 1e-4).defaults["fused"] is True
    assert make_optimizer(module.cpu(), 0.9, 1e-4).defaults["fused"] is None


def test_a_training_by_graphs_is_one_without(tmp_path: Path) -> None:
    """All stages, the teacher's graph apart, whose numbers are rounded otherwise."""
    found = []
    for graphs in ("auto", "off"):
        made = parse_recipe(
            {
                "name": "tiny", "output": str(tmp_path / graphs), "device": "cuda",
                "data": {"source": "digits", "resolution": 8, "groups": "digits", "validation": 0.2},
                "augment": {"crop_padding": 1, "flip": True},
                "space": {"width_mult": 0.2, "stem_stride": 1, "stage_strides": [2, 1, 1, 1, 1]},
                "training": {
                    "batch_size": 64, "distillation": 0.0, "superclass_dropout": 0.5, "graphs": graphs,
                    "stages": [
                        {"name": "largest", "epochs": 1, "learning_rate": 0.05},
                        {"name": "all", "epochs": 1, "learning_rate": 0.05, "elastic": "all", "sampling": "best-up", "sandwich": True},
                    ],
                },
            }
        )  # fmt: skip
        data = load_data(made.data, progress=False)
        with RunLog(tmp_path / graphs) as log:
            supernet, _ = train_supernet(made, data, make_fabric(made), log, progress=False)
        found.append(supernet.state_dict())
    for key, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][key], rtol=1e-3, atol=1e-4, msg=lambda m, key=key: f"{key}: {m}")
