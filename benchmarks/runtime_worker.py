"""One runtime in a process and an environment of its own: python runtime_worker.py RUNTIME FOLDER < names of files

Needs NumPy and the runtime, not snugnet. For each name it reads NAME.onnx and INPUTS.npy (which ``NAME.json`` names), and writes
NAME.RUNTIME.BATCH.npy: logits of the images in batches of that size. A line of JSON on standard output says how each went, and one
before it what is tried: so the process that reads them knows what a crash was about.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
BATCHES = {1: 8, 4: None}
"""Batch sizes, and of how many images; None for all."""


def onnxruntime(path: Path, images: np.ndarray) -> Run:
    """As it comes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["logits"], {"image": x})[0]


def openvino(path: Path, images: np.ndarray) -> Run:
    """In float32, which is not what it takes by itself on every CPU."""
    import openvino as ov

    compiled = ov.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: compiled(x)[0]


def opencv(path: Path, images: np.ndarray) -> Run:
    """The dnn module; 5.0 chooses one of its two engines by itself."""
    import cv2

    net = cv2.dnn.readNetFromONNX(str(path))

    def run(x: np.ndarray) -> np.ndarray:
        net.setInput(x)
        return net.forward()

    return run


def mnn(path: Path, images: np.ndarray) -> Run:
    """Through its converter; not by the command `mnnconvert`, which installs another package (findings/mnn_convert_installs.sh)."""
    import MNN
    import MNN.expr as expr

    made = Path(tempfile.mkdtemp()) / "net.mnn"
    convert = "import sys, MNN, _tools; _tools.mnnconvert(sys.argv)"
    command = [sys.executable, "-c", convert, "-f", "ONNX", "--modelFile", path, "--MNNModel", made]
    done = subprocess.run([*command, "--bizCode", "x"], capture_output=True, text=True, check=False)
    if not made.is_file():
        raise RuntimeError("mnnconvert: " + (done.stdout + done.stderr).strip()[-200:])
    net = MNN.nn.load_module_from_file(str(made), ["image"], ["logits"])

    def run(x: np.ndarray) -> np.ndarray:
        entry = expr.placeholder(list(x.shape), expr.NCHW)
        entry.write(x.ravel().tolist())
        (out,) = net.onForward([expr.convert(entry, expr.NC4HW4)])
        return np.array(expr.convert(out, expr.NCHW).read()).reshape(len(x), -1)

    return run


def tract(path: Path, images: np.ndarray) -> Run:
    """With the batch size as a symbol of its own."""
    import tract as package

    model = package.onnx().load(str(path))
    model.set_input_fact(0, f"{','.join(map(str, images.shape))},f32")
    runnable = model.into_model().into_runnable()
    return lambda x: runnable.run([x])[0].to_numpy()


def tvm(path: Path, images: np.ndarray) -> Run:
    """Relax, for LLVM, without tuning."""
    import onnx
    import tvm as package
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    module = from_onnx(onnx.load(path), shape_dict={"image": list(images.shape)}, keep_params_in_input=False)
    machine = relax.VirtualMachine(package.compile(module, target="llvm"), package.cpu())
    return lambda x: machine["main"](package.runtime.tensor(x)).numpy()


def litert(path: Path, images: np.ndarray) -> Run:
    """Through onnx2tf, which turns images' axes: batch x height x width x channels."""
    from ai_edge_litert.interpreter import Interpreter

    folder = Path(tempfile.mkdtemp())
    command = [Path(sys.executable).parent / "onnx2tf", "-i", path, "-o", folder, "-b", str(len(images)), "-n"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    )
    made = sorted(folder.glob("*float32.tflite"))
    if not made:
        raise RuntimeError("onnx2tf: " + (done.stdout + done.stderr).strip()[-200:])
    net = Interpreter(model_path=str(made[0]), num_threads=1)
    net.allocate_tensors()
    entry, out = net.get_input_details()[0]["index"], net.get_output_details()[0]["index"]

    def run(x: np.ndarray) -> np.ndarray:
        net.set_tensor(entry, np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        net.invoke()
        return net.get_tensor(out)

    return run


RUNTIMES: dict[str, tuple[Callable[[Path, np.ndarray], Run], str]] = {
    "onnxruntime": (onnxruntime, "onnxruntime"),
    "onnxruntime-old": (onnxruntime, "onnxruntime"),
    "openvino": (openvino, "openvino"),
    "opencv-4": (opencv, "opencv-python-headless"),
    "opencv-5": (opencv, "opencv-python-headless"),
    "mnn": (mnn, "MNN"),
    "tract": (tract, "tract"),
    "tvm": (tvm, "apache-tvm"),
    "litert": (litert, "ai-edge-litert"),
}


def logits(load: Callable[[Path, np.ndarray], Run], path: Path, images: np.ndarray, batch: int) -> np.ndarray:
    """Of all images, in full batches: the last one is filled up."""
    missing = -len(images) % batch
    filled = np.concatenate([images, images[:1].repeat(missing, 0)]) if missing else images
    run = load(path, filled[:batch])
    parts = [np.array(run(np.ascontiguousarray(filled[at : at + batch]))) for at in range(0, len(filled), batch)]
    return np.concatenate(parts)[: len(images)].astype(np.float32)


def say(out: int, **line: Any) -> None:
    """One line, past whatever the runtime prints."""
    os.write(out, (json.dumps(line) + "\n").encode())


def main(name: str, folder: Path) -> None:
    """Try each file with each batch size."""
    out = os.dup(1)
    os.dup2(2, 1)
    load, package = RUNTIMES[name]
    say(out, version=version(package))
    for file in sys.stdin.read().split():
        images = np.load(folder / json.loads((folder / f"{file}.json").read_text())["inputs"])
        for batch, count in BATCHES.items():
            say(out, file=file, batch=batch, status="begun")
            try:
                np.save(
                    folder / f"{file}.{name}.{batch}.npy", logits(load, folder / f"{file}.onnx", images[:count], batch)
                )
                status = "ran"
            except Exception as error:
                words = " ".join(str(error).split())
                status = f"refused: {type(error).__name__}: {words[:300]}"
            say(out, file=file, batch=batch, status=status)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
