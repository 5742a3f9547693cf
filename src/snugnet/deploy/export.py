"""A network as a file, checked before it is written."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from snugnet.deploy.int8 import Images, quantised
from snugnet.deploy.onnx import OPSET, check_versions, onnx_model, sort_nodes
from snugnet.deploy.sessions import logits_of
from snugnet.deploy.traps import check_graph
from snugnet.errors import ConfigError, DataError, ExportError
from snugnet.extras import needs
from snugnet.files import write_atomically
from snugnet.nn.network import Network

PRECISIONS = ("float32", "float16", "int8")
FORMATS = {".onnx": "ONNX", ".pt2": "torch.export"}
TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest logit, between a file and the network it was made from."""
QUANTISED_TOLERANCE = 0.1
"""The same where layers are quantised: a number at the border of two levels may be rounded to the other one, and what follows
from that is as large as a level, not as a rounding of floats. (On two networks of benchmarks/single_path.py, a single clip that is a
tenth too large gave 0.11 to 0.34, a layer of codes that are off 0.16 and more, and what was right less than 1e-6.)"""

FLOAT16_TOLERANCE = 0.03
"""The same of a float16 file, whose numbers have 11 bits (0.003 was the most over the networks of benchmarks/runtimes.py)."""


@dataclass(frozen=True)
class FileOptions:
    """What a file is to be like; all but float32 at the defaults is of ``.onnx`` files.

    Attributes:
        precision: one of :data:`PRECISIONS`: weights and what layers hand on. Inputs and outputs are float32 in all of them.
        opset: one of :data:`snugnet.deploy.onnx.IR_VERSIONS`; from 21 on, weights that were trained at four bits or less take half a byte.
        ir_version: the least that the opset allows without it, which the oldest runtimes take.
    """

    precision: str = "float32"
    opset: int = OPSET
    ir_version: int | None = None

    def __post_init__(self) -> None:
        """Check the precision, the opset and the IR version.

        Raises:
            ConfigError: one of them is not known.
        """
        if self.precision not in PRECISIONS:
            raise ConfigError(f"precisions are {', '.join(PRECISIONS)}, got {self.precision!r}")
        check_versions(self.opset, self.ir_version)

    def check(self, path: Path) -> None:
        """Refuse what is not of a file's format.

        Raises:
            ConfigError: names it.
        """
        for key, value in asdict(self).items():
            if path.suffix != ".onnx" and value != getattr(FileOptions(), key):
                raise ConfigError(f"--{key.replace('_', '-')} {value} is of .onnx files, got {path}")


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


def export(
    network: Network,
    path: str | Path,
    metadata: Mapping[str, Any],
    options: FileOptions = FileOptions(),
    images: tuple[Images, Images] | None = None,
) -> Path:
    """Write a network as ONNX (``.onnx``) or ``torch.export`` (``.pt2``), after running the file against the network.

    Args:
        network: in eval mode.
        path: of the file; its suffix names the format. Replaced atomically.
        metadata: JSON-able; class names, mean and std, architecture.
        options: precision, opset, IR version.
        images: of int8, see :func:`onnx_bytes`.

    Returns:
        The path.

    Raises:
        ConfigError: the suffix names no format, or the options are not of it.
        DataError: there are too few images for int8.
        ExportError: the network is in training mode, or what was made does not agree with it; nothing is written.
    """
    path = check_format(path)
    options.check(path)
    content = checked_bytes(network, path.suffix, metadata, options, images)
    write_atomically(path, content)
    return path


def checked_bytes(
    network: Network,
    suffix: str,
    metadata: Mapping[str, Any],
    options: FileOptions = FileOptions(),
    images: tuple[Images, Images] | None = None,
) -> bytes:
    """What :func:`export` writes, after it was run against the network.

    Args:
        network: in eval mode.
        suffix: one of :data:`FORMATS`.
        metadata, options, images: as for :func:`export`.

    Raises:
        ConfigError: the precision does not go with the network.
        DataError: there are too few images for int8.
        ExportError: as from :func:`export`.
    """
    if network.training:
        raise ExportError("the network is in training mode; call network.eval() before exporting it")
    if suffix == ".onnx":
        content = onnx_bytes(network, metadata, options, images)
        # int8 is compared where it is made
        difference = 0.0 if options.precision == "int8" else onnx_difference(network, content)
    else:
        content = torch_export_bytes(network, metadata)
        difference = torch_export_difference(network, content)
    tolerance = QUANTISED_TOLERANCE if network.blueprint.quantised else TOLERANCE
    if options.precision == "float16":
        tolerance = FLOAT16_TOLERANCE
    if not difference <= tolerance:
        raise ExportError(f"the {suffix} file differs from the network by {difference:.2e} of its largest logit")
    return content


def onnx_bytes(
    network: Network,
    metadata: Mapping[str, Any],
    options: FileOptions = FileOptions(),
    images: tuple[Images, Images] | None = None,
) -> bytes:
    """The ONNX file of a network, from its blueprint.

    Args:
        network: in eval mode.
        metadata: JSON-able.
        options: precision, opset, IR version.
        images: of int8: normalised ones that ranges are measured on, and normalised ones on which the file is compared with the
            float one, (n, 3, h, w) each.

    Raises:
        ConfigError: the network is trained at a few bits, and the precision is not float32.
        DataError: there are too few images for int8.
        ExportError: the int8 file does not agree with the float one on 99% of the images whatever is done.
    """
    state = {name: tensor.detach().cpu().numpy() for name, tensor in network.state_dict().items()}
    model = onnx_model(network.blueprint, state, metadata, opset=options.opset, ir_version=options.ir_version)
    if options.precision == "float32":
        content: bytes = model.SerializeToString()
        return content
    if network.blueprint.quantised:
        raise ConfigError(
            f"the network's layers are at a few bits as they were trained; it is not made {options.precision}"
        )
    if options.precision == "float16":
        return float16(model)
    if images is None:
        raise DataError("int8 needs images: to measure ranges on, and to compare the file with the float one")
    return quantised(model.SerializeToString(), *images)


def float16(model: onnx.ModelProto) -> bytes:
    """The float16 file of a float32 one, by onnxruntime's own tool; inputs and outputs stay float32.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        ExportError: it has no such tool.
    """
    needs("onnxruntime")
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ExportError(f"float16 needs onnxruntime's tool for it, which is missing here: {error}") from error
    made = convert_float_to_float16(model, keep_io_types=True)
    sort_nodes(made)
    onnx.checker.check_model(made)
    check_graph(made)
    content: bytes = made.SerializeToString()
    return content


def torch_export_bytes(network: Network, metadata: Mapping[str, Any]) -> bytes:
    """The ``torch.export`` archive of a network: dynamic batch size, metadata in ``snugnet.json`` inside it."""
    device = next(network.parameters()).device
    example = torch.zeros(2, network.blueprint.in_channels, *[network.blueprint.resolution] * 2, device=device)
    with torch.no_grad():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"snugnet.json": json.dumps(dict(metadata))})
    return buffer.getvalue()


def onnx_difference(network: Network, content: bytes, *, batch: int = 3, seed: int = 0) -> float:
    """Largest difference between the file's logits (:func:`snugnet.deploy.sessions.logits_of`) and the network's, relative to the largest."""
    images, expected = _example(network, batch, seed)
    return _difference(torch.from_numpy(logits_of(content, images.float().cpu().numpy())), expected)


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
