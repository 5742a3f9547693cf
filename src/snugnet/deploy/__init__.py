"""A blueprint and its module as a file."""

from snugnet.deploy.export import (
    FORMATS,
    PRECISIONS,
    FileOptions,
    check_format,
    export,
    onnx_bytes,
    onnx_difference,
    torch_export_bytes,
)
from snugnet.deploy.int8 import Int8, int8_facts
from snugnet.deploy.sessions import compared_ms, measured_ms, onnx_session, run_batches

__all__ = [
    "FORMATS",
    "FileOptions",
    "Int8",
    "PRECISIONS",
    "check_format",
    "compared_ms",
    "export",
    "int8_facts",
    "measured_ms",
    "onnx_bytes",
    "onnx_difference",
    "onnx_session",
    "run_batches",
    "torch_export_bytes",
]
