"""Accuracy and cost of a family over groups and budgets: the rows, the table, the figure."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from snugnet.costs import resolve_budget
from snugnet.data import ImageSet
from snugnet.deploy import measured_ms, onnx_bytes, onnx_difference
from snugnet.errors import FamilyError
from snugnet.family.int8 import INT8, BesideFloat, beside_float
from snugnet.family.networks import Classifier, Specialized
from snugnet.family.specialising import SpecialisingFamily
from snugnet.family.stored import StoredNetwork
from snugnet.family.text_table import TextTable, human, percent
from snugnet.files import json_text, write_atomically
from snugnet.nn.network import Network, with_classes
from snugnet.plots import architecture_figure, canvas, in_millions, line_figure, mean_similarity
from snugnet.progress import progress_bar
from snugnet.training.calibration import accuracy, network_batches

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Row:
    """One network for a scenario.

    Attributes:
        group: superclass.
        budget: in the unit of the cost; NaN where a network was trained without one.
        accuracy: a fraction, on the group's images of the split that is reported; NaN where there are none.
        costs: of this network, its head included.
        arch: the architecture, in the space's JSON form or as a row of option indices.
    """

    group: str
    budget: float
    accuracy: float
    costs: dict[str, float]
    arch: Any

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """From plain JSON, where an accuracy on no images is null."""
        return cls(**{**content, "accuracy": math.nan if content["accuracy"] is None else content["accuracy"]})


@dataclass(frozen=True)
class MeasuredRow(Row):
    """One network for a scenario, also run as it is deployed.

    Attributes:
        accuracy_all: on the same images, of the same architecture with all classes in its head; NaN where there is no such head.
        milliseconds: one image through ONNX Runtime, one thread, on this CPU.
        onnx_difference: between ONNX Runtime and torch, relative to the largest logit.
        images: test images of the group.
        int8: the network's int8 file beside its float file on these; None where none was asked for.
    """

    accuracy_all: float
    milliseconds: float
    onnx_difference: float
    images: int
    int8: BesideFloat | None = None


@dataclass
class Report:
    """Rows, and what is needed to read them.

    Attributes:
        family: its name.
        budget: the cost that budgets are of.
        rows: group by group, budgets rising.
        specialize_ms: time of one pass of the generator and the exact decode, for all rows together.
        context: recipe, machine, times.
    """

    family: str
    budget: str
    rows: list[MeasuredRow]
    specialize_ms: float
    context: dict[str, Any] = field(default_factory=dict)

    def mean(self) -> list[dict[str, float]]:
        """Averages over the groups, a budget each; ``accuracy_int8`` where int8 files were asked for."""
        budgets = sorted({row.budget for row in self.rows if not math.isnan(row.budget)})
        result = []
        for budget in budgets:
            own = [row for row in self.rows if row.budget == budget]
            result.append(
                {
                    "budget": budget,
                    "accuracy": _mean([row.accuracy for row in own]),
                    "accuracy_all": _mean([row.accuracy_all for row in own]),
                    self.budget: _mean([row.costs[self.budget] for row in own]),
                    **({"accuracy_int8": _mean([_int8(row) for row in own])} if self._has_int8 else {}),
                }
            )
        return result

    @property
    def _has_int8(self) -> bool:
        return any(row.int8 is not None for row in self.rows)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        rows = [{**asdict(row), "int8": None if row.int8 is None else row.int8.to_json()} for row in self.rows]
        return {**asdict(self), "rows": rows, "mean": self.mean()}

    def save(self, folder: Path, stem: str = "results") -> list[Path]:
        """Write ``results.json``, ``results.md`` and ``results.png``; returns their paths."""
        paths = [folder / f"{stem}.{suffix}" for suffix in ("json", "md", "png")]
        write_atomically(paths[0], json_text(self.to_json()).encode())
        write_atomically(paths[1], self.markdown().encode())
        write_atomically(paths[2], self.figure())
        return paths

    def text_table(self) -> TextTable:
        """A line a scenario, then the averages over the groups."""
        others = [name for name in self.rows[0].costs if name != self.budget]
        files = ["int8", "int8 ms"] if self._has_int8 else []
        header = ["group", f"{self.budget} budget", "accuracy", "all classes", self.budget, *others, "ms", *files]
        body = [
            [
                row.group,
                human(row.budget),
                percent(row.accuracy),
                percent(row.accuracy_all),
                human(row.costs[self.budget]),
                *[human(row.costs[name]) for name in others],
                f"{row.milliseconds:.2f}",
                *([percent(_int8(row)), "" if row.int8 is None else f"{row.int8.milliseconds:.2f}"] if files else []),
            ]
            for row in self.rows
        ]
        blanks = [""] * (len(others) + 1)
        for each in self.mean():
            cells = ["mean", human(each["budget"]), percent(each["accuracy"]), percent(each["accuracy_all"])]
            body.append(
                [*cells, human(each[self.budget]), *blanks, *([percent(each["accuracy_int8"]), ""] if files else [])]
            )
        return TextTable(f"{self.family}: networks on test images", header, body, self.caption)

    @property
    def caption(self) -> str:
        """What the numbers are."""
        return CAPTION + INT8_CAPTION if self._has_int8 else CAPTION

    def table(self) -> Table:
        """For people."""
        return self.text_table().rich()

    def markdown(self) -> str:
        """The table as Markdown."""
        return "\n".join([*self.text_table().markdown(), "", self.caption, ""])

    def figure(self) -> bytes:
        """Accuracy over cost, a curve a group and their mean, as PNG."""
        with canvas(8, 4.5) as (figure, axes, buffer):
            self._draw(figure, axes)
        return buffer.getvalue()

    def _draw(self, figure: Any, axes: Any) -> None:
        scale, unit = in_millions(max((row.costs[self.budget] for row in self.rows), default=0.0))
        for group in dict.fromkeys(row.group for row in self.rows):
            own = [row for row in self.rows if row.group == group]
            axes.plot(
                [row.costs[self.budget] / scale for row in own], [100 * row.accuracy for row in own],
                marker="o", linewidth=1, markersize=3, alpha=0.7, label=group,
            )  # fmt: skip
        means = self.mean()
        for key, label, style in (("accuracy", "mean, specialised", "-"), ("accuracy_all", "mean, all classes", "--")):
            axes.plot(
                [each[self.budget] / scale for each in means], [100 * each[key] for each in means],
                style, color="black", linewidth=2, label=label,
            )  # fmt: skip
        axes.set_xlabel(self.budget + unit)
        axes.set_ylabel("test accuracy on the group's images (%)")
        axes.set_title(self.family)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize=7)


CAPTION = (
    "accuracy: the network, on its group's test images; all classes: the same architecture with every class "
    "in its head, on the same images; madds: multiply-accumulates of convolutions and linear layers, once each; "
    "ms: one image through ONNX Runtime, one thread, this CPU"
)
INT8_CAPTION = "; int8, int8 ms: of the network's int8 file, on the same images"


def spread_budgets(
    family: SpecialisingFamily, budgets: int | Sequence[float | str], cost: str | None = None
) -> list[float]:
    """Budgets to report on: as given (shares are of the range of networks with all classes), or so many evenly spaced strictly
    between the smallest and largest cost; whole where those are.

    Raises:
        BudgetError: there is no such cost.
    """
    low, high = family.cost_range(cost or family.budget_name)
    if not isinstance(budgets, int):
        return [resolve_budget(budget, (low, high)) for budget in budgets]
    spread = [low + (high - low) * (i + 1) / (budgets + 1) for i in range(budgets)]
    return [float(round(limit)) for limit in spread] if low.is_integer() and high.is_integer() else spread


def check_groups(family: SpecialisingFamily, groups: Sequence[str] | None = None) -> list[str]:
    """The groups to evaluate: these, or all of at least two classes.

    Raises:
        FamilyError: one is unknown or has one class, or there are none.
    """
    for name in groups or ():
        family.class_indices(name)
    found = list(groups or (name for name, classes in family.groups.items() if len(classes) > 1))
    if not found:
        raise FamilyError(f"{family.name} has no group of two classes or more: {', '.join(family.groups)}")
    return found


def evaluate(
    family: SpecialisingFamily,
    test: ImageSet,
    budgets: int | Sequence[float | str] = 4,
    *,
    groups: Sequence[str] | None = None,
    best_of: int = 1,
    cost: str | None = None,
    int8: bool = False,
    progress: bool = True,
) -> Report:
    """Specialise to every group of at least two classes under every budget, and measure on test images.

    Args:
        family: on the device where the networks are to be run.
        test: images that nothing was chosen on.
        budgets: see :func:`spread_budgets`.
        groups: to evaluate; all without it.
        best_of: architectures to try on validation images for each scenario.
        cost: that budgets are of; the one that the generator was trained on without it.
        int8: whether to make each network's int8 file as well, and measure it beside the float file.
        progress: whether to show a bar.

    Raises:
        DataError: there are too few stored images for int8, or they are of one class.
        ExportError: a network cannot be made int8.
    """
    cost = family.cost_name(cost or family.budget_name)
    limits = spread_budgets(family, budgets, cost)
    groups = check_groups(family, groups)
    scenarios = [(group, {cost: limit}) for group in groups for limit in limits]
    family.specialize_many(scenarios)  # the first call also prepares the tables
    started = time.perf_counter()
    networks = family.specialize_many(scenarios)
    milliseconds = 1e3 * (time.perf_counter() - started)
    test = test.to(family.device)
    rows = []
    with progress_bar("evaluate", len(networks), shown=progress) as advance:
        for (group, asked), network in zip(scenarios, networks, strict=True):
            if best_of > 1:
                network = family.best((group, asked), best_of)
            rows.append(evaluate_one(family, network, test, asked[cost], int8=int8))
            advance()
    return Report(family.name, cost, rows, milliseconds)


def evaluate_one(
    family: SpecialisingFamily, network: Specialized, test: ImageSet, budget: float, *, int8: bool = False
) -> MeasuredRow:
    """Measure one specialised network.

    It is built once, with all classes in its head: the specialised logits are columns of these, from the same weights and the same
    batch-norm statistics.
    """
    own = test.of_classes(network.class_indices)
    whole = family.build(network.row)
    module = with_classes(whole, network.class_indices)
    columns = torch.tensor(network.class_indices, device=family.device)
    right, right_all = 0, 0
    everything = range(len(family.classes))
    with torch.no_grad():
        for images, labels in family.batches(own, everything, network.blueprint.resolution):
            logits = whole(images)
            right += int((columns[logits[:, columns].argmax(1)] == labels).sum())
            right_all += int((logits.argmax(1) == labels).sum())
    content = onnx_bytes(module, network.metadata())
    return MeasuredRow(
        group=network.group,
        budget=budget,
        accuracy=right / len(own) if len(own) else math.nan,
        accuracy_all=right_all / len(own) if len(own) else math.nan,
        costs=network.costs,
        milliseconds=measured_ms(content),
        onnx_difference=onnx_difference(module, content),
        images=len(own),
        arch=network.arch,
        int8=_beside_float(network, module, test, None) if int8 else None,
    )


def _beside_float(network: Classifier, module: Network, test: ImageSet, ranges: ImageSet | None) -> BesideFloat:
    """A network's int8 file beside its float file on test images of its classes."""
    content = onnx_bytes(module, network.metadata(), INT8, network.int8_images(ranges))
    return beside_float(module, content, network.pictures(test))


def evaluate_network(network: StoredNetwork, test: ImageSet, ranges: ImageSet | None = None) -> Report:
    """Measure one network on disk.

    Args:
        network: on the device where it is to be run.
        test: images that nothing was chosen on, labels in the order of the family's classes.
        ranges: training images that ranges of its int8 file are measured on; without them no such file is made.

    Raises:
        DataError: there are too few images for int8, or they are of one class.
        ExportError: the network cannot be made int8.
    """
    origin, module = network.family, network.module
    own = test.among(network.class_indices).to(next(module.parameters()).device)
    right = accuracy(module, network_batches(own, origin.mean, origin.std, network.blueprint.resolution))
    cost = next(iter(network.budgets or network.costs))
    content = onnx_bytes(module, network.metadata())
    row = MeasuredRow(
        group=network.group,
        budget=network.budgets.get(cost, math.nan),
        accuracy=right,
        accuracy_all=right if len(network.classes) == len(origin.classes) else math.nan,
        costs=network.costs,
        milliseconds=measured_ms(content),
        onnx_difference=onnx_difference(module, content),
        images=len(own),
        arch=network.arch,
        int8=None if ranges is None else _beside_float(network, module, test, ranges),
    )
    return Report(origin.name, cost, [row], specialize_ms=0.0)


def _int8(row: MeasuredRow) -> float:
    return math.nan if row.int8 is None else row.int8.accuracy


def _mean(values: Sequence[float]) -> float:
    """Mean of what is a number: a group without test images has no accuracy."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def family_figures(family: SpecialisingFamily, budgets: int | Sequence[float | str] = 4) -> dict[str, bytes]:
    """Pictures of what a family's generator hands out, as PNG by name.

    Args:
        family: to look at.
        budgets: of the cost that the generator was trained on; see :func:`spread_budgets`.

    Returns:
        For each budget the architectures of all superclasses as block diagrams (EAS, Figure D), and how alike they are
        (Figure B).
    """
    limits = spread_budgets(family, budgets)
    groups = check_groups(family)
    scenarios = [(group, {family.budget_name: limit}) for limit in limits for group in groups]
    networks = family.specialize_many(scenarios)
    figures, curve = {}, []
    for i, limit in enumerate(limits):
        own = networks[i * len(groups) : (i + 1) * len(groups)]
        title = f"{family.name}, {family.budget_name} <= {human(limit)}"
        archs = {network.group: network.row for network in own}
        figures[f"architectures-{limit:.10g}"] = architecture_figure(family.space, archs, title)
        if len(own) > 1:
            curve.append((limit, mean_similarity(family.space, np.stack(list(archs.values()))), 0.0))
    if curve:
        figures["similarity"] = line_figure(
            {family.name: curve}, "similarity of the architectures of different superclasses",
            f"{family.budget_name} budget", "mean cosine similarity of one-hot codes",
        )  # fmt: skip
    return figures
