"""Of each registered space one whose networks take milliseconds."""

from __future__ import annotations

from typing import Any

TINY_SPACES: dict[str, dict[str, Any]] = {
    "attentive-nas": {
        "resolutions": (7, 9),
        "num_classes": 4,
        "stem_stride": 1,
        "stage_strides": (1, 2, 1, 2, 1, 1, 1),
        # stages that may and may not change the number of channels, single options, and SE units that follow the width
        "widths": ((3, 4), (3, 4, 5), (4, 6), (5,), (6, 8), (6, 8, 9), (8,), (8, 12), (16, 20)),
        "depths": ((1, 2), (1,), (2, 3), (1,), (1, 2), (1, 3), (1,)),
        "kernel_sizes": ((3, 5), (3,), (3, 5, 7), (1, 3), (3, 5), (3,), (3, 5)),
        "expand_ratios": ((1,), (2, 5), (4, 8, 12), (3,), (2, 6), (6,), (6, 9)),
    },
    "darts": {
        "resolution": 9,
        "num_classes": 4,
        "channels": 3,
        "cells": 3,
        "nodes": 2,
        "operations": ("skip_connect", "avg_pool_3x3", "dil_conv_5x5", "sep_conv_3x3"),
    },
    "mobilenet-v2": {
        "width_mult": 0.1,
        "resolution": 9,
        "num_classes": 4,
        "stem_stride": 1,
        "stage_strides": (2, 1, 2, 1, 1, 1),
        "blocks": (3, 1, 2, 1, 2, 1),
    },
    "nas-bench-201": {"resolution": 9, "num_classes": 4, "channels": 3, "cells": 1},
    "ofa-mobilenet-v3": {
        "width_mult": 0.1,
        "resolution": 9,
        "num_classes": 4,
        "stem_stride": 1,
        "stage_strides": (2, 1, 2, 1, 1),
    },
    "resnet-mixed-precision": {
        "bits": ((1, 2), (4, 4)),
        "channels": (0.5, 1.5),
        "widths": (4, 4, 6, 8),
        "resolution": 9,
        "num_classes": 4,
        "stem_kernel": 3,
        "stem_stride": 1,
    },
    "spos-shufflenet-v2": {
        "resolution": 9,
        "num_classes": 4,
        "stem_stride": 1,
        "stage_strides": (2, 1, 2, 1),
        "blocks": (1, 2, 1, 1),
        "channels": (10, 14, 16, 20),
        "stem": 4,
        "last": 12,
        "channel_scales": (0.4, 1.0, 1.6),
    },
}
"""For each registered space the options of one whose networks take milliseconds."""
