"""Checkpoints: whole or not at all, and training goes on from one as if nothing had happened."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from snugnet.errors import TrainingError
from snugnet.files import write_atomically
from snugnet.nn.network import with_layout
from snugnet.spaces import SearchSpace
from snugnet.supernets import Supernet
from snugnet.training.checkpoint import (
    load_checkpoint,
    load_optimizer,
    optimizer_tensors,
    save_checkpoint,
    split_prefix,
)


def test_round_trip(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(2, 3),
        "b.c": torch.arange(4),
        "scalar": torch.tensor(5.0),
        "empty": torch.empty(0, 3),
        "last": torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last),
        "view": torch.randn(6, 6)[1:3, ::2],
        "half": torch.randn(3).bfloat16(),
        "flags": torch.tensor([True, False]),
        "parameter": nn.Parameter(torch.randn(2)),
    }
    state = {"step": 3, "name": "naïve", "nested": {"x": [1.5, None, True]}}
    path = tmp_path / "deep" / "x.safetensors"
    save_checkpoint(path, tensors, state)
    loaded, read = load_checkpoint(path)
    assert read == state
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor), name
        assert loaded[name].dtype == tensor.dtype
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("broken", ["replace", "fsync"])
def test_a_crash_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.zeros(2)}, {"step": 1})

    def crash(*_: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, broken, crash)
        with pytest.raises(OSError, match="no space"):
            save_checkpoint(path, {"a": torch.ones(2)}, {"step": 2})
        with pytest.raises(OSError, match="no space"):
            write_atomically(tmp_path / "new.bin", b"content")
    loaded, state = load_checkpoint(path)
    assert state == {"step": 1}
    assert loaded["a"].tolist() == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_not_saved(tmp_path: Path, value: float) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.zeros(2)}, {"step": 1})
    with pytest.raises(TrainingError, match="b is no longer finite"):
        save_checkpoint(path, {"a": torch.ones(2), "b": torch.tensor([0.0, value])}, {"step": 2})
    assert load_checkpoint(path)[1] == {"step": 1}


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.randn(100)}, {"step": 1})
    whole = path.read_bytes()
    for size in (0, 4, 8, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(TrainingError, match=r"x\.safetensors is no checkpoint"):
            load_checkpoint(path)
    path.write_bytes(b"not a checkpoint at all")
    with pytest.raises(TrainingError, match="is no checkpoint"):
        load_checkpoint(path)
    with pytest.raises(TrainingError, match="is no checkpoint"):
        load_checkpoint(tmp_path / "missing")
    with pytest.raises(TrainingError, match="is no checkpoint"):
        load_checkpoint(tmp_path)
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, path)  # a safetensors file, but without our state
    with pytest.raises(TrainingError, match="is no checkpoint"):
        load_checkpoint(path)


def test_split_prefix() -> None:
    tensors = {"a.x": torch.zeros(1), "a.b.y": torch.ones(1), "ab.z": torch.ones(1), "a": torch.ones(1)}
    assert split_prefix(tensors, "a") == {"x": tensors["a.x"], "b.y": tensors["a.b.y"]}
    assert split_prefix(tensors, "none") == {}


class Small(nn.Module):
    """A network with weights of one to four axes, one of which never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.unused = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        """Images to two numbers."""
        return self.linear(self.norm(self.conv(x)).relu().mean((2, 3))) * self.scale


OPTIMIZERS: list[Callable[..., torch.optim.Optimizer]] = [
    lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3),
    lambda p: torch.optim.SGD(p, lr=0.1),
    lambda p: torch.optim.Adam(p, lr=0.05),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stop", [0, 1, 5])
def test_training_goes_on_bit_for_bit(
    tmp_path: Path, make: Callable[..., torch.optim.Optimizer], layout: torch.memory_format, stop: int
) -> None:
    torch.manual_seed(0)
    data = torch.randn(10, 4, 3, 8, 8)
    first = Small().to(memory_format=layout)

    def steps(module: nn.Module, optimizer: torch.optim.Optimizer, start: int, end: int) -> None:
        for x in data[start:end]:
            optimizer.zero_grad(set_to_none=True)
            module(x).square().mean().backward()
            optimizer.step()

    optimizer = make(first.parameters())
    steps(first, optimizer, 0, stop)
    tensors = {f"module.{name}": tensor for name, tensor in first.state_dict().items()}
    held = optimizer_tensors(optimizer, first)
    assert not any(name.startswith("unused/") for name in held)
    save_checkpoint(
        tmp_path / "x", {**tensors, **{f"optimizer.{name}": tensor for name, tensor in held.items()}}, {"step": stop}
    )
    before = {name: tensor.clone() for name, tensor in held.items()}
    steps(first, optimizer, stop, 10)

    second = Small().to(memory_format=layout)
    loaded, _ = load_checkpoint(tmp_path / "x")
    second.load_state_dict(split_prefix(loaded, "module"))
    resumed = make(second.parameters())
    load_optimizer(resumed, second, split_prefix(loaded, "optimizer"))
    again = optimizer_tensors(resumed, second)
    assert set(again) == set(before)
    assert all(torch.equal(again[name], tensor) for name, tensor in before.items())
    steps(second, resumed, stop, 10)
    for name, tensor in first.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_loaded_optimizer_is_laid_out_in_memory_as_its_parameters_are(
    tiny_space: SearchSpace, layout: torch.memory_format
) -> None:
    """In every space: weights of one channel or of one pixel look alike in both layouts, and still have strides of their own."""
    supernet = with_layout(Supernet(tiny_space), layout).train()
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9)
    x = torch.randn(4, 3, tiny_space.resolution, tiny_space.resolution)
    supernet(x, tiny_space.largest).sum().backward()
    optimizer.step()
    held = {
        name: tensor.contiguous() for name, tensor in optimizer_tensors(optimizer, supernet).items()
    }  # as from a file
    resumed = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9)
    load_optimizer(resumed, supernet, held)
    for name, parameter in supernet.named_parameters():
        if parameter in resumed.state:
            momentum = resumed.state[parameter]["momentum_buffer"]
            assert momentum.stride() == parameter.stride(), name
            assert not momentum.requires_grad
            assert torch.equal(momentum, held[f"{name}/momentum_buffer"])


def test_a_loaded_optimizer_has_its_parameters_type_and_a_counter_its_own() -> None:
    module = Small()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    held = copy.deepcopy(optimizer_tensors(optimizer, module))
    doubled = copy.deepcopy(module).double()
    other = torch.optim.Adam(doubled.parameters())
    load_optimizer(other, doubled, held)
    state = other.state[doubled.conv.weight]
    assert state["exp_avg"].dtype == torch.float64
    assert state["step"].dtype == torch.float32
