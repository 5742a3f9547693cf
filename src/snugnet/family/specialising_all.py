"""The networks of many scenarios as files, with one table over all: the fit for a class of devices at once."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from snugnet.data import ImageSet
from snugnet.deploy import int8_facts
from snugnet.errors import ConfigError, FamilyError, SnugnetError
from snugnet.family.int8 import accuracy_of
from snugnet.family.made_files import Entry, MadeFiles
from snugnet.family.networks import Networks, Specialized
from snugnet.family.scenarios import Scenario
from snugnet.family.specialising import SpecialisingFamily
from snugnet.family.text_table import TextTable, human, percent
from snugnet.files import json_text, locked, plain_number, write_atomically
from snugnet.fingerprint import Fingerprint, digest, fingerprint
from snugnet.plots import canvas, front_figure
from snugnet.progress import progress_bar
from snugnet.texts import slug
from snugnet.training.calibration import accuracy
from snugnet.training.threads import side_by_side

STEM = "networks"
_LONGEST_NAME = 150  # bytes of a file's name, of the 255 that systems allow; more is added to it
_MOST_CURVES = 12  # groups that have a curve of their own


@dataclass(frozen=True)
class NetworkFile:
    """A network that was written for a scenario.

    Attributes:
        scenario: its number, from 1 on.
        group: as it was asked for.
        classes: in output order.
        budgets: by cost, in its unit; where there was none, none.
        costs: of this network, by name: the family's own, and all that some scenario bounds.
        accuracy: a fraction, on the test images of its classes; None where it was not measured, or there are none.
        file: its name.
        bytes: of the file.
        sha256: of the file.
        architecture: in the space's JSON form.
        int8: of an int8 file (of which the accuracy is then) ``float_accuracy`` of the network, ``agreement`` with its float file, and the
            layers that are ``kept_float``; None of others.
    """

    scenario: int
    group: str
    classes: tuple[str, ...]
    budgets: dict[str, float]
    costs: dict[str, float]
    accuracy: float | None
    file: str
    bytes: int
    sha256: str
    architecture: dict[str, Any]
    int8: dict[str, Any] | None = None


@dataclass(frozen=True)
class NetworkFiles:
    """The table over all networks that were written.

    Attributes:
        family: its name.
        cost: that the figure is over.
        best_of: architectures that were tried for each.
        measured: whether accuracies were asked for.
        networks: one a scenario, in order.
        taken: how many were there already.
    """

    family: str
    cost: str
    best_of: int
    measured: bool
    networks: tuple[NetworkFile, ...]
    taken: int

    @property
    def budgets(self) -> list[str]:
        """Costs that some scenario bounds."""
        return list(dict.fromkeys(name for each in self.networks for name in each.budgets))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON; the same whether the run was stopped in between or not."""
        return {"family": self.family, "best_of": self.best_of, "networks": [asdict(each) for each in self.networks]}

    def csv(self) -> str:
        """As CSV: numbers in full, classes and architecture as compact JSON."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        costs = list(self.networks[0].costs)
        budgets, beside = [f"{name} budget" for name in self.budgets], list(self._beside())
        numbers = [*budgets, *costs, "accuracy", *beside]
        writer.writerow(["scenario", "group", "classes", *numbers, "file", "bytes", "sha256", "architecture"])
        for each in self.networks:
            limits = [plain_number(each.budgets[name]) if name in each.budgets else "" for name in self.budgets]
            right = "" if each.accuracy is None else each.accuracy
            classes, arch = (json.dumps(x, separators=(",", ":")) for x in (each.classes, each.architecture))
            known = ("" if value is None else value for value in (each.int8 or {}).values())
            int8 = [json.dumps(value) if isinstance(value, list) else value for value in known]
            cells = [*limits, *each.costs.values(), right, *int8]
            writer.writerow([each.scenario, each.group, classes, *cells, each.file, each.bytes, each.sha256, arch])
        return text.getvalue()

    def _beside(self) -> dict[str, Any]:
        """What there is to say of int8 files, if these are any; as of the first."""
        return self.networks[0].int8 or {}

    def text_table(self) -> TextTable:
        """For people: all but the architectures."""
        costs = list(self.networks[0].costs)
        right = ["accuracy"] if self.measured else []
        int8 = [name for name in ("float_accuracy", "agreement") if self._beside().get(name) is not None]
        beside = [name.replace("_", " ") for name in int8]
        header = ["group", *(f"{name} budget" for name in self.budgets), *right, *beside, *costs, "kB", "file"]
        body = [
            [
                each.group,
                *(human(each.budgets.get(name, math.nan)) for name in self.budgets),
                *(percent(math.nan if each.accuracy is None else each.accuracy) for _ in right),
                *(percent((each.int8 or {}).get(name) or math.nan) for name in int8),
                *map(human, each.costs.values()),
                f"{each.bytes / 1000:,.0f}",
                each.file,
            ]
            for each in self.networks
        ]
        caption = "accuracy: on the test images of the network's classes" if self.measured else ""
        return TextTable(f"{self.family}: {len(body)} networks", header, body, caption)

    def markdown(self) -> str:
        """The same as Markdown, with the architectures."""
        table = self.text_table()
        archs = (f"`{json.dumps(each.architecture, separators=(',', ':'))}`" for each in self.networks)
        body = [[*cells, arch] for cells, arch in zip(table.body, archs, strict=True)]
        whole = replace(table, header=[*table.header, "architecture"], body=body)
        return "\n".join(
            [f"# {table.title}", "", *whole.markdown(), "", *([table.caption, ""] if table.caption else [])]
        )

    def figure(self) -> bytes:
        """Accuracy over cost, or, where it was not measured, the size of the file; a curve a group, or points where they are many."""
        y_label = "test accuracy on the group's images (%)" if self.measured else "size of the file (kB)"
        curves: dict[str, list[tuple[float, float, float]]] = {}
        for each in self.networks:
            y = 100 * (math.nan if each.accuracy is None else each.accuracy) if self.measured else each.bytes / 1000
            curves.setdefault(each.group, []).append((each.costs[self.cost], y, 0.0))
        if len(curves) <= _MOST_CURVES:
            return front_figure({k: sorted(points) for k, points in curves.items()}, self.family, self.cost, y_label)
        with canvas(8, 4.5) as (_, axes, buffer):
            xs, ys, _ = zip(*(point for points in curves.values() for point in points), strict=True)
            axes.scatter(xs, ys, s=12, alpha=0.6)
            axes.set(title=f"{self.family}: {len(curves)} groups", xlabel=self.cost, ylabel=y_label)
            axes.grid(alpha=0.3)
        return buffer.getvalue()

    def save(self, folder: Path) -> list[Path]:
        """Write ``networks.csv``, ``.json``, ``.md`` and ``.png``; returns their paths."""
        contents = {"csv": self.csv().encode(), "json": json_text(self.to_json()).encode()}
        contents |= {"md": self.markdown().encode(), "png": self.figure()}
        for suffix, content in contents.items():
            write_atomically(folder / f"{STEM}.{suffix}", content)
        return [folder / f"{STEM}.{suffix}" for suffix in contents]


@dataclass(frozen=True)
class AllScenarios:
    """Scenarios that were checked, before any file is written.

    Attributes:
        family: that is asked.
        scenarios: (group, budgets) each.
        networks: what they get where one architecture is tried.
        best_of: so many are tried.
        int8: whether the files are int8.
    """

    family: SpecialisingFamily
    scenarios: Sequence[Scenario]
    networks: Networks
    best_of: int
    int8: bool = False

    @classmethod
    def read(
        cls,
        family: SpecialisingFamily,
        scenarios: Sequence[Scenario],
        *,
        best_of: int = 1,
        int8: bool = False,
        place: Callable[[int], str] = lambda i: f"scenario {i + 1}",
    ) -> AllScenarios:
        """Check every scenario.

        Args:
            family: that is asked.
            scenarios: (group, budgets) each, as :meth:`SpecialisingFamily.specialize_many` takes them.
            best_of: so many architectures are tried on validation images for each.
            int8: make int8 files.
            place: of a scenario, by its position: how messages name it.

        Raises:
            ConfigError: there are none, or two ask for the same.
            FamilyError: a group is unknown, or ``best_of`` wants validation images and a group has none.
            BudgetError: a cost is unknown, or no network is within a scenario's budgets.
        """
        if not scenarios:
            raise ConfigError("no scenario is given; one is a group, and a budget for each cost that is bounded")
        try:
            networks = family.specialize_many(scenarios)
            scenarios = [(group, family.named(budgets)) for group, budgets in scenarios]
        except SnugnetError as error:
            raise family.refusal(scenarios, place) or error from None
        assert isinstance(networks, Networks)
        asked: dict[Any, int] = {}
        for i, each in enumerate(networks):
            before = asked.setdefault((each.class_indices, frozenset(each.budgets.items())), i)
            if before != i:
                raise ConfigError(f"{place(i)} asks for the same as {place(before)}; leave one out")
            if best_of > 1 and not len(family.validation.of_classes(each.class_indices)):
                raise FamilyError(
                    f"{place(i)}: {family.name} holds no validation images of {each.group}; leave out best_of"
                )
        return cls(family, scenarios, networks, best_of, int8)

    def __len__(self) -> int:
        return len(self.scenarios)

    def network(self, i: int) -> Specialized:
        """The very network that :meth:`SpecialisingFamily.specialize` hands out for a scenario by itself."""
        if self.best_of > 1:
            return self.family.best(self.scenarios[i], self.best_of)
        found = self.networks[i]
        own = dict.fromkeys(
            (*self.family.tables, *self.scenarios[i][1], self.family.budget_name)
        )  # not other scenarios' costs
        return replace(found, costs={name: found.costs[name] for name in own})

    @cached_property
    def names(self) -> list[str]:
        """A name for each file, of the group and the budgets as they were written."""
        names, seen = [], set()
        for (_, budgets), asked in zip(self.scenarios, self.networks, strict=True):
            parts = [asked.group, *(f"{cost}-{value}".replace("%", "pct") for cost, value in budgets.items())]
            name = slug("-".join(parts)).encode()[:_LONGEST_NAME].decode(errors="ignore")
            if name.casefold() in seen:  # names that differ only in what a file's name does not show
                name += f"-{digest(asked.class_indices, asked.budgets)}"
            seen.add(name.casefold())
            names.append(f"{name}.onnx")
        return names

    def write(
        self, folder: Path, test: ImageSet | None = None, *, fresh: bool = False, progress: bool = True
    ) -> NetworkFiles:
        """Write a file for each scenario, and the table; what an earlier run made of the same is taken.

        Several are made at once on a CPU: as many as torch has threads.

        Args:
            folder: is made if needed; other files in it are left alone.
            test: images to measure accuracies on, if that is wanted; labels in the order of the family's classes.
            fresh: make all anew, and write over what another run left.
            progress: whether to show a bar.

        Raises:
            BusyError: another process works in the folder.
            ConfigError: the folder holds files that were made with something else, or of which nothing is known.
            ExportError: a file does not agree with its network.
        """
        if test is not None:
            test = test.to(self.family.device)
        images = None if test is None else digest(*test.contents())
        asked = [
            fingerprint(group=each.group, classes=each.classes, budgets=each.budgets, images=images)
            for each in self.networks
        ]
        with locked(folder):
            made = MadeFiles.open(folder, self._made_with(), self.names, fresh=fresh)
            entries = {i: made.take(name, asked[i]) for i, name in enumerate(self.names)}
            todo = [i for i, entry in entries.items() if entry is None]
            taken = len(self) - len(todo)
            alike: dict[Any, list[int]] = {}
            for i in todo:
                alike.setdefault(self._file_of(i), []).append(i)
            with (
                side_by_side(self.family.device, len(alike), as_alone=True) as run,
                progress_bar("specialize", len(self), done=taken, shown=progress) as advance,
            ):
                for own, content, known in run(lambda own: self._make(own, folder, test), alike.values()):
                    for i in own:
                        entries[i] = made.add(self.names[i], asked[i], content, **known)
                    advance(by=len(own))
            files = self._table([entry for entry in entries.values() if entry is not None], test is not None, taken)
            files.save(folder)
        return files

    def _file_of(self, i: int) -> Any:
        """Equal for scenarios whose files are: close budgets often get one network. What the best of several is nobody knows yet."""
        if self.best_of > 1:
            return i
        network = self.network(i)
        return network.group, network.row.tobytes(), tuple(network.costs)

    def _make(
        self, scenarios: list[int], folder: Path, test: ImageSet | None
    ) -> tuple[list[int], bytes, dict[str, Any]]:
        """Write one network, for all scenarios that get it."""
        first, *others = (folder / self.names[i] for i in scenarios)
        network = self.network(scenarios[0])
        content = network.export(first, precision="int8" if self.int8 else "float32").read_bytes()
        for path in others:
            write_atomically(path, content)
        right = math.nan
        if test is not None:
            batches = self.family.batches(test, network.class_indices, network.blueprint.resolution)
            right = accuracy(network.module, batches)
        known = {"row": network.row.tolist(), "accuracy": None if math.isnan(right) else right}
        if self.int8:
            facts = int8_facts(content)
            assert facts is not None
            known |= {
                "float_accuracy": known["accuracy"],
                "agreement": facts.agreement,
                "kept_float": list(facts.kept_float),
            }
            if test is not None:
                own = accuracy_of(content, *network.pictures(test).arrays())
                known["accuracy"] = None if math.isnan(own) else own
        return scenarios, content, known

    def _made_with(self) -> Fingerprint:
        """What all files depend on."""
        family = self.family
        tables = [each for table in family.tables.values() for each in table.arrays().values()]
        validated = self.best_of > 1 or self.int8
        judged_on = [family.validation.images, family.validation.labels] if validated else []
        return fingerprint(
            family=family.name,
            weights=digest(*family.supernet.state_dict().values()),
            generator=digest(family.budget_name, family.generator.options, *family.generator.state_dict().values()),
            costs=digest(list(family.tables), *tables),
            images=digest(family.mean, family.std, family.calibration.images, *judged_on),
            best_of=self.best_of,
            **({"precision": "int8"} if self.int8 else {}),
        )

    def _table(self, entries: Sequence[Entry], measured: bool, taken: int) -> NetworkFiles:
        family = self.family
        bounded = list(dict.fromkeys(name for _, budgets in self.scenarios for name in budgets))
        costs = list(dict.fromkeys((*family.tables, *bounded, family.budget_name)))

        def rows() -> Iterator[NetworkFile]:
            for i, (asked, entry) in enumerate(zip(self.networks, entries, strict=True)):
                row = family.space.rows(entry["row"])
                own = {name: float(family.table(name, len(asked.class_indices))(row)[0]) for name in costs}
                yield NetworkFile(
                    scenario=i + 1,
                    group=asked.group,
                    classes=asked.classes,
                    budgets={name: asked.budgets[name] for name in bounded if name in asked.budgets},
                    costs={name: plain_number(value) for name, value in own.items()},
                    accuracy=entry["accuracy"],
                    int8={key: entry[key] for key in ("float_accuracy", "agreement", "kept_float")}
                    if self.int8
                    else None,
                    file=entry["file"],
                    bytes=entry["bytes"],
                    sha256=entry["sha256"],
                    architecture=family.space.to_dict(row[0]),
                )

        over = bounded[0] if bounded else family.budget_name
        return NetworkFiles(family.name, over, self.best_of, measured, tuple(rows()), taken)


def specialize_all(
    family: SpecialisingFamily,
    scenarios: Sequence[Scenario],
    folder: str | Path,
    *,
    best_of: int = 1,
    int8: bool = False,
    test: ImageSet | None = None,
    fresh: bool = False,
    progress: bool = True,
) -> NetworkFiles:
    """Write the networks of many scenarios as ONNX files, and one table over all; see :meth:`AllScenarios.write`.

    Args:
        family: that hands them out.
        scenarios: (group, budgets) each.
        folder: for ``networks.csv``, ``.json``, ``.md``, ``.png`` and a file a scenario; the same goes on.
        best_of: architectures to try on validation images for each scenario.
        int8: make int8 files.
        test: images to measure accuracies on.
        fresh: make all anew.
        progress: whether to show a bar.
    """
    checked = AllScenarios.read(family, scenarios, best_of=best_of, int8=int8)
    return checked.write(Path(folder), test, fresh=fresh, progress=progress)
