"""Recipes: everything that a run depends on, in one YAML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, model_validator

from snugnet.config import Config, read_config
from snugnet.costs.budget import parse_budget
from snugnet.data.config import AugmentConfig, DataConfig
from snugnet.errors import ConfigError


class SpaceConfig(Config):
    """The search space: its name, and its options as further keys (``width_mult``, ``stage_strides``, ...)."""

    model_config = ConfigDict(extra="allow")

    name: str = "ofa-mobilenet-v3"

    @property
    def options(self) -> dict[str, Any]:
        """Options of the space; resolution and classes come from the data."""
        return dict(self.model_extra or {})

    @model_validator(mode="after")
    def _data_decides(self) -> SpaceConfig:
        for key in ("resolution", "num_classes", "in_channels"):
            if key in self.options:
                raise ValueError(f"{key} follows from the data (data.resolution, the labels); leave it out here")
        return self


class StageConfig(Config):
    """One stage of progressive shrinking.

    Attributes:
        name: shown in logs.
        epochs: passes over the training images.
        learning_rate: at the start; it falls to 0 by a cosine.
        elastic: for each kind of choice, how many options are in use, counted from the largest. Empty: the largest
            network alone.
        subnets: sub-networks a step; their gradients add up to one update.
        warmup_epochs: over which the learning rate first rises from 0.
    """

    name: str
    epochs: float = Field(gt=0, le=1e5)
    learning_rate: float = Field(gt=0)
    elastic: dict[str, int] = Field(default_factory=dict)
    subnets: int = Field(default=1, ge=1)
    warmup_epochs: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        if any(count < 1 for count in self.elastic.values()):
            raise ValueError(f"elastic counts are at least 1, got {self.elastic}")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) is more than epochs ({self.epochs})")
        return self


class TrainingConfig(Config):
    """Training of the supernet (EAS section 4 and appendix B).

    Attributes:
        batch_size: images a step.
        stages: the first trains the largest network, the teacher of the others, without superclass dropout.
        superclass_dropout: the rate p of section 3.1: 0 is plain training, 1 the target superclass only.
        distillation: weight of the loss against the teacher, beside the loss against the labels.
        label_smoothing: share of the target spread over the classes.
        momentum: of SGD.
        weight_decay: of SGD, on every parameter but biases and batch norm.
        checkpoint_seconds: at most so much work is lost when a run is stopped.
        log_every: steps between two lines of the log.
    """

    batch_size: int = Field(default=128, ge=2)
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    superclass_dropout: float = Field(default=0.6, ge=0, le=1)
    distillation: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-5, ge=0)
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    log_every: int = Field(default=20, ge=1)

    @model_validator(mode="after")
    def _teacher_first(self) -> TrainingConfig:
        if self.stages[0].elastic:
            raise ValueError("the first stage trains the largest network, the teacher: its elastic is empty")
        return self


class GeneratorConfig(Config):
    """The architecture generator and its training (EAS section 3.2).

    Attributes:
        budget: the cost that budgets are of: madds, params, or the name of another table of the family.
        budgets: K, how many budgets have an embedding, evenly spaced between the smallest and the largest cost.
        embedding_size: of each superclass and each budget.
        hidden_size: of the LSTM.
        encoding: single-path (nested binary gates) or multi-path (softmax).
        steps: of Adam.
        pairs: (superclass, budget) pairs a step.
        images: validation images a pair.
        learning_rate: of Adam, falling to 0 by a cosine.
        temperature: of the relaxation, at the start and at the end.
        budget_weight: lambda of equation 4.
    """

    budget: str = "madds"
    budgets: int = Field(default=10, ge=2)
    embedding_size: int = Field(default=32, ge=1)
    hidden_size: int = Field(default=64, ge=1)
    encoding: Literal["single-path", "multi-path"] = "single-path"
    steps: int = Field(default=500, ge=1)
    pairs: int = Field(default=8, ge=1)
    images: int = Field(default=32, ge=2)
    learning_rate: float = Field(default=1e-2, gt=0)
    temperature: tuple[float, float] = (1.0, 0.5)
    budget_weight: float = Field(default=1.0, ge=0)

    @model_validator(mode="after")
    def _check(self) -> GeneratorConfig:
        if min(self.temperature) <= 0:
            raise ValueError(f"temperatures are above 0, got {self.temperature}")
        return self


class EvaluationConfig(Config):
    """What is reported at the end.

    Attributes:
        budgets: how many budgets, evenly spaced strictly inside the range of costs; or the budgets themselves.
        calibration_images: training images that batch norm is recalibrated on; they are kept in the family.
        best_of: architectures to try on validation images for each scenario (1: the generator's own).
        export: whether the middle budget of each group is written as ONNX and checked.
    """

    budgets: int | tuple[float | str, ...] = 4
    calibration_images: int = Field(default=512, ge=8)
    best_of: int = Field(default=1, ge=1, le=10_000)
    export: bool = False

    @model_validator(mode="after")
    def _check(self) -> EvaluationConfig:
        if (self.budgets if isinstance(self.budgets, int) else len(self.budgets)) < 1:
            raise ValueError("at least one budget is reported on")
        if isinstance(self.budgets, int) and self.budgets > 100:
            raise ValueError(
                f"a number of budgets is at most 100, got {self.budgets}; a budget itself stands in a list"
            )
        for budget in () if isinstance(self.budgets, int) else self.budgets:
            parse_budget(budget)
        return self


class Recipe(Config):
    """A whole run, from images to a family.

    Attributes:
        name: of the family.
        output: folder that the family is written to; relative to where the command runs.
        seed: of everything that is drawn.
        device: auto, cpu, cuda or mps.
        precision: of training, as Lightning Fabric names them.
        threads: CPU threads; all without it.
    """

    name: str
    output: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    space: SpaceConfig = SpaceConfig()
    training: TrainingConfig
    generator: GeneratorConfig = GeneratorConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, defaults filled in."""
        return json.loads(self.model_dump_json())


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: of the YAML file.
        overrides: ``key=value`` texts; a dotted key reaches into sections and lists (``training.batch_size=64``,
            ``training.stages.0.epochs=2``), the value is read as YAML.

    Raises:
        ConfigError: the file, a key or a value is wrong; the message says where and what is allowed.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except OSError as error:
        raise ConfigError(f"cannot read recipe {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a recipe is a YAML mapping, got {type(content).__name__}")
    for override in overrides:
        _apply(content, override)
    return parse_recipe(content, str(path))


def parse_recipe(content: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe given as plain data.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    return read_config(Recipe, content, where)


def read_assignment(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is read as YAML.

    Raises:
        ConfigError: it is something else.
    """
    key, sign, value = text.partition("=")
    key = key.strip()
    if not sign or not key:
        raise ConfigError(f"settings are key=value, got {text!r}")
    try:
        return key, yaml.load(value, _UniqueKeys)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{key}: {value!r} is not YAML") from error


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML reads ``a: 1`` and a later ``a: 2`` as 2 and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _apply(content: dict[str, Any], override: str) -> None:
    """Set one ``key=value``, making sections that are not there yet."""
    key, value = read_assignment(override)
    place: Any = content
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        if isinstance(place, list):
            place = place[_position(place, section, key)]
        else:
            if place.get(section) is None:
                place[section] = {}
            place = place[section]
        if not isinstance(place, (dict, list)):
            raise ConfigError(f"{key}: {'.'.join(sections[: depth + 1])} is a value, not a section")
    if isinstance(place, list):
        place[_position(place, last, key)] = value
    else:
        place[last] = value


def _position(place: list[Any], text: str, key: str) -> int:
    if not text.isdecimal() or int(text) >= len(place):
        raise ConfigError(f"{key}: {text!r} is not a position in a list of {len(place)} (they count from 0)")
    return int(text)
