"""Recipes: everything that a run depends on, in one YAML file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from snugnet.bundles import FAMILY
from snugnet.config import Config, read_config
from snugnet.costs import COSTS, CostTable, Profile, counted_table, load_cost_table, profile_of, resolve_budget
from snugnet.data.config import AugmentConfig, DataConfig
from snugnet.errors import ConfigError
from snugnet.retraining_config import RetrainingConfig, Schedule
from snugnet.spaces import SearchSpace
from snugnet.yaml_content import read_yaml

PLACES = ("storage", "cache", "workers")
"""Keys of a recipe's data that say where images are kept on a machine, and nothing of what they are."""
SPLITTING = ("seed", "test", "validation", "train_split", "test_split", "validation_split")
"""Keys of the data section that decide which rows are test images: with others, trained-on images could be among them."""


class SpaceConfig(Config):
    """The search space: its name, and its options as further keys (``width_mult``, ``stage_strides``, ...)."""

    model_config = ConfigDict(extra="allow")

    name: str = "ofa-mobilenet-v3"
    """Of the space; ``snugnet space list`` shows all."""

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
        learning_rate: at the start.
        schedule: how the learning rate falls: by a ``cosine``, or ``linear`` (SPOS).
        floor: the share of the learning rate that it falls to (BigNAS, section 3.1: 0.05). A stage that ends where the next begins
            makes one fall of both.
        average: decay a step of an exponential moving average of weights and batch-norm statistics, in whose place it is at the
            stage's end; 0 for none.
        elastic: for each kind of choice, how many options are in use, counted from the largest; ``all`` for every option
            of every choice. Empty: the largest network alone.
        sampling: how architectures are drawn: ``uniform`` over options (SPOS, OFA), ``cost`` (uniform over the cost),
            ``best-up`` or ``worst-up`` (AttentiveNAS: the best or worst of several candidates of a drawn cost).
        subnets: sub-networks drawn a step; their gradients make one update (``training.gradients``).
        candidates: k of BestUp-k and WorstUp-k.
        windows: into how many the range of costs is cut where a cost is drawn.
        sandwich: run the largest and the smallest as well; all others learn from the largest, in place.
        warmup_epochs: over which the learning rate first rises from 0.
    """

    name: str
    epochs: float = Field(gt=0, le=1e5)
    learning_rate: float = Field(gt=0)
    schedule: Schedule = "cosine"
    floor: float = Field(default=0.0, ge=0, le=1)
    average: float = Field(default=0.0, ge=0, lt=1)
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
        batch_size: images a step, of all devices together.
        stages: one after the other. Where the first trains the largest network alone, that becomes the teacher of the
            later ones, and it is trained without superclass dropout.
        start: a checkpoint (``supernet.ckpt.safetensors``) of the same space and classes to begin from, its teacher
            included, instead of fresh weights.
        sort_channels: before the first stage that makes widths elastic, bring channels into falling order of importance, so that
            narrower networks begin with those that matter most (OFA, section 3.3). What the largest network computes stays the same.
        superclass_dropout: the rate p of EAS section 3.1: 0 is plain training, 1 the target superclass only.
        distillation: weight of the loss against the teacher, beside the loss against the labels. (Under the sandwich rule
            the largest learns from labels, all others from the largest alone.)
        distillation_dropout: rate of superclass dropout in the loss against a teacher, frozen or in place; without it that loss
            has the very logits that stay in the loss against the labels.
        divergence: what that loss is: ``kl``, or ``alpha``, the greater of two clipped alpha-divergences (AlphaNet, arXiv 2102.07954).
        temperature: of both softmaxes in that loss, which is multiplied by its square (Hinton et al., arXiv 1503.02531, section 2).
        gradients: whether those of a step's sub-networks are averaged (``mean``) or added up (``sum``: OFA, AttentiveNAS); k of
            them added up are a k times higher learning rate under a k times lower weight decay.
        clip_value: to which every component of a step's gradient is cut, either way (AttentiveNAS, in its code: 1).
        zero_init_residual: begin with the last batch norm of every block that has a shortcut added at 0, so that it is that shortcut
            at first (AttentiveNAS, in its code; Goyal et al., arXiv 1706.02677, section 5.1).
        label_smoothing: share of the target spread over the classes.
        momentum: of SGD.
        weight_decay: of SGD, on every parameter but biases and batch norm.
        dropout, drop_connect: on the largest network alone, under the sandwich rule: share of the classifier's inputs, and
            of the last block's samples (rising from 0 at the first), that are dropped.
        drop_connect_stages: at the end of the network, the only ones with drop-connect (AttentiveNAS: 2); all without it.
        cost: that costs are drawn of: madds, params, activations, one that an installed package brings, or a measured one of
            the recipe's ``costs``.
        predictor: folder of an accuracy predictor that BestUp and WorstUp ask; without it, they compare the losses on the
            images of the step.
        graphs: on a GPU, whether the supernet's blocks run as graphs that were recorded once (``auto``) or operation by operation
            (``off``). Gradients are the same; a frozen teacher under graphs has its batch norm folded and its weights cast.
        checkpoint_seconds: at most so much work is lost when a run is stopped.
        log_every: steps between two lines of the log.
    """

    batch_size: int = Field(default=128, ge=2)
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    start: str | None = None
    sort_channels: bool = True
    superclass_dropout: float = Field(default=0.6, ge=0, le=1)
    distillation: float = Field(default=1.0, ge=0)
    distillation_dropout: float | None = Field(default=None, ge=0, le=1)
    divergence: Literal["kl", "alpha"] = "kl"
    temperature: float = Field(default=1.0, gt=0)
    gradients: Literal["mean", "sum"] = "mean"
    clip_value: float | None = Field(default=None, gt=0)
    zero_init_residual: bool = False
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=3e-5, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    drop_connect: float = Field(default=0.0, ge=0, lt=1)
    drop_connect_stages: int | None = Field(default=None, ge=1)
    cost: str = "madds"
    predictor: str | None = None
    graphs: Literal["auto", "off"] = "auto"
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
        if self.drop_connect_stages is not None and not self.drop_connect:
            raise ValueError("drop_connect_stages says where drop_connect acts; its rate is 0")
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


class NetworkRecipe(Config):
    """What the training of one network depends on, from images to weights.

    Attributes:
        name: of what is made.
        seed: of everything that is drawn.
        device: auto, cpu or cuda. (Apple's mps has no float64, which exact costs and gates are counted in.)
        precision: of training, as Lightning Fabric names them.
        threads: CPU threads; all without it.
        costs: measured costs by name, each the file of its table (``latency_ms: note10.csv``); see
            :func:`snugnet.costs.load_cost_table`. Or the folder of a family of the same space that 'snugnet profile' has measured
            (``latency_ms@pixel: runs/animals``). A family has them all as budgets.
    """

    name: str = "network"
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    threads: int | None = Field(default=None, ge=1, le=1024)
    costs: dict[str, str] = Field(default_factory=dict)
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    space: SpaceConfig = SpaceConfig()
    retraining: RetrainingConfig = RetrainingConfig()

    @property
    def batch_size(self) -> int:
        """Images a step where ``retraining`` does not say: DARTS's 96."""
        return 96

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for name in self.costs:
            if name in COSTS:
                raise ValueError(f"costs: {name} is counted from the architecture; a measured cost has another name")
        if self.augment.cutout > self.data.resolution:
            raise ValueError(
                f"augment.cutout is {self.augment.cutout} pixels a side, and images have {self.data.resolution}; make it smaller"
            )
        return self

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, defaults filled in."""
        found: dict[str, Any] = json.loads(self.model_dump_json())
        return found

    def cost_table(self, space: SearchSpace, name: str) -> CostTable:
        """The table of a cost that the recipe names: a measured one of :attr:`costs`, or one that is known by its name.

        Raises:
            ConfigError: the file's table is of another cost.
            DataError: the file cannot be read.
            FamilyError: the family there is damaged.
            SpaceError: there is no such cost, or the file is of another space.
        """
        if name not in self.costs:
            return counted_table(space, name)
        if profile := self.profile(name):
            return profile.cost.table(space)
        table = load_cost_table(self.costs[name], space)
        if table.name != name:
            raise ConfigError(f"costs.{name}: {self.costs[name]} is a table of {table.name}; name it so")
        return table

    def cost_file(self, name: str) -> Path:
        """Where a measured cost of :attr:`costs` is read from: its file, a folder of tables, or the index of a family."""
        path = Path(self.costs[name])
        index = path / FAMILY.index
        return index if index.is_file() else path

    def profile(self, name: str) -> Profile | None:
        """The profile of a cost that :attr:`costs` takes from a family; ``None`` for any other cost.

        Raises:
            FamilyError: the family there is damaged.
            ConfigError: it was not measured for that.
        """
        return profile_of(Path(self.costs[name]), name) if name in self.costs else None


class Recipe(NetworkRecipe):
    """A whole run, from images to a family.

    Attributes:
        name: of the family.
        output: folder that the family is written to; relative to where the command runs.
        devices: GPUs of a machine, or processes of one without, that train together.
        num_nodes: machines that train together, with so many devices each.
        rank_timeout: seconds that those processes wait for one another before they give up.
    """

    name: str
    output: str
    devices: int = Field(default=1, ge=1, le=1024)
    num_nodes: int = Field(default=1, ge=1, le=1024)
    rank_timeout: float = Field(default=600.0, ge=1, le=1e6)
    training: TrainingConfig
    generator: GeneratorConfig = GeneratorConfig()
    evaluation: EvaluationConfig = EvaluationConfig()

    @property
    def batch_size(self) -> int:
        """That of the supernet's training."""
        return self.training.batch_size

    @property
    def ranks(self) -> int:
        """Processes that train together, one a device."""
        return self.devices * self.num_nodes

    @model_validator(mode="after")
    def _divides(self) -> Self:
        batch = self.training.batch_size
        if batch % self.ranks or batch < 2 * self.ranks:
            raise ValueError(
                f"training.batch_size is of all devices together: {batch} images are not the same number, 2 or more, for each of "
                f"{self.ranks} devices (devices {self.devices} x num_nodes {self.num_nodes}); change one of them"
            )
        return self


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: of the YAML file.
        overrides: ``key=value`` texts; a dotted key reaches into sections and lists (``training.batch_size=64``,
            ``training.stages.0.epochs=2``), the value is read as YAML.

    Raises:
        ConfigError: the file, a key or a value is wrong; the message says where and what is allowed.

    Examples:
        >>> recipe = load_recipe("recipes/quickstart.yaml", ["training.batch_size=32"])
        >>> recipe.name, recipe.training.batch_size, len(recipe.training.stages)
        ('digits', 32, 4)
    """
    return parse_recipe(read_yaml(path, overrides), str(path))


def parse_recipe(content: dict[str, Any], where: str = "recipe") -> Recipe:
    """Check a recipe given as plain data.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    if "search" in content and "training" not in content:
        raise ConfigError(f"{where} is a recipe of 'snugnet search-cell': it searches one network and trains no family")
    return read_config(Recipe, content, where)


def parse_network_recipe(content: dict[str, Any], where: str = "recipe") -> NetworkRecipe:
    """Check the recipe that a family or a network carries: a whole one, or of one network where it has no ``training``.

    Raises:
        ConfigError: a key or a value is wrong.
    """
    return read_config(Recipe if "training" in content else NetworkRecipe, content, where)
