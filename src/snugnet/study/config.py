"""What a study compares, as checked YAML."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, NonNegativeInt, model_validator

from snugnet.config import Config, read_config
from snugnet.errors import ConfigError, SnugnetError
from snugnet.predictors import PREDICTORS
from snugnet.recipe import Recipe, parse_recipe
from snugnet.search.method import Method, make_method
from snugnet.yaml_content import put, read_yaml


class Entry(Config):
    """One line of a table: a way to find architectures on one of the supernets.

    Attributes:
        name: of the line.
        supernet: that is searched.
        search: a registered search method. In a study ``random`` is one architecture of the budget's cost a scenario, and
            ``generator`` EAS's, one decode for all scenarios, unless the settings say otherwise; ``predictor`` is OFA's way,
            an evolution on the study's predictor with the preset and generations that stand there.
        settings: of the method.
        score: what is searched on: validation ``images``, or the study's ``predictor`` of accuracies on them.
        per_superclass: an architecture for each superclass; otherwise one for all of them (OFA-V, EAS-V).
        generator: changes to the recipe's generator section, such as ``{encoding: multi-path}``.
    """

    name: str = Field(min_length=1)
    supernet: str
    search: str
    settings: dict[str, Any] = Field(default_factory=dict)
    score: Literal["images", "predictor"] = "images"
    per_superclass: bool = True
    generator: dict[str, Any] = Field(default_factory=dict)

    @property
    def asks_predictor(self) -> bool:
        """Whether it is searched on the study's predictor."""
        return self.search == "predictor" or self.score == "predictor"

    @model_validator(mode="after")
    def _used(self) -> Entry:
        if self.search == "predictor" and self.settings:
            raise ValueError(f"{self.name}: the settings of search: predictor stand in the study's section predictor")
        if self.generator and self.search != "generator":
            raise ValueError(f"{self.name}: generator settings are for search: generator")
        if "budget" in self.generator:
            raise ValueError(f"{self.name}: generator.budget is the same for all methods; it stands in the recipe")
        return self


class PredictorConfig(Config):
    """OFA's pipeline (EAS appendix B: 16,000 architectures).

    Attributes:
        architectures: sampled, uniform over the cost, and evaluated on validation images; each gives the accuracy of every
            superclass at once.
        kind: of predictor, any that is registered: mlp, forest, best, ...
        settings: of the kind: named arguments of its ``fit``.
        preset: whose settings the evolution of ``search: predictor`` has: ofa, spos, attentive-nas.
        generations: of that evolution, if others than the preset's.
        at_least: share of a budget that what ``search: predictor`` finds costs at least: a predictor of few and noisy rows else stops
            short of it, and methods would be compared at other costs. 0 lets it.
    """

    architectures: int = Field(default=200, ge=25)
    kind: str = "mlp"
    settings: dict[str, Any] = Field(default_factory=dict)
    preset: str = "ofa"
    generations: int | None = Field(default=None, ge=1)
    at_least: float = Field(default=0.95, ge=0, lt=1)

    @property
    def evolution(self) -> dict[str, Any]:
        """Settings of the evolution of ``search: predictor``."""
        return {"preset": self.preset} | ({} if self.generations is None else {"generations": self.generations})

    def check(self) -> None:
        """Refuse what only shows once the kind is looked up.

        Raises:
            ConfigError: there is no such kind, it has no such setting, or it needs more architectures.
        """
        kind = PREDICTORS[self.kind]
        named = [each.name for each in signature(kind.fit).parameters.values() if each.kind is each.KEYWORD_ONLY]
        own = [name for name in named if name not in _FITTED_WITH]
        foreign = [name for name in self.settings if name not in own]
        if foreign:
            raise ConfigError(
                f"predictor: {self.kind} takes no {foreign[0]}; it takes {', '.join(own) or 'no settings'}"
            )
        if (few := fitted_on(self.architectures)) < kind.minimum_rows:
            raise ConfigError(
                f"predictor.architectures is {self.architectures}: {self.kind} is judged when fitted on {few} of them, and "
                f"needs {kind.minimum_rows}"
            )


_FITTED_WITH = ("targets", "seed", "progress")
"""What a study decides about the fit of a predictor."""


def fitted_on(architectures: int) -> int:
    """How many of the evaluated architectures the predictor that is judged is fitted on: it is judged on the others."""
    return architectures * 4 // 5


class StudyConfig(Config):
    """A comparison of entries, every one over all seeds, superclasses and budgets.

    Attributes:
        name: of the study.
        output: folder of its checkpoints and results.
        seeds: of training and search alike.
        workers: processes side by side, each with its share of the threads. Two processes of one thread train about a fifth
            faster than one of two.
        report: what accuracies are of: ``test``, once; while something is still being chosen, ``validation``: the half of its
            images that nothing was searched on, and the training images that ``train_rows`` leaves out.
        budgets: how many, evenly spaced strictly inside the range of costs; or the budgets themselves, amounts or shares of that range
            (``40%``).
        recipe: the recipe that every supernet is a change of, as in a recipe's own file (name, output, seed and the budgets of
            the evaluation come from here, and a study exports nothing). The first stage, where it trains the largest network alone, is run once a seed and shared.
        supernets: by name, the changes: dotted keys to values (``training.superclass_dropout: 0``).
        methods: what is compared.
        tables: by title, the methods that are shown side by side.
        baseline: a method that the others of each table are also shown against, seed by seed.
        sampled: so many random architectures of every supernet, uniform over choices, are measured over all classes, beside its
            smallest and its largest: how good the supernet is, whatever is searched on it. A study of trainings needs no methods.
        predictor: OFA's pipeline.
    """

    name: str
    output: str
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0, 1, 2), min_length=1)
    workers: int = Field(default=1, ge=1, le=64)
    report: Literal["validation", "test"] = "test"
    budgets: int | tuple[float | str, ...] = 4
    recipe: dict[str, Any]
    supernets: dict[str, dict[str, Any]] = Field(min_length=1)
    methods: tuple[Entry, ...] = ()
    tables: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    baseline: str | None = None
    sampled: NonNegativeInt = 0
    predictor: PredictorConfig = PredictorConfig()

    @model_validator(mode="after")
    def _check(self) -> StudyConfig:
        names = [method.name for method in self.methods]
        if not self.methods and not self.sampled:
            raise ValueError("nothing is compared: give methods, or a number of sampled architectures")
        if self.methods and not self.tables:
            raise ValueError("tables is {}: methods are shown in tables, by title")
        _once("method", [slug(name) for name in names])  # files are named after them
        _once("table", [slug(title) for title in self.tables])
        if "similarity" in map(slug, self.tables):
            raise ValueError("no table is called similarity: a figure of every study is")
        _once("seed", list(map(str, self.seeds)))
        for key in ("name", "output", "seed", "evaluation.budgets", "evaluation.best_of", "evaluation.export"):
            if _has(self.recipe, key) or any(key in changes for changes in self.supernets.values()):
                raise ValueError(f"recipe.{key}: a study decides this for all its supernets, or has no use for it")
        for method in self.methods:
            if method.supernet not in self.supernets:
                raise ValueError(
                    f"method {method.name}: no supernet {method.supernet!r}; supernets: {', '.join(self.supernets)}"
                )
        for title, lines in self.tables.items():
            for line in lines:
                if line not in names:
                    raise ValueError(f"table {title!r}: no method {line!r}; methods: {', '.join(names)}")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline: no method {self.baseline!r}; methods: {', '.join(names)}")
        return self

    def recipe_of(self, supernet: str, seed: int, method: Entry | None = None) -> Recipe:
        """The whole recipe of one supernet, with the generator of one of the methods.

        Raises:
            ConfigError: a key or a value is wrong.
        """
        content = copy.deepcopy(self.recipe)
        for key, value in self.supernets[supernet].items():
            put(content, key, copy.deepcopy(value))
        content |= {"name": f"{self.name}/{supernet}", "output": self.output, "seed": seed}
        put(content, "evaluation.budgets", self.budgets)
        if method is None:
            return parse_recipe(content, f"supernet {supernet}")
        for key, value in method.generator.items():
            put(content, f"generator.{key}", copy.deepcopy(value))
        if method.search == "generator" and not method.per_superclass:
            put(content, "generator.shared", True)
        return parse_recipe(content, f"method {method.name}")

    def method_of(self, entry: Entry) -> Method:
        """The search method of an entry, with its settings.

        Raises:
            ConfigError: there is no such method, or a setting is none of its own or makes no sense.
        """
        name, settings = entry.search, {**_ALONE.get(entry.search, {}), **entry.settings}
        if name == "predictor":
            name, settings = "evolution", self.predictor.evolution
        try:
            return make_method(name, settings)
        except SnugnetError as error:
            raise ConfigError(f"method {entry.name}: {error}") from error

    def check_searches(self) -> None:
        """Refuse a search that cannot be made, before anything is trained.

        Raises:
            ConfigError: there is no such search method or kind of predictor, or a setting is wrong.
        """
        for entry in self.methods:
            self.method_of(entry)
        if any(entry.asks_predictor for entry in self.methods):
            self.predictor.check()


_ALONE: dict[str, dict[str, Any]] = {"random": {"samples": 1, "at_least": 0.95}, "generator": {"candidates": 1}}
"""Settings of methods that a study, where they are not given, asks for one architecture, not scored; a random one is compared
at equal cost."""


def slug(title: str) -> str:
    """A title as a file's name."""
    return "-".join("".join(c if c.isalnum() else " " for c in title.lower()).split())


def _has(content: Any, key: str) -> bool:
    """Whether nested mappings hold a dotted key."""
    for part in key.split("."):
        if not isinstance(content, dict) or part not in content:
            return False
        content = content[part]
    return True


def _once(kind: str, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{kind} {twice[0]} stands twice")


def load_study(path: str | Path, overrides: Sequence[str] = ()) -> StudyConfig:
    """Read a study.

    Args:
        path: of the YAML file.
        overrides: ``key=value`` texts, as for recipes.

    Raises:
        ConfigError: the file, a key or a value is wrong.
    """
    study = read_config(StudyConfig, read_yaml(path, overrides), str(path))
    for supernet in study.supernets:
        if study.recipe_of(supernet, study.seeds[0]).ranks > 1:
            raise ConfigError(f"supernet {supernet}: a study trains on one device; leave out devices and num_nodes")
    for method in study.methods:
        study.recipe_of(method.supernet, study.seeds[0], method)
    study.check_searches()
    return study
