"""Static int8 of an ONNX file, by onnxruntime's own tools: ranges that images measured, and layers that break it kept in float.

Activations are unsigned bytes, one scale a tensor; weights are signed and symmetric, one scale a channel, and use seven of their eight
bits: x86 CPUs without VNNI add products of bytes two by two in sixteen bits, which overflows for weights of eight bits, without a
word (docs/int8.md has what that costs). Between the layers the file has QuantizeLinear and DequantizeLinear, which any runtime reads.
"""

from __future__ import annotations

import io
import json
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from snugnet.deploy.onnx import sort_nodes
from snugnet.deploy.sessions import float_operators, onnx_session, run_batches
from snugnet.deploy.traps import check_graph
from snugnet.errors import DataError, ExportError
from snugnet.extras import needs

RANGES = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
"""How a tensor's range is read off its values, and the tool's name for it, in the order in which they are tried."""
ENOUGH = 0.99
"""Share of images of which the int8 file must say what the float one says; its accuracy on them is then at most a point off."""
FEWEST, MOST = 16, 64
"""Images for ranges: the fewest that are taken for any, and so many, spread over what there is."""
KEY = "int8"
"""Of the file's metadata."""

Images = NDArray[np.float32]
_SILENT = threading.Lock()  # the tool prints, and standard output is one for all threads


@dataclass(frozen=True)
class Int8:
    """What is known of an int8 file; it stands in the file's metadata under :data:`KEY`.

    Attributes:
        ranges: one of :data:`RANGES`.
        agreement: share of the images it was judged on of which it says what the float file says.
        judged_on: how many these are.
        kept_float: layers that are in float because the file would not agree otherwise.
        float_operators: what ONNX Runtime computes in float, and how often, besides changes between float and int8.
    """

    ranges: str
    agreement: float
    judged_on: int
    kept_float: tuple[str, ...]
    float_operators: dict[str, int]


def quantised(content: bytes, calibration: Images, judged: Images | None) -> bytes:
    """The int8 file of a float one.

    Ranges are the least and the largest value. Where the file does not agree with the float one on :data:`ENOUGH` of the images, ranges
    by percentile and by entropy are tried, and the best are kept; and where that is not enough either, layers stay in float: those that
    alone move the logits most, twice as many each time.

    Args:
        content: an ONNX file with input ``image`` and output ``logits``.
        calibration: normalised images that ranges are measured on, (n, 3, h, w).
        judged: normalised images to compare the files on; None for a file that is only timed: all layers int8, ranges by minimum and maximum.

    Raises:
        DataError: there are fewer than :data:`FEWEST` images for ranges, or none to compare on.
        ExportError: onnxruntime's tools are missing or fail, or not one layer can be int8.
    """
    if len(calibration) < FEWEST:
        raise DataError(f"int8 ranges need at least {FEWEST} images, got {len(calibration)}")
    if judged is not None and not len(judged):
        raise DataError("an int8 file is compared with the float one on images, got none")
    with tempfile.TemporaryDirectory(prefix="snugnet-int8-") as folder:
        images = calibration[:: -(-len(calibration) // MOST)]
        attempt = _Quantiser(content, images, images if judged is None else judged, Path(folder))
        made, known = attempt.best(0.0 if judged is None else ENOUGH)
    model = onnx.load_from_string(made)
    about = {**asdict(known), "float_operators": float_operators(made)}
    model.metadata_props.add(key=KEY, value=json.dumps(about))
    sort_nodes(model)
    onnx.checker.check_model(model)
    check_graph(model)
    serialised: bytes = model.SerializeToString()
    return serialised


def int8_facts(content: bytes) -> Int8 | None:
    """What an ONNX file says of its being int8; None where it is not."""
    for each in onnx.load_from_string(content).metadata_props:
        if each.key == KEY:
            about = json.loads(each.value)
            return Int8(**{**about, "kept_float": tuple(about["kept_float"])})
    return None


def tools() -> Any:
    """onnxruntime's quantisation tools.

    Raises:
        MissingPackageError: onnxruntime is not installed.
        ExportError: they cannot be imported.
    """
    needs("onnxruntime")
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization import registry
    except ImportError as error:
        raise ExportError(f"int8 needs onnxruntime's quantisation tools, and they are missing here: {error}") from error
    assert registry
    return quantization


class _Quantiser:
    """The ways to quantise one file, and how far each is from the float file."""

    def __init__(self, content: bytes, calibration: Images, judged: Images, folder: Path) -> None:
        self.content, self.calibration, self.judged, self.folder = content, calibration, judged, folder
        self.tools = tools()
        self.operators = [
            name for name in self.tools.registry.QDQRegistry if name != "BatchNormalization"
        ]  # has no int8 kernel
        self.path = folder / "float.onnx"
        self.path.write_bytes(content)

    @cached_property
    def expected(self) -> Images:
        """The float file's logits."""
        return run_batches(onnx_session(self.content), self.judged)

    @cached_property
    def layers(self) -> dict[str, list[str]]:
        """Nodes that can be quantised, by the layer that they are of."""
        found: dict[str, list[str]] = {}
        for node in onnx.load_from_string(self.content).graph.node:
            if node.op_type in self.operators:
                found.setdefault(".".join(node.name.split(".")[:2]), []).append(node.name)
        return found

    def best(self, enough: float) -> tuple[bytes, Int8]:
        """The first way that agrees with the float file on so many of the images."""
        tried: dict[str, tuple[float, float]] = {}
        files, tables = {}, {}
        for ranges in RANGES:
            tables[ranges] = self._ranges(ranges)
            files[ranges] = self._file(tables[ranges])
            tried[ranges] = self._compared(files[ranges])
            if tried[ranges][0] >= enough:
                break
        ranges = max(tried, key=lambda name: tried[name])
        made, (agreement, _) = files[ranges], tried[ranges]
        kept: list[str] = []
        worst = [] if agreement >= enough else self._by_harm(tables[ranges])
        while agreement < enough:
            kept = worst[: max(1, 2 * len(kept))]
            if len(kept) == len(self.layers):
                raise ExportError(
                    f"no layer can be int8: the file agrees with the float one on {agreement:.1%} of {len(self.judged)} images, "
                    f"and {enough:.0%} are needed; export it as float32 or float16"
                )
            made = self._file(tables[ranges], exclude=[node for layer in kept for node in self.layers[layer]])
            agreement, _ = self._compared(made)
        return made, Int8(ranges, agreement, len(self.judged), tuple(kept), {})

    def _by_harm(self, table: Any) -> list[str]:
        """All layers, first those that move the logits most where they alone are int8."""
        moved = {name: self._compared(self._file(table, only=nodes))[1] for name, nodes in self.layers.items()}
        return sorted(moved, key=lambda name: moved[name])

    def _compared(self, made: bytes) -> tuple[float, float]:
        """Share of images that are told alike, and minus the mean square by which logits differ: more is better."""
        got = run_batches(onnx_session(made), self.judged)
        alike = float((got.argmax(1) == self.expected.argmax(1)).mean())
        return alike, -float(np.square(got - self.expected, dtype=np.float64).mean())

    def _ranges(self, ranges: str) -> Any:
        """The range of each tensor, as the tool measures it."""
        tools = self.tools
        with _SILENT, redirect_stdout(io.StringIO()):
            calibrator = tools.create_calibrator(
                self.path,
                self.operators,
                augmented_model_path=str(self.folder / "augmented.onnx"),
                calibrate_method=tools.CalibrationMethod[RANGES[ranges]],
            )
            calibrator.collect_data(_Reader(self.calibration))
            return calibrator.compute_data()

    def _file(self, table: Any, *, only: Sequence[str] = (), exclude: Sequence[str] = ()) -> bytes:
        """The file with all layers in int8, or some. The classifier's output stays float, so logits have no steps."""
        tools = self.tools
        quantizer = tools.QDQQuantizer(
            onnx.shape_inference.infer_shapes(onnx.load_from_string(self.content)),
            True,  # a scale a channel
            True,  # seven bits
            tools.QuantType.QInt8,
            tools.QuantType.QUInt8,
            table,
            list(only),
            list(exclude),
            self.operators,
            {"OpTypesToExcludeOutputQuantization": ["Gemm"]},
        )
        quantizer.quantize_model()
        content: bytes = quantizer.model.model.SerializeToString()
        return content


class _Reader:
    """Images as the tool asks for them."""

    def __init__(self, images: Images, batch: int = 32) -> None:
        self.left: Iterator[Images] = (images[i : i + batch] for i in range(0, len(images), batch))

    def get_next(self) -> dict[str, Images] | None:
        """The next batch."""
        images = next(self.left, None)
        return None if images is None else {"image": images}
