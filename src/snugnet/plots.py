"""Pictures, as PNG: accuracy-cost fronts, architectures as block diagrams, predictor scatter."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from snugnet.extras import needs
from snugnet.spaces import Block, Blueprint, Population, SearchSpace
from snugnet.spaces.graph import Step, steps

KERNEL_COLORS = {1: "#e8e8e8", 3: "#9ecae1", 5: "#4292c6", 7: "#084594"}
"""Darker for larger depthwise kernels."""

Points = Sequence[tuple[float, float, float]]
"""(x, y, deviation of y), x rising."""


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Any, Any, io.BytesIO]]:
    """A figure, its axes, and where its PNG will be."""
    needs("matplotlib")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context({"text.parse_math": False}):  # names are anyone's, dollar signs included
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        buffer = io.BytesIO()
        yield figure, figure.add_subplot(), buffer
        figure.savefig(buffer, format="png", dpi=130)


def front_figure(curves: Mapping[str, Points], title: str, cost: str, accuracy: str) -> bytes:
    """Accuracy over cost, a curve a method, with error bars.

    Args:
        curves: by label, (cost, accuracy, deviation).
        title: of the figure.
        cost: label of the x axis; costs of a million and more are shown in millions.
        accuracy: label of the y axis.
    """
    scale, unit = in_millions(max((x for points in curves.values() for x, _, _ in points), default=0.0))
    scaled = {label: [(x / scale, y, e) for x, y, e in points] for label, points in curves.items()}
    return line_figure(scaled, title, cost + unit, accuracy)


def in_millions(largest: float) -> tuple[float, str]:
    """What costs of at most so much are divided by in a figure, and what the axis says of it."""
    return (1e6, " (millions)") if largest >= 1e6 else (1.0, "")


def line_figure(curves: Mapping[str, Points], title: str, x_label: str, y_label: str) -> bytes:
    """Lines with error bars."""
    with canvas(8, 4.5) as (figure, axes, buffer):
        for label, points in curves.items():
            x, y, error = np.array(points, dtype=float).reshape(-1, 3).T
            axes.errorbar(x, y, error if error.any() else None, marker="o", markersize=4, capsize=3, label=label)
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        axes.grid(alpha=0.3)
        if curves:
            figure.legend(loc="outside right upper", fontsize=8)
    return buffer.getvalue()


def scatter_figure(predicted: NDArray[np.float64], measured: NDArray[np.float64], title: str) -> bytes:
    """Predicted over measured accuracy, with Kendall's tau and the mean absolute error."""
    needs("scipy")
    from scipy.stats import kendalltau

    tau = float(kendalltau(predicted, measured).statistic)
    error = float(np.abs(predicted - measured).mean())
    with canvas(5, 5) as (_, axes, buffer):
        axes.scatter(measured, predicted, s=8, alpha=0.6)
        ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
        axes.plot(ends, ends, color="black", linewidth=0.8)
        axes.set(title=f"{title}\nKendall tau {tau:.3f}, mean absolute error {error:.3f}, n = {len(measured)}")
        axes.set(xlabel="measured", ylabel="predicted", aspect="equal")
        axes.grid(alpha=0.3)
    return buffer.getvalue()


def architecture_figure(space: SearchSpace, archs: Mapping[str, ArrayLike], title: str) -> bytes:
    """Architectures as rows of blocks (EAS, Figure D): colour is the depthwise kernel, height the expand ratio.

    A position is one column, whichever of its alternatives stands there; its name is written above it. Where blocks read others
    than the one before, each row shows the different cells of its architecture as graphs instead.

    Args:
        space: of the architectures.
        archs: by label, a row each.
        title: of the figure.
    """
    blueprints = {label: space.blueprint(arch) for label, arch in archs.items()}
    if any(block.reads for blueprint in blueprints.values() for block in blueprint.blocks):
        return _graphs(blueprints, title)
    names = _columns(space, blueprints.values())
    with canvas(max(6.0, 0.42 * len(names) + 2), 0.8 * len(archs) + 1.4) as (figure, axes, buffer):
        for line, blueprint in enumerate(blueprints.values()):
            for block in blueprint.blocks:
                _draw(axes, names.index(block.name), -line, block)
        axes.set_yticks([-line for line in range(len(archs))], _labels(blueprints), fontsize=7)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set(xlim=(-0.6, len(names) - 0.4), ylim=(0.6 - len(archs), 0.6), title=title)
        axes.tick_params(length=0)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
        _legend(figure)
    return buffer.getvalue()


def _labels(blueprints: Mapping[str, Blueprint]) -> list[str]:
    return [f"{label}\n{b.madds / 1e6:.4g} MMAdds, {b.resolution} px" for label, b in blueprints.items()]


def cells_of(blueprint: Blueprint) -> dict[str, list[Step[Block]]]:
    """The different cells of a network, by the name of the first of each: blocks whose names begin alike, up to the last dot.

    Blocks that do not run are left out; a network without such names is one cell.
    """
    cells: dict[str, list[Step[Block]]] = {}
    ran = steps(blueprint)
    for step in ran:
        name = step.node.name.rpartition(".")[0]
        if name:
            cells.setdefault(name, []).append(step)
    looks: dict[Any, str] = {}
    for name, each in cells.items():
        own = {step.node.name for step in each}
        look = tuple(
            (node.name.removeprefix(name), node.alternative, tuple(s.removeprefix(name) for s in sources if s in own))
            for node, sources, _ in each
        )
        looks.setdefault(look, name)
    return {name: cells[name] for name in looks.values()} or {"": list(ran)}


def _graphs(blueprints: Mapping[str, Blueprint], title: str) -> bytes:
    """A row of cells for each architecture: boxes are blocks, arrows point to those that read them."""
    placed = [{name: _places(cell) for name, cell in cells_of(b).items()} for b in blueprints.values()]
    widths = [sum(1 + max(x for x, _ in places.values()) for places in row.values()) for row in placed]
    heights = [max(1 + max(y for _, y in places.values()) for places in row.values()) for row in placed]
    with canvas(max(6.0, 1.25 * max(widths) + 2), 0.45 * (sum(heights) + 1.5 * len(heights)) + 1) as (_, axes, buffer):
        top, middles = 0.0, []
        for blueprint, row, height in zip(blueprints.values(), placed, heights, strict=True):
            left = 0.0
            for name, places in row.items():
                at = {block: (left + x, -(top + y + 1)) for block, (x, y) in places.items()}
                axes.text(left, -top, name, fontsize=7, weight="bold")
                _draw_graph(axes, name, cells_of(blueprint)[name], at)
                left += 1 + max(x for x, _ in places.values())
            middles.append(-(top + height / 2))
            top += height + 1.5
        axes.set_yticks(middles, _labels(blueprints), fontsize=7)
        axes.set_xticks([])
        axes.set(xlim=(-0.5, max(widths) - 0.5), ylim=(-top, 0.8), title=title)
        axes.tick_params(length=0)
        for side in ("top", "right", "left", "bottom"):
            axes.spines[side].set_visible(False)
    return buffer.getvalue()


def _places(cell: Sequence[Step[Block]]) -> dict[str, tuple[int, int]]:
    """Column and line of each block of a cell, and of what it reads from outside: one column behind the last of its sources."""
    columns: dict[str, int] = {}
    for node, sources, _ in cell:
        columns[node.name] = 1 + max(columns.setdefault(source, 0) for source in sources)
    lines: dict[int, int] = {}
    places = {}
    for name, column in columns.items():
        places[name] = column, lines.setdefault(column, 0)
        lines[column] += 1
    return places


def _draw_graph(axes: Any, cell: str, blocks: Sequence[Step[Block]], at: Mapping[str, tuple[float, float]]) -> None:
    alternatives = {step.node.name: step.node.alternative for step in blocks}
    for name, (x, y) in at.items():
        text = name.removeprefix(f"{cell}.") if name in alternatives else name or "image"
        text += f"\n{alternatives[name]}" if alternatives.get(name) else ""
        color = "#9ecae1" if alternatives.get(name) else "#e8e8e8"
        axes.text(x, y, text, ha="center", va="center", fontsize=5.5, bbox={"facecolor": color, "linewidth": 0.4})
    for node, sources, _ in blocks:
        x, y = at[node.name]
        for source in sources:
            start = (at[source][0] + 0.3, at[source][1])
            bend = "arc3,rad=-0.15" if x - start[0] > 1 else "arc3"  # around what stands between
            arrow = {"arrowstyle": "->", "linewidth": 0.5, "color": "gray", "connectionstyle": bend}
            axes.annotate("", (x - 0.36, y), start, arrowprops=arrow, zorder=1)


def _columns(space: SearchSpace, blueprints: Any) -> list[str]:
    """Names of all blocks, in the order of the largest network; a block that is skipped leaves its place empty."""
    names = [block.name for block in space.blueprint(space.largest).blocks]
    for blueprint in blueprints:
        names += [block.name for block in blueprint.blocks if block.name not in names]
    return names


def _draw(axes: Any, x: int, y: int, block: Block) -> None:
    from matplotlib.patches import Rectangle

    kernel, expand = shape_of(block)
    height = 0.22 + 0.58 * min(expand, 6) / 6
    color = KERNEL_COLORS.get(kernel, "#d94801")
    axes.add_patch(
        Rectangle((x - 0.42, y - height / 2), 0.84, height, facecolor=color, edgecolor="black", linewidth=0.4)
    )
    axes.text(x, y + height / 2 + 0.02, block.alternative, ha="center", va="bottom", fontsize=5.5)
    text = f"{kernel}\n{expand:.3g}" if expand else str(kernel)
    axes.text(x, y, text, ha="center", va="center", fontsize=5.5, color="white" if kernel >= 5 else "black")


def shape_of(block: Block) -> tuple[int, float]:
    """The block's largest kernel, and its expand ratio (0 where nothing is expanded): width of its last depthwise over input."""
    kernel = max(layer.kernel for layer in block.layers)
    depthwise = [layer for layer in block.layers if layer.depthwise]
    return kernel, depthwise[-1].in_channels / block.layers[0].in_channels if depthwise else 0.0


def _legend(figure: Any) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=c, edgecolor="black", label=f"{k} x {k}") for k, c in KERNEL_COLORS.items()]
    figure.legend(
        handles=handles, title="kernel; below it the expand ratio", loc="outside lower center", ncols=4, fontsize=7
    )


def mean_similarity(space: SearchSpace, rows: Population) -> float:
    """Mean cosine similarity of the one-hot codes over all pairs of architectures, (n, d) (EAS, appendix F and Figure B)."""
    code = space.one_hot(space.rows(rows))
    code /= np.linalg.norm(code, axis=1, keepdims=True)
    return float((code @ code.T)[np.triu_indices(len(code), 1)].mean())
