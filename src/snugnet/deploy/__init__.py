"""A blueprint and its module as a file."""

from snugnet.deploy.export import (
    FORMATS,
    check_format,
    export,
    measured_ms,
    onnx_bytes,
    onnx_difference,
    torch_export_bytes,
)

__all__ = ["FORMATS", "check_format", "export", "measured_ms", "onnx_bytes", "onnx_difference", "torch_export_bytes"]
