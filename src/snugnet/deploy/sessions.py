"""ONNX files on this CPU: their logits; in ONNX Runtime, milliseconds and what it makes of their operators."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from snugnet.extras import is_installed, needs

_BATCH = 64
_CHANGES = ("QuantizeLinear", "DequantizeLinear")
_CHANGES_SINCE = 21  # the evaluator knows them from opset 19 on


def onnx_session(content: bytes, threads: int = 1, *, optimised: Path | None = None) -> Any:
    """An ONNX Runtime session on the CPU; ``optimised`` is where it writes the graph that it runs."""
    needs("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def logits_of(content: bytes, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a file says of normalised images, (n, classes): by ONNX Runtime, or without it by the evaluator that comes with onnx.

    That one is numpy: it takes seconds for a network of 500M multiply-adds.
    """
    if is_installed("onnxruntime"):
        return run_batches(onnx_session(content), images)
    from onnx.reference import ReferenceEvaluator
    from onnx.version_converter import convert_version

    model = onnx.load_from_string(content)
    if any(node.op_type in _CHANGES for node in model.graph.node):
        model = convert_version(model, max(model.opset_import[0].version, _CHANGES_SINCE))
    return run_batches(ReferenceEvaluator(model), images)


def run_batches(session: Any, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of normalised images, (n, classes)."""
    parts = (images[i : i + _BATCH] for i in range(0, len(images), _BATCH))
    return np.concatenate([session.run(None, {"image": np.ascontiguousarray(part)})[0] for part in parts])


def measured_ms(content: bytes, *, repeats: int = 20, threads: int = 1) -> float:
    """Median time of one image through ONNX Runtime on this CPU, in milliseconds, after a warm-up."""
    return compared_ms(content, repeats=repeats, threads=threads)[0]


def compared_ms(*contents: bytes, repeats: int = 20, threads: int = 1) -> list[float]:
    """The same of several files that take turns, so that what slows the machine down for a while slows all of them.

    With one thread it is processor time, in which the turns of other programs do not count.
    """
    clock = time.thread_time if threads == 1 else time.perf_counter
    sessions = [onnx_session(content, threads) for content in contents]
    entries = [session.get_inputs()[0] for session in sessions]
    images = [{entry.name: np.zeros((1, *entry.shape[1:]), dtype=np.float32)} for entry in entries]
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(repeats + 3):
        for session, image, own in zip(sessions, images, times, strict=True):
            start = clock()
            session.run(None, image)
            own.append(clock() - start)
    return [float(np.median(own[3:]) * 1e3) for own in times]


def float_operators(content: bytes) -> dict[str, int]:
    """What ONNX Runtime computes in float in an int8 file, by operator, most frequent first; changes between the two left out."""
    with tempfile.TemporaryDirectory(prefix="snugnet-int8-") as folder:
        path = Path(folder) / "optimised.onnx"
        onnx_session(content, optimised=path)
        graph = onnx.load(path).graph
    whole = {each.name for each in graph.initializer if each.data_type != onnx.TensorProto.FLOAT}
    counts: Counter[str] = Counter()
    for node in graph.node:  # in the order in which they run
        if node.op_type.startswith(("QLinear", "QuantizeLinear")) or (
            node.op_type not in _CHANGES and node.input[0] in whole
        ):
            whole.update(node.output)
        elif node.op_type not in _CHANGES:
            counts[node.op_type] += 1
    return dict(counts.most_common())
