"""The documents of the API: what is read is checked by these, and what is written has this form."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StrictStr

Amount = StrictInt | StrictFloat | StrictStr
Budgets = Annotated[
    dict[str, Amount],
    Field(
        description="The most of each cost: a number, 40M, or a share of the group's range, 40%.",
        examples=[{"madds": "40%"}],
    ),
]


class Scenario(BaseModel):
    """A group of classes, given by the name of a superclass or as classes, and budgets."""

    model_config = ConfigDict(extra="forbid")

    group: StrictStr | None = Field(None, description="Name of a superclass.")
    classes: list[StrictStr] | None = Field(None, description="Names of classes, in the order of the outputs.")
    budgets: Budgets = Field(default_factory=dict)
    best_of: int = Field(1, ge=1, strict=True, description="Try so many on validation images and keep the best.")


class Question(Scenario):
    """One scenario, or many."""

    scenarios: list[Scenario] | None = Field(
        None, description="Instead of a group, classes and budgets: many of these."
    )


class Costs(BaseModel):
    """A cost of all classes' networks."""

    unit: str
    low: float
    high: float


class FamilyLine(BaseModel):
    """A family, in a list."""

    name: str
    available: bool
    reason: str | None = Field(description="Why it is not available, or could not be loaded anew.")


class FamilyList(BaseModel):
    """All families of the service."""

    families: list[FamilyLine]


class FamilyAnswer(BaseModel):
    """What a family knows."""

    name: str
    family: str
    digest: str = Field(description="Of weights and images: changes when the family does.")
    space: dict[str, Any]
    resolution: int = Field(description="Of its images, in pixels.")
    budget: str = Field(description="The cost that its generator was trained on.")
    classes: list[str]
    groups: dict[str, list[str]]
    costs: dict[str, Costs]
    validation_images: int


class RangeAnswer(BaseModel):
    """A cost of a group's networks."""

    unit: str
    low: float
    high: float
    feasible_low: float = Field(description="Within the budgets of the other costs.")
    feasible_high: float
    budget: float | None


class RangesAnswer(BaseModel):
    """All costs of a group's networks."""

    family: str
    digest: str = Field(description="Of the family: changes when it does.")
    classes: list[str]
    costs: dict[str, RangeAnswer]
    validation_images: int = Field(description="Of these classes.")


class NetworkAnswer(BaseModel):
    """A network; its costs are at most its budgets."""

    id: str
    family: str
    group: str
    classes: list[str]
    architecture: dict[str, Any]
    budgets: dict[str, float]
    costs: dict[str, float]
    validation_accuracy: float | None = Field(description="A fraction; null where it is not known yet.")


class LayerAnswer(BaseModel):
    """A layer, as blueprints have it."""

    name: str
    op: str
    in_channels: int
    out_channels: int
    resolution: int = Field(description="Of its input, in pixels.")
    out_resolution: int
    kernel: int
    stride: int
    groups: int
    weight_bits: int = Field(description="0 for float.")
    activation_bits: int
    madds: int
    params: int


class BlockAnswer(BaseModel):
    """A block: layers in a row, those of its shortcut last."""

    name: str = Field(description="Of its position.")
    alternative: str = Field(description="Which of several stands there; empty where there is one.")
    kernel: int = Field(description="Side of its largest.")
    expand: float = Field(description="Width of its last depthwise convolution over its input's; 0 without one.")
    in_channels: int
    out_channels: int
    resolution: int = Field(description="Of its input, in pixels.")
    out_resolution: int
    shortcut: str | None = Field(description="How it is joined: add, or concat.")
    reads: list[str] = Field(description="Blocks that it reads, where that is not the one before.")
    madds: int
    params: int
    layers: list[LayerAnswer]


class BlueprintAnswer(BaseModel):
    """What a network consists of."""

    network: str
    in_channels: int
    resolution: int = Field(description="Of the image, in pixels.")
    costs: dict[str, float] = Field(description="All that the family knows.")
    blocks: list[BlockAnswer]
    largest: str = Field(description="Id of the largest network of its classes.")
    all_classes: str = Field(description="Id of the same architecture with all classes in its head.")


class NetworksAnswer(BaseModel):
    """Networks, in the order of their scenarios."""

    networks: list[NetworkAnswer]


class Prediction(BaseModel):
    """Of one image."""

    model_config = ConfigDict(populate_by_name=True)

    class_: str = Field(alias="class")
    probabilities: list[float]


class PredictionsAnswer(BaseModel):
    """Of images, in their order; probabilities in the order of the classes."""

    network: str
    classes: list[str]
    predictions: list[Prediction]
    milliseconds: float = Field(description="That the network took for all of them.")


class Point(BaseModel):
    """A network on a curve."""

    budget: float
    id: str
    costs: dict[str, float]
    validation_accuracy: float


class CurveAnswer(BaseModel):
    """Accuracy over a cost."""

    family: str
    group: str
    classes: list[str]
    cost: str
    points: list[Point]


class Status(BaseModel):
    """How the service is."""

    status: str
    families: dict[str, str | None] = Field(description="Of each what is wrong with it, or null.")


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request: str | None = Field(None, description="The request's id, as in the service's log.")
