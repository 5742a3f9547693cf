"""Bringing the published once-for-all predictor into a space's own one-hot order."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from snugnet.errors import PredictorError
from snugnet.spaces import SearchSpace

_KERNELS, _EXPANDS, _RESOLUTIONS = (3, 5, 7), (3, 4, 6), tuple(range(112, 225, 16))
_SLOTS = 4  # blocks a stage
_SHAPES = {"0": (400, 128), "2": (400, 400), "4": (400, 400), "6": (1, 400)}


def ofa_layers(path: Path, space: SearchSpace) -> dict[str, torch.Tensor]:
    """The layers for the space's codes, output in per cent; see :meth:`MLPPredictor.from_ofa`.

    Raises:
        PredictorError: the file is another, or the space has options that the predictor does not know.
    """
    try:
        state = {name: tensor.float() for name, tensor in safetensors.torch.load_file(path).items()}
    except (OSError, safetensors.SafetensorError) as error:
        raise PredictorError(f"cannot read the predictor {path}: {error}") from error
    if {k: tuple(v.shape) for k, v in state.items() if k.endswith("weight")} != {
        f"{k}.weight": shape for k, shape in _SHAPES.items()
    }:
        raise PredictorError(f"{path} is not the published once-for-all predictor (128-400-400-400-1)")
    if space.name != "ofa-mobilenet-v3" or space.options["width_mult"] != 1.2:
        raise PredictorError("the published predictor is of the space ofa-mobilenet-v3 with width_mult 1.2")
    published = state["0.weight"]
    weight = torch.zeros(len(published), int(space.offsets[-1]))
    for i, choice in enumerate(space.choices):
        if choice.kind == "depth":  # it knows the depth by the blocks that are there
            continue
        for o, option in enumerate(choice.options):
            weight[:, space.offsets[i] + o] = published[:, _input(choice.name, option)]
    state["0.weight"] = weight
    if "resolution" not in space.column:
        state["0.bias"] = state["0.bias"] + published[:, _input("resolution", space.resolution)]
    state["6.weight"], state["6.bias"] = state["6.weight"] * 100, state["6.bias"] * 100
    return state


def _input(name: str, option: object) -> int:
    """Position of one option of one choice in the published code: kernels, expand ratios, resolution."""
    kind = name.rpartition(".")[2]
    known, start, slot = {
        "kernel_size": (_KERNELS, 0, 3),
        "expand_ratio": (_EXPANDS, 60, 3),
        "resolution": (_RESOLUTIONS, 120, 0),
    }[kind]
    position = 0
    if kind != "resolution":
        stage, block = (int(part[5:]) - 1 for part in name.split(".")[:2])
        if block >= _SLOTS:
            raise PredictorError(f"the published predictor knows {_SLOTS} blocks a stage; the space has {name}")
        position = stage * _SLOTS + block
    if option not in known:
        raise PredictorError(f"the published predictor does not know {name} = {option!r}; known: {list(known)}")
    return start + position * slot + known.index(option)
