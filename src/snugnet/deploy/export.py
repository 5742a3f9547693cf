"""A network as a file, checked before it is written."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snugnet.deploy.onnx import OPSET, onnx_model
from snugnet.errors import ConfigError, ExportError
from snugnet.files import write_atomically
from snugnet.nn.network import Network

FORMATS = {".onnx": "ONNX", ".pt2": "torch.export"}
TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest logit, between a file and the network it was made from."""
QUANTISED_TOLERANCE = 0.1
"""The same where layers are quantised: a number at the border of two levels may be rounded to the other one, and what follows
from that is as large as a level, not as a rounding of floats. (On two networks of benchmarks/single_path.py, a single clip that is a
tenth too large gave 0.11 to 0.34, a layer of codes that are off 0.16 and more, and what was right less than 1e-6.)"""


def check_format(path: str | Path) -> Path:
    """The path, if its suffix names a format.

    Raises:
        ConfigError: it does not.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        known = ", ".join(f"{suffix} ({name})" for suffix, name in FORMATS.items())
        raise ConfigError(f"cannot tell the format of {str(path)!r}; allowed: {known}")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file")
    return path


def export(network: Network, path: str | Path, metadata: Mapping[str, Any], opset: int = OPSET) -> Path:
    """Write a network as ONNX (``.onnx``) or ``torch.export`` (``.pt2``), after running the file against the network.

    Args:
        network: in eval mode.
        path: of the file; its suffix names the format. Replaced atomically.
        metadata: JSON-able; class names, mean and std, architecture.
        opset: of an ONNX file; with 21 quantised weights of at most four bits take half a byte.

    Returns:
        The path.

    Raises:
        ConfigError: the suffix names no format, or the opset is not one of those.
        ExportError: the network is in training mode, or what was made does not agree with it; nothing is written.
    """
    path = check_format(path)
    write_atomically(path, checked_bytes(network, path.suffix, metadata, opset))
    return path


def checked_bytes(network: Network, suffix: str, metadata: Mapping[str, Any], opset: int = OPSET) -> bytes:
    """What :func:`export` writes, after it was run against the network.

    Args:
        network: in eval mode.
        suffix: one of :data:`FORMATS`.
        metadata: as for :func:`export`.
        opset: as for :func:`export`.

    Raises:
        ConfigError: there is no such opset.
        ExportError: as from :func:`export`.
    """
    if network.training:
        raise ExportError("the network is in training mode; call network.eval() before exporting it")
    if suffix == ".onnx":
        content = onnx_bytes(network, metadata, opset)
        difference = onnx_difference(network, content)
    else:
        content = torch_export_bytes(network, metadata)
        difference = torch_export_difference(network, content)
    if not difference <= (QUANTISED_TOLERANCE if network.blueprint.quantised else TOLERANCE):
        raise ExportError(f"the {suffix} file differs from the network by {difference:.2e} of its largest logit")
    return content


def onnx_bytes(network: Network, metadata: Mapping[str, Any], opset: int = OPSET) -> bytes:
    """The ONNX file of a network, from its blueprint; with opset 21, weights of at most four bits take half a byte."""
    state = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    return onnx_model(network.blueprint, state, metadata, opset=opset).SerializeToString()


def torch_export_bytes(network: Network, metadata: Mapping[str, Any]) -> bytes:
    """The ``torch.export`` archive of a network: dynamic batch size, metadata in ``snugnet.json`` inside it."""
    device = next(network.parameters()).device
    example = torch.zeros(2, network.blueprint.in_channels, *[network.blueprint.resolution] * 2, device=device)
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"snugnet.json": json.dumps(dict(metadata))})
    return buffer.getvalue()


def onnx_session(content: bytes, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def onnx_difference(network: Network, content: bytes, *, batch: int = 3, seed: int = 0) -> float:
    """Largest difference between ONNX Runtime's logits and the network's, relative to the network's largest."""
    images, expected = _example(network, batch, seed)
    (got,) = onnx_session(content).run(["logits"], {"image": images.float().cpu().numpy()})
    return _difference(torch.from_numpy(got), expected)


def torch_export_difference(network: Network, content: bytes, *, batch: int = 3, seed: int = 0) -> float:
    """Largest difference between the archive's logits and the network's, relative to the network's largest."""
    images, expected = _example(network, batch, seed)
    program = torch.export.load(io.BytesIO(content))
    with torch.no_grad():
        return _difference(program.module()(images), expected)


def _example(network: Network, batch: int, seed: int) -> tuple[Tensor, Tensor]:
    """Normal noise as images, where the network is, and its logits."""
    size = (batch, network.blueprint.in_channels, network.blueprint.resolution, network.blueprint.resolution)
    images = torch.from_numpy(np.random.default_rng(seed).standard_normal(size).astype(np.float32))
    images = images.to(next(network.parameters()))
    with torch.no_grad():
        return images, network(images)


def _difference(got: Tensor, expected: Tensor) -> float:
    got, expected = got.double().cpu(), expected.double().cpu()
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))


def measured_ms(content: bytes, *, repeats: int = 20, threads: int = 1) -> float:
    """Median time of one image through ONNX Runtime on this CPU, in milliseconds, after a warm-up."""
    session = onnx_session(content, threads)
    entry = session.get_inputs()[0]
    image = np.zeros((1, *entry.shape[1:]), dtype=np.float32)
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        session.run(None, {entry.name: image})
        times.append(time.perf_counter() - start)
    return float(np.median(times[3:]) * 1e3)
