"""A route: a network that tells superclasses, and the specialised networks that it hands images to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from snugnet.data import ImageSet
from snugnet.family.networks import Specialized
from snugnet.family.record import FamilyRecord
from snugnet.files import plain_number
from snugnet.nn.network import Network, with_superclasses
from snugnet.spaces import Blueprint
from snugnet.spaces.blueprint import Over, Superclasses
from snugnet.training.calibration import network_batches


@dataclass(eq=False)
class Router(Specialized):
    """A network of a family that tells superclasses: a logit each, made of those of its classes.

    Attributes:
        class_indices: of all its classes, superclass by superclass.
        groups: superclass -> its classes.
        over: how a superclass's logit is made of those of its classes.
    """

    groups: Mapping[str, tuple[str, ...]]
    over: Over

    @classmethod
    def of(cls, network: Specialized, groups: Mapping[str, tuple[str, ...]], over: Over) -> Router:
        """A network of all classes, superclass by superclass, as a router."""
        own = {each.name: getattr(network, each.name) for each in fields(Specialized)}
        return cls(**own, groups=groups, over=over)

    @property
    def superclasses(self) -> Superclasses:
        """How many classes each has."""
        return Superclasses(tuple(map(len, self.groups.values())), self.over)

    @property
    def blueprint(self) -> Blueprint:
        """The layers, and what is said of their outputs."""
        return super().blueprint.with_superclasses(self.superclasses)

    def _build(self) -> Network:
        return with_superclasses(super()._build(), self.superclasses)

    def metadata(self) -> dict[str, Any]:
        """What its file says of itself; its outputs are superclasses."""
        own = {"classes": list(self.groups), "over": self.over}
        return {**super().metadata(), **own, "superclasses": {name: list(each) for name, each in self.groups.items()}}


@dataclass(frozen=True)
class Answers:
    """What a route says of images.

    Attributes:
        superclass: of each image, (n,): what the router says.
        top1: class of each image, (n,), among the router's classes.
        known: the same, were the superclass known, (n,).
        right: the true class, (n,).
        right_superclass: and superclass, (n,).
    """

    superclass: Tensor
    top1: Tensor
    known: Tensor
    right: Tensor
    right_superclass: Tensor


@dataclass(frozen=True)
class Judged:
    """How good a route is on some images.

    Attributes:
        images: how many.
        top1: share of which the class is told right, end to end.
        router: share of which the superclass is told right.
        known_superclass: share of which the class would be told right, were the superclass known.
        madds: multiply-adds that an image is expected to take: of the router, and the mean over the images of the network that each goes to.
        routed: images that go to each superclass.
    """

    images: int
    top1: float
    router: float
    known_superclass: float
    madds: float
    routed: dict[str, int]


@dataclass(frozen=True, eq=False)
class Route:
    """A router and the networks behind it.

    Attributes:
        router: tells the superclass.
        networks: of each superclass of two classes or more; of one class nothing is left to tell.
    """

    router: Router
    networks: dict[str, Specialized]

    @property
    def family(self) -> FamilyRecord:
        """Where they come from."""
        return self.router.family

    @cached_property
    def madds(self) -> dict[str, float]:
        """Multiply-adds of a route that ends at each superclass: of the router, and of its network."""
        own = {name: self._madds(network) for name, network in self.networks.items()}
        return {name: self.madds_of_router + own.get(name, 0) for name in self.router.groups}

    @cached_property
    def madds_of_router(self) -> float:
        """Multiply-adds of the router alone."""
        return self._madds(self.router)

    def _madds(self, network: Specialized) -> float:
        return plain_number(float(self.family.table("madds", len(network.class_indices))(network.row[None])[0]))

    @torch.no_grad()
    def answers(self, images: ImageSet) -> Answers:
        """What is said of the images of the router's classes, in order."""
        own = images.among(self.router.class_indices)
        told, right = self._told(self.router, own), own.labels
        sizes = torch.tensor(self.router.superclasses.sizes)
        first = (sizes.cumsum(0) - sizes).to(right.device)
        superclass = torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(right.device)[right]
        top1, known = first[told], first[superclass]  # of a superclass of one class: that one
        for g, name in enumerate(self.router.groups):
            if name not in self.networks:
                continue
            places = ((told == g) | (superclass == g)).nonzero().flatten()
            answer = first[g] + self._told(self.networks[name], own.take(places))
            for all_of, said in ((told, top1), (superclass, known)):
                sent = all_of[places] == g
                said[places[sent]] = answer[sent]
        return Answers(told, top1, known, right, superclass)

    def _told(self, network: Specialized, images: ImageSet) -> Tensor:
        """The output with the largest logit, of each image."""
        family, at = self.family, network.blueprint.resolution
        parts = [network.module(pixels).argmax(1) for pixels, _ in network_batches(images, family.mean, family.std, at)]
        return torch.cat([torch.zeros(0, dtype=torch.int64, device=images.labels.device), *parts])

    def judge(self, images: ImageSet) -> Judged:
        """How good it is on the images of its classes; NaN where there are none.

        Args:
            images: labels in the order of the family's classes.
        """
        said = self.answers(images)
        n = len(said.right)
        routed = torch.bincount(said.superclass, minlength=len(self.madds)).tolist()
        spent = sum(count * madds for count, madds in zip(routed, self.madds.values(), strict=True))

        def share(told: Tensor, right: Tensor) -> float:
            return float((told == right).sum()) / n if n else float("nan")

        return Judged(
            images=n,
            top1=share(said.top1, said.right),
            router=share(said.superclass, said.right_superclass),
            known_superclass=share(said.known, said.right),
            madds=plain_number(spent / n) if n else float("nan"),
            routed=dict(zip(self.madds, routed, strict=True)),
        )

    def to_json(self) -> dict[str, Any]:
        """The networks as plain JSON."""
        return {
            "router": {
                "over": self.router.over,
                "madds": self.madds_of_router,
                "costs": self.router.costs,
                "architecture": self.router.arch,
            },
            "superclasses": {
                name: {
                    "classes": list(classes),
                    "route_madds": self.madds[name],
                    **({} if name not in self.networks else _described(self.networks[name])),
                }
                for name, classes in self.router.groups.items()
            },
        }


def _described(network: Specialized) -> dict[str, Any]:
    return {"costs": network.costs, "architecture": network.arch}
