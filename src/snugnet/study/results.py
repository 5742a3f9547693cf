"""What a study found: every network, the tables over seeds, the figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from snugnet.family.report import Row
from snugnet.family.text_table import TextTable, human
from snugnet.files import json_text, write_atomically
from snugnet.plots import architecture_figure, front_figure, line_figure, mean_similarity, scatter_figure
from snugnet.spaces import SearchSpace, get_space
from snugnet.study.config import StudyConfig, slug

if TYPE_CHECKING:
    from rich.table import Table

JSON, MARKDOWN = "study.json", "study.md"


@dataclass(frozen=True)
class Outcome:
    """What one method found under one seed.

    Attributes:
        method: its name.
        seed: of training and search.
        seconds: of training the ``teacher`` and the ``supernet``, of the ``preparation`` of the search (evaluating
            architectures and fitting a predictor, or training a generator), and of the ``search`` for all networks.
        rows: superclass by superclass, budgets rising.
        predictor: predicted and measured accuracies (means over superclasses) of architectures that the predictor was not
            fitted on; empty where there is no predictor.
    """

    method: str
    seed: int
    seconds: dict[str, float]
    rows: list[Row]
    predictor: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(**{**content, "rows": [Row.from_json(row) for row in content["rows"]]})


@dataclass(frozen=True)
class Sampled:
    """How well the networks of one supernet do over all classes.

    Attributes:
        supernet: its name.
        seed: of training, and of the draw.
        seconds: of training the ``teacher``, where it has one, and the ``supernet``.
        smallest, largest: accuracy of the two ends.
        random: accuracies of random architectures, uniform over choices.
    """

    supernet: str
    seed: int
    seconds: dict[str, float]
    smallest: float
    largest: float
    random: list[float]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Line:
    """One method under one budget, over all seeds.

    Attributes:
        accuracy, deviation: mean over superclasses, then mean and (sample) standard deviation over seeds; per cent.
        cost: mean over superclasses and seeds.
    """

    method: str
    budget: float
    accuracy: float
    deviation: float
    cost: float


@dataclass(frozen=True)
class Results:
    """All outcomes of a study.

    Attributes:
        config: of the study, as plain JSON.
        outcomes: of every method under every seed.
        machine: that this was measured on.
        sampled: random networks of every supernet under every seed, where the study asks for them.
    """

    config: dict[str, Any]
    outcomes: list[Outcome]
    machine: dict[str, Any]
    sampled: list[Sampled] = field(default_factory=list)

    # -- numbers -------------------------------------------------------------------------------------------------------

    @cached_property
    def cost(self) -> str:
        """The cost that budgets are of: the same for all supernets."""
        config = StudyConfig(**self.config)
        return config.recipe_of(next(iter(config.supernets)), config.seeds[0]).generator.budget

    @property
    def budgets(self) -> list[float]:
        """All budgets, rising."""
        return sorted({row.budget for outcome in self.outcomes for row in outcome.rows})

    @property
    def groups(self) -> list[str]:
        """All superclasses, in order."""
        return list(dict.fromkeys(row.group for outcome in self.outcomes for row in outcome.rows))

    def of(self, method: str) -> list[Outcome]:
        """The outcomes of one method, a seed each."""
        return [outcome for outcome in self.outcomes if outcome.method == method]

    def lines(self, methods: Sequence[str]) -> list[Line]:
        """Accuracy and cost of methods under each budget."""
        result = []
        for method in methods:
            for budget in self.budgets:
                own = [[row for row in outcome.rows if row.budget == budget] for outcome in self.of(method)]
                seeds = self._seeds(method, budget)
                cost = float(np.mean([row.costs[self.cost] for rows in own for row in rows]))
                result.append(Line(method, budget, float(seeds.mean()), _deviation(seeds), cost))
        return result

    def _seeds(self, method: str, budget: float) -> np.ndarray:
        """Mean accuracy over superclasses under one budget, per cent, a seed each."""
        own = [[row.accuracy for row in outcome.rows if row.budget == budget] for outcome in self.of(method)]
        return np.array([100 * np.nanmean(accuracies) for accuracies in own])

    def ahead(self, method: str, baseline: str) -> list[tuple[float, float, float]]:
        """How far a method is ahead of another, both under the same seed.

        Returns:
            For each budget: itself, the mean difference over seeds in points, and its (sample) standard deviation.
        """
        result = []
        for budget in self.budgets:
            differences = self._seeds(method, budget) - self._seeds(baseline, budget)
            result.append((budget, float(differences.mean()), _deviation(differences)))
        return result

    def by_group(self, method: str, budget: float) -> dict[str, tuple[float, float]]:
        """Accuracy of each superclass, mean and standard deviation over seeds, per cent."""
        result = {}
        for group in self.groups:
            values = np.array(
                [100 * r.accuracy for o in self.of(method) for r in o.rows if (r.group, r.budget) == (group, budget)]
            )
            result[group] = (float(values.mean()), _deviation(values))
        return result

    def seconds(self, method: str) -> dict[str, float]:
        """Mean seconds over the seeds, by what they were spent on."""
        own = self.of(method)
        return {
            key: float(np.mean([o.seconds.get(key, 0.0) for o in own]))
            for key in ("teacher", "supernet", "preparation", "search")
        }

    def similarity(self, method: str) -> list[tuple[float, float, float]]:
        """Cosine similarity between the architectures of different superclasses under each budget (the paper's Figure B).

        Returns:
            For each budget: itself, the mean over pairs and seeds, and the standard deviation over seeds. Architectures are
            compared by their one-hot codes, as in EAS appendix F.
        """
        space = self.space(method)
        result = []
        for budget in self.budgets:
            seeds = []
            for outcome in self.of(method):
                rows = np.array([row.arch for row in outcome.rows if row.budget == budget])
                seeds.append(mean_similarity(space, rows))
            result.append((budget, float(np.mean(seeds)), _deviation(np.array(seeds))))
        return result

    def space(self, method: str) -> SearchSpace:
        """The search space of a method's supernet (its classes do not matter to architectures)."""
        config = StudyConfig(**self.config)
        (supernet,) = (each.supernet for each in config.methods if each.name == method)
        recipe = config.recipe_of(supernet, config.seeds[0])
        return get_space(recipe.space.name, **recipe.space.options, resolution=recipe.data.resolution)

    # -- for people ----------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, the tables included."""
        tables = {
            title: [asdict(line) for line in self.lines(methods)] for title, methods in self.config["tables"].items()
        }
        seconds = {method["name"]: self.seconds(method["name"]) for method in self.config["methods"]}
        return {
            "config": self.config,
            "machine": self.machine,
            "tables": tables,
            "seconds": seconds,
            "outcomes": [outcome.to_json() for outcome in self.outcomes],
            "sampled": [each.to_json() for each in self.sampled],
        }

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            ConfigError: the file is not there, or holds no study.
        """
        import json

        from snugnet.errors import ConfigError

        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            StudyConfig(**content["config"])  # raises what is a ValueError
            outcomes = [Outcome.from_json(each) for each in content["outcomes"]]
            sampled = [Sampled(**each) for each in content.get("sampled", [])]  # older studies have none
            return cls(content["config"], outcomes, content["machine"], sampled)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} holds no study's results ({' '.join(str(error).split())[:120]})") from error

    def _table(self, title: str) -> TextTable:
        header = ["method", *(f"{self.cost} <= {human(budget)}" for budget in self.budgets)]
        body = []
        for method in self.config["tables"][title]:
            lines = self.lines([method])
            cells = [f"{line.accuracy:.2f} ± {line.deviation:.2f} ({human(line.cost)})" for line in lines]
            body.append([method, *cells])
        return TextTable(title, header, body, self.caption())

    def _ahead_table(self, title: str) -> TextTable:
        baseline = self.config["baseline"]
        header = [f"against {baseline}", *(f"{self.cost} <= {human(budget)}" for budget in self.budgets)]
        body = [
            [method, *(f"{mean:+.2f} ± {deviation:.2f}" for _, mean, deviation in self.ahead(method, baseline))]
            for method in self.config["tables"][title]
            if method != baseline
        ]
        return TextTable(f"{title}: points ahead, seed by seed", header, body, self.caption())

    def _sampled_table(self) -> TextTable:
        count = self.config["sampled"]
        header = ["supernet", f"{count} random", "smallest", "largest", "teacher", "training"]
        body = []
        for name in self.config["supernets"]:
            own = [each for each in self.sampled if each.supernet == name]
            accuracies = np.array([[np.mean(each.random), each.smallest, each.largest] for each in own])
            seeds = list(100 * accuracies.T)
            spent = [float(np.mean([each.seconds.get(key, 0.0) for each in own])) for key in ("teacher", "supernet")]
            cells = [f"{values.mean():.2f} ± {_deviation(values):.2f}" for values in seeds]
            body.append([name, *cells, *(f"{seconds:.3g} s" for seconds in spent)])
        caption = (
            f"{self.config['report']} accuracy (%) over all classes, mean ± standard deviation over "
            f"{len(self.config['seeds'])} seeds; the same architectures for all supernets, uniform over choices"
        )
        return TextTable("networks of every supernet, over all classes", header, body, caption)

    def _time_table(self) -> TextTable:
        scenarios = len(self.groups) * len(self.budgets)
        header = ["method", "teacher", "supernet", "search: preparation", f"search: {scenarios} scenarios"]
        body = [
            [method["name"], *(f"{spent:.3g} s" for spent in self.seconds(method["name"]).values())]
            for method in self.config["methods"]
        ]
        return TextTable("training and search cost", header, body, "mean over seeds")

    def _group_table(self, title: str) -> TextTable:
        header = ["method", f"{self.cost} <=", *self.groups]
        body = []
        for method in self.config["tables"][title]:
            for budget in self.budgets:
                cells = [f"{mean:.1f} ± {std:.1f}" for mean, std in self.by_group(method, budget).values()]
                body.append([method, human(budget), *cells])
        return TextTable(f"{title}, superclass by superclass", header, body, self.caption())

    def rich_tables(self) -> list[Table]:
        """For people."""
        tables = []
        for title in self.config["tables"]:
            tables.append(self._table(title))
            if self.config.get("baseline"):
                tables.append(self._ahead_table(title))
        tables += [self._sampled_table()] if self.sampled else []
        tables += [self._time_table()] if self.outcomes else []
        return [table.rich() for table in tables]

    def caption(self) -> str:
        """What the numbers are."""
        seeds = len(self.config["seeds"])
        return (
            f"{self.config['report']} accuracy (%), mean over {len(self.groups)} superclasses, then mean ± standard deviation "
            f"over {seeds} seeds; in brackets the mean {self.cost} of the networks"
        )

    def markdown(self) -> str:
        """All tables as Markdown, the superclasses of the first table's methods included."""
        parts = [f"# {self.config['name']}", ""]
        parts += [self.caption() + ".", ""] if self.outcomes else []
        for title in self.config["tables"]:
            parts += [f"## {title}", "", *self._table(title).markdown(), ""]
            if self.config.get("baseline"):
                parts += ["Points ahead, seed by seed:", "", *self._ahead_table(title).markdown(), ""]
        if self.sampled:
            table = self._sampled_table()
            parts += ["## Supernets", "", table.caption + ".", "", *table.markdown(), ""]
        if self.outcomes:
            parts += ["## Training and search cost", "", *self._time_table().markdown(), ""]
            groups = self._group_table(next(iter(self.config["tables"])))
            parts += [f"## {groups.title}", "", *groups.markdown(), ""]
        return "\n".join(parts)

    def figures(self) -> dict[str, bytes]:
        """PNG by name: a front for each table, the similarity of architectures where there are several superclasses, block
        diagrams of the first seed's architectures, and predicted over measured accuracy."""
        made: dict[str, bytes] = {}
        if not self.outcomes:
            return made
        for title, methods in self.config["tables"].items():
            curves = {
                method: [(line.cost, line.accuracy, line.deviation) for line in self.lines([method])]
                for method in methods
            }
            made[slug(title)] = front_figure(
                curves, f"{self.config['name']}: {title}", self.cost, f"{self.config['report']} accuracy (%)"
            )
        own = [m["name"] for m in self.config["methods"] if m["search"] != "random" and m["per_superclass"]]
        first = [name for name in self.config["tables"][next(iter(self.config["tables"]))] if name in own]
        if len(self.groups) > 1:
            made["similarity"] = line_figure(
                {name: self.similarity(name) for name in first},
                "similarity of the architectures of different superclasses", f"{self.cost} budget", "cosine similarity",
            )  # fmt: skip
        for outcome in [o for o in self.outcomes if o.method in first and o.seed == self.config["seeds"][0]]:
            budget = self.budgets[(len(self.budgets) - 1) // 2]
            archs = {row.group: row.arch for row in outcome.rows if row.budget == budget}
            title = f"{outcome.method}, {self.cost} <= {human(budget)}, seed {outcome.seed}"
            made[f"architectures-{slug(outcome.method)}"] = architecture_figure(
                self.space(outcome.method), archs, title
            )
        for outcome in [o for o in self.outcomes if o.predictor]:
            made[f"predictor-{slug(outcome.method)}-seed-{outcome.seed}"] = scatter_figure(
                100 * np.array(outcome.predictor["predicted"]), 100 * np.array(outcome.predictor["measured"]),
                f"{outcome.method}, seed {outcome.seed}: held-out architectures, mean accuracy (%)",
            )  # fmt: skip
        return made

    def save(self, folder: Path) -> list[Path]:
        """Write ``study.json``, ``study.md`` and a PNG a figure; returns their paths."""
        names = [JSON, MARKDOWN]
        write_atomically(
            folder / JSON, json_text(self.to_json()).encode()
        )  # first: what follows can be made of it again
        write_atomically(folder / MARKDOWN, self.markdown().encode())
        for name, content in self.figures().items():
            names.append(f"{name}.png")
            write_atomically(folder / names[-1], content)
        return [folder / name for name in names]


def _deviation(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else 0.0
