"""Recipes: everything that a run depends on, in one YAML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ConfigDict, Field, model_validator

from snugnet.config import Config, read_config
from snugnet.costs import COSTS, CostTable, counted_table, load_cost_table, resolve_budget
from snugnet.data.config import AugmentConfig, DataConfig
from snugnet.errors import ConfigError
from snugnet.spaces import SearchSpace


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
    """One stage of the supernet's training.

    Attributes:
        name: shown in logs.
        epochs: passes over the training images.
        learning_rate: at the start; it falls to 0.
        schedule: how it falls: by a ``cosine``, or ``linear`` (SPOS).
        elastic: for each kind of choice, how many options are in use, counted from the largest; ``all`` for every option
            of every choice. Empty: the largest network alone.
        sampling: how architectures are drawn: ``uniform`` over options (SPOS, OFA), ``cost`` (uniform over the cost),
            ``best-up`` or ``worst-up`` (AttentiveNAS: the best or worst of several candidates of a drawn cost).
        subnets: sub-networks drawn a step; all gradients of a step are averaged to one update.
        candidates: k of BestUp-k and WorstUp-k.
        windows: into how many the range of costs is cut where a cost is drawn.
        sandwich: run the largest and the smallest as well; all others learn from the largest, in place.
        warmup_epochs: over which the learning rate first rises from 0.
    """

    name: str
    epochs: float = Field(gt=0, le=1e5)
    learning_rate: float = Field(gt=0)
    schedule: Literal["cosine", "linear"] = "cosine"
    elastic: dict[str, int] | Literal["all"] = Field(default_factory=dict)
    sampling: Literal["uniform", "cost", "best-up", "worst-up"] = "uniform"
    subnets: int = Field(default=1, ge=1)
    candidates: int = Field(default=3, ge=2)
    windows: int = Field(default=64, ge=1, le=64)
    sandwich: bool = False
    warmup_epochs: float = Field(default=0.0, ge=0)

    @property
    def largest_only(self) -> bool:
        """Whether nothing but the largest network is trained."""
        return not self.elastic and not self.sandwich

    @model_validator(mode="after")
    def _check(self) -> StageConfig:
        if self.elastic != "all" and any(count < 1 for count in self.elastic.values()):
            raise ValueError(f"elastic counts are at least 1, got {self.elastic}")
        if self.sampling != "uniform" and self.elastic != "all":
            raise ValueError(f"sampling {self.sampling} draws from the whole space: it needs elastic: all")
        if self.warmup_epochs > self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) is more than epochs ({self.epochs})")
        return self


class TrainingConfig(Config):
    """Training of the supernet (EAS section 4 and appendix B; AttentiveNAS section 5).

    Attributes:
        batch_size: images a step.
        stages: one after the other. Where the first trains the largest network alone, that becomes the teacher of the
            later ones, and it is trained without superclass dropout.
        start: a checkpoint (``supernet.ckpt.safetensors``) of the same space and classes to begin from, its teacher
            included, instead of fresh weights.
        superclass_dropout: the rate p of EAS section 3.1: 0 is plain training, 1 the target superclass only.
        distillation: weight of the loss against the teacher, beside the loss against the labels. (Under the sandwich rule
            the largest learns from labels, all others from the largest alone.)
        label_smoothing: share of the target spread over the classes.
        momentum: of SGD.
        weight_decay: of SGD, on every parameter but biases and batch norm.
        dropout, drop_connect: on the largest network alone, under the sandwich rule: share of the classifier's inputs, and
            of the last block's samples (rising from 0 at the first), that are dropped.
        cost: that costs are drawn of: madds, params, activations, one that an installed package brings, or a measured one of
            the recipe's ``costs``.
        predictor: folder of an accuracy predictor that BestUp and WorstUp ask; without it, they compare the losses on the
            images of the step.
        checkpoint_seconds: at most so much work is lost when a run is stopped.
        log_every: steps between two lines of the log.
    """

    batch_size: int = Field(default=128, ge=2)
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    start: str | None = None
    superclass_dropout: float = Field(default=0.6, ge=0, le=1)
    distillation: float = Field(default=1.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-5, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_connect: float = Field(default=0.0, ge=0, lt=1)
    cost: str = "madds"
    predictor: str | None = None
    checkpoint_seconds: float = Field(default=60.0, ge=0)
    log_every: int = Field(default=20, ge=1)

    def trains_teacher(self, stage: int) -> bool:
        """Whether a stage, by its position, trains the teacher: the first one, where it trains the largest network alone.

        A training that starts from a checkpoint has its teacher from there. The teacher is trained without superclass dropout
        (EAS appendix B).
        """
        return stage == 0 and self.start is None and self.stages[0].largest_only

    @model_validator(mode="after")
    def _used(self) -> TrainingConfig:
        if (self.dropout or self.drop_connect) and not any(stage.sandwich for stage in self.stages):
            raise ValueError(
                "dropout and drop_connect regularise the largest network under the sandwich rule; no stage has it"
            )
        if self.predictor is not None and not any(stage.sampling in ("best-up", "worst-up") for stage in self.stages):
            raise ValueError("a predictor is asked by sampling best-up or worst-up; no stage has it")
        return self


class GeneratorConfig(Config):
    """The architecture generator and its training (EAS section 3.2).

    Attributes:
        budget: the cost that budgets are of: madds, params, activations, one that an installed package brings, or a measured
            one of the recipe's ``costs``.
        budgets: K, how many budgets have an embedding, evenly spaced between the smallest and the largest cost.
        embedding_size: of each superclass and each budget.
        hidden_size: of the LSTM.
        encoding: single-path (nested binary gates) or multi-path (softmax).
        shared: one architecture a budget for all superclasses (the paper's EAS-V) instead of one for each.
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
    shared: bool = False
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
        budgets: how many budgets, evenly spaced strictly inside the range of costs; or the budgets themselves, amounts
            or shares of the range (``40%``).
        calibration_images: training images kept in the family for recalibrating batch norm, which uses whole batches of 64 of them.
        validation_images: at most so many validation images are kept in the family, for best-of and for searches.
        best_of: architectures to try on validation images for each scenario (1: the generator's own).
        export: whether the middle budget of each group is written as ONNX and checked.
    """

    budgets: int | tuple[float | str, ...] = 4
    calibration_images: int = Field(default=512, ge=8)
    validation_images: int = Field(default=5000, ge=0)
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
            resolve_budget(budget, (0.0, 1.0))
        return self


class Recipe(Config):
    """A whole run, from images to a family.

    Attributes:
        name: of the family.
        output: folder that the family is written to; relative to where the command runs.
        seed: of everything that is drawn.
        device: auto, cpu or cuda. (Apple's mps has no float64, which exact costs and gates are counted in.)
        precision: of training, as Lightning Fabric names them.
        threads: CPU threads; all without it.
        costs: measured costs by name, each the file of its table (``latency_ms: note10.csv``); see
            :func:`snugnet.costs.load_cost_table`. The family has them all as budgets.
    """

    name: str
    output: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    costs: dict[str, str] = Field(default_factory=dict)
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    space: SpaceConfig = SpaceConfig()
    training: TrainingConfig
    generator: GeneratorConfig = GeneratorConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _measured(self) -> Recipe:
        for name in self.costs:
            if name in COSTS:
                raise ValueError(f"costs: {name} is counted from the architecture; a measured cost has another name")
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, defaults filled in."""
        return json.loads(self.model_dump_json())

    def cost_table(self, space: SearchSpace, name: str) -> CostTable:
        """The table of a cost that the recipe names: a measured one of :attr:`costs`, or one that is known by its name.

        Raises:
            ConfigError: the file's table is of another cost.
            DataError: the file cannot be read.
            SpaceError: there is no such cost, or the file is of another space.
        """
        if name not in self.costs:
            return counted_table(space, name)
        table = load_cost_table(self.costs[name], space)
        if table.name != name:
            raise ConfigError(f"costs.{name}: {self.costs[name]} is a table of {table.name}; name it so")
        return table


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: of the YAML file.
        overrides: ``key=value`` texts; a dotted key reaches into sections and lists (``training.batch_size=64``,
            ``training.stages.0.epochs=2``), the value is read as YAML.

    Raises:
        ConfigError: the file, a key or a value is wrong; the message says where and what is allowed.
    """
    return parse_recipe(read_yaml(path, overrides), str(path))


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain content of a YAML file, with ``key=value`` texts applied to it.

    Raises:
        ConfigError: the file cannot be read, or is no mapping, or a text is no setting.
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
        put(content, *read_assignment(override))
    return content


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


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set what a dotted key reaches, in place, making sections that are not there yet.

    Raises:
        ConfigError: the key leads through a value, or past the end of a list.
    """
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
