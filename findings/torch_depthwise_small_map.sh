#!/usr/bin/env bash
# torch 2.13.0, CPU: the gradient of a depthwise convolution takes longer over a map of 2x2 pixels than over one of 8x8.
#
# Source: torch, `torch.nn.functional.conv2d` with groups = channels, channels_last, backward (`aten::convolution_backward`, oneDNN).
# Date:   2026-11-29
# Guess:  one sixteenth of the pixels is less work, so it takes less time; forward that is so.
# Seen:   where the map is smaller than the kernel the backward pass is several times slower than over the map with 16 times as many pixels. Zeros
#         behind the map that make it as large as the kernel, and a cut of the output, give the same numbers in a fraction of the time.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import time

import torch
import torch.nn.functional as F

torch.set_num_threads(1)
CHANNELS, KERNEL = 96, 3
weight = torch.randn(CHANNELS, 1, KERNEL, KERNEL, requires_grad=True)


def convolve(x, larger=0):
    size = x.shape[-1]
    return F.conv2d(F.pad(x, (0, larger, 0, larger)), weight, None, 1, 1, 1, CHANNELS)[..., :size, :size]


def milliseconds(size, larger=0):
    """CPU time of a forward and of a backward pass, the least of some."""
    x = torch.randn(128, CHANNELS, size, size).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient, times = torch.randn_like(convolve(x)), ([], [])
    for _ in range(15):
        start = time.process_time()
        y = convolve(x, larger)
        middle = time.process_time()
        torch.autograd.grad(y, (x, weight), gradient)
        for each, seconds in zip(times, (middle - start, time.process_time() - middle)):
            each.append(1e3 * seconds)
    return min(times[0]), min(times[1])


for name, size, larger in (("2x2", 2, 0), ("8x8", 8, 0), ("2x2 in zeros of 3x3", 2, 1)):
    forward, backward = milliseconds(size, larger)
    print(f"torch {torch.__version__}, depthwise 3x3 over {name}: forward {forward:.2f} ms, backward {backward:.2f} ms")
    if name == "2x2":
        small = backward
    elif name == "8x8":
        large = backward
    else:
        padded = backward
x = torch.randn(4, CHANNELS, 2, 2)
torch.testing.assert_close(convolve(x, 1), convolve(x))
print(f"2x2 / 8x8: {small / large:.1f}; 2x2 / padded: {small / padded:.1f}")
assert small > 1.3 * large, "the smaller map is no longer slower"
assert small > 1.5 * padded, "padding no longer helps"
PYTHON
