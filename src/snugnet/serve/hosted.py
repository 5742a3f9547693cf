"""A family as the service has it: what it answers, and what it makes."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snugnet.deploy.export import checked_bytes
from snugnet.errors import BudgetError, ConfigError, FamilyError
from snugnet.family import Family, Group, Networks, Scenario, Specialized
from snugnet.files import plain_number
from snugnet.fingerprint import digest
from snugnet.plots import shape_of
from snugnet.serve.gathering import Gatherer
from snugnet.serve.identity import Identities
from snugnet.spaces import Block

_KNOWN = 2**14  # networks whose description is kept, and accuracies
_READ = 2**12  # ids of which it is kept what they say
POINTS = 9
"""Networks on a curve."""


class Hosted:
    """A family that is asked over HTTP; it never changes: a family that is loaded anew is another one.

    Attributes:
        name: that it has here.
        family: the family.
        identities: names of its networks.
        gatherer: asks it.
    """

    def __init__(self, name: str, family: Family, executor: Executor, sizes: Callable[[int], None]) -> None:
        self.name, self.family = name, family
        self.identities = Identities(family)
        self.gatherer = Gatherer(family, executor, self._answers, sizes)
        self._described: OrderedDict[tuple[str, tuple[int, ...], tuple[str, ...], bytes], tuple[str, str]] = (
            OrderedDict()
        )
        self._accuracies: OrderedDict[str, float] = OrderedDict()
        self._networks: OrderedDict[str, Specialized] = OrderedDict()
        self.judged_by = digest(
            self.identities.digest, family.budget_name, family.generator.options,
            *family.generator.state_dict().values(), *family.validation.contents(),
        )  # fmt: skip
        """Of all that a curve depends on."""

    # -- what it is ----------------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """The family as plain JSON."""
        family = self.family
        tables = {cost: family.table(cost, len(family.classes)) for cost in family.costs}
        return {
            "name": self.name,
            "family": family.name,
            "digest": self.identities.digest,
            "space": family.space.to_json(),
            "resolution": family.space.resolution,
            "budget": family.budget_name,
            "classes": list(family.classes),
            "groups": {name: list(classes) for name, classes in family.groups.items()},
            "costs": {
                cost: {"unit": table.unit, "low": plain_number(table.range[0]), "high": plain_number(table.range[1])}
                for cost, table in tables.items()
            },
            "validation_images": len(family.validation),
        }

    # -- networks ------------------------------------------------------------------------------------------------------

    def _answers(self, networks: Networks, scenarios: Sequence[Scenario]) -> list[str]:
        """Networks as JSON; each has the costs that it would have if it were asked for alone."""
        own = dict.fromkeys((*self.family.tables, self.family.budget_name))
        columns = {name: values.tolist() for name, values in networks.costs.items()}
        limits = {name: values.tolist() for name, values in networks.budgets.items()}
        shown: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}
        texts = []
        for i, (place, (_, given)) in enumerate(zip(networks.group.tolist(), scenarios, strict=True)):
            names = shown.get(key := tuple(given))
            if names is None:
                budgets = tuple(self.family.named(given))
                names = shown[key] = budgets, tuple(own | dict.fromkeys(budgets))
            group, indices = networks.groups[place]
            asked = {name: plain_number(limits[name][i]) for name in names[0]}
            cost = {name: columns[name][i] for name in names[1]}.__getitem__
            texts.append(self._text(group, indices, networks.rows[i], names[1], cost, asked))
        return texts

    def describe_network(self, network: Specialized, **measured: float | None) -> bytes:
        """A network as JSON, with what is known of its accuracy, or was measured on others than its own images."""
        asked = {name: plain_number(limit) for name, limit in network.budgets.items()}
        costs, cost = tuple(network.costs), network.costs.__getitem__
        return self._text(network.group, network.class_indices, network.row, costs, cost, asked, **measured).encode()

    def blueprint(self, name: str, network: Specialized) -> dict[str, Any]:
        """What a network consists of and all that it costs, as plain JSON; and which ones it is compared with."""
        indices, whole = network.class_indices, tuple(range(len(self.family.classes)))
        blueprint = network.blueprint
        tables = {cost: self.family.table(cost, len(indices)) for cost in self.family.costs}
        return {
            "network": name,
            "in_channels": blueprint.in_channels,
            "resolution": blueprint.resolution,
            "costs": {cost: plain_number(float(table(network.row[None])[0])) for cost, table in tables.items()},
            "blocks": [_plain_block(block) for block in blueprint.blocks],
            "largest": self.identities.name(indices, self.family.space.largest[0]),
            "all_classes": self.identities.name(whole, network.row),
        }

    def _text(
        self,
        group: str,
        indices: tuple[int, ...],
        row: NDArray[np.int16],
        costs: tuple[str, ...],
        cost: Callable[[str], float],
        budgets: dict[str, float],
        **measured: float | None,
    ) -> str:
        """JSON of a network; what does not change with the budgets is kept, as close budgets often get one network."""
        key = (group, indices, costs, row.tobytes())
        known = self._described.get(key)
        if known is None:
            name = self.identities.name(indices, row)
            classes = [self.family.classes[i] for i in indices]
            fixed = {
                "id": name,
                "family": self.name,
                "classes": classes,
                "architecture": self.family.space.to_dict(row),
                "group": group,
                "costs": {each: plain_number(cost(each)) for each in costs},
            }
            known = self._described[key] = name, json.dumps(fixed)[1:-1]
            if len(self._described) > _KNOWN:
                self._described.popitem(last=False)
        name, fixed_text = known
        accuracy = measured.get("validation_accuracy", self._accuracies.get(name))
        limits = ", ".join([f"{_quoted(each)}: {limit!r}" for each, limit in budgets.items()])
        known_accuracy = "null" if accuracy is None else json.dumps(accuracy)
        return f'{{{fixed_text}, "budgets": {{{limits}}}, "validation_accuracy": {known_accuracy}}}'

    def network(self, name: str) -> Specialized:
        """The network of an id.

        Raises:
            NetworkError: there is none.
        """
        found = self._networks.get(name)
        if found is None:
            group, row = self.identities.read(name)
            found = self._networks[name] = self.family.network(group, row)
            if len(self._networks) > _READ:
                self._networks.popitem(last=False)
        return found

    def best(self, scenario: Scenario, best_of: int) -> bytes:
        """The best of several architectures on validation images, as JSON; takes seconds.

        Raises:
            FamilyError: the group is unknown, or the family has no validation images of it.
            BudgetError: a cost is unknown, or no network is within the budgets.
        """
        network = self.family.best(scenario, best_of)
        self._judge(self.identities.name(network.class_indices, network.row), network)
        return self.describe_network(network)

    # -- files ---------------------------------------------------------------------------------------------------------

    def file(self, network: Specialized, suffix: str) -> bytes:
        """The network as ``.onnx`` or ``.pt2``, which was run and agrees with it.

        Raises:
            ExportError: it does not.
        """
        module = self.family.build(
            network.row, network.class_indices
        )  # not network.module, which would be kept with it
        return checked_bytes(module, suffix, network.metadata())

    def _judge(self, name: str, network: Specialized) -> float | None:
        """Accuracy on the validation images of its classes; None where there are none."""
        if not len(self.family.validation.of_classes(network.class_indices)):
            return None
        return self.remember(name, self.family.validation_accuracy(replace(network)))  # its module is not kept

    def accuracy(self, name: str, network: Specialized) -> bytes:
        """The accuracy of a network as JSON."""
        return json.dumps(self._judge(name, network)).encode()

    def accuracy_on(self, network: Specialized, other: Specialized) -> bytes:
        """The accuracy of a network on the validation images of another's classes as JSON; null where there are none.

        Raises:
            ConfigError: it does not know all of these classes.
        """
        classes = other.class_indices
        if not set(classes) <= set(network.class_indices):
            raise ConfigError("a network is measured on images of its own classes; the other one has further ones")
        known = len(self.family.validation.of_classes(classes)) > 0
        return json.dumps(self.family.validation_accuracy(replace(network), classes) if known else None).encode()

    def remember(self, name: str, accuracy: float | None) -> float | None:
        """Know an accuracy, from here or from another process."""
        if accuracy is not None:
            self._accuracies[name] = accuracy
            if len(self._accuracies) > _KNOWN:
                self._accuracies.popitem(last=False)
        return accuracy

    def curve(self, group: Group, cost: str) -> bytes:
        """Networks of a group over a cost, with their accuracies on validation images, as JSON.

        Raises:
            FamilyError: the group is unknown, or the family has no validation images of it.
            BudgetError: the cost is unknown, or the same of all networks.
        """
        indices = self.family.class_indices(group)
        low, high = self.family.table(cost, len(indices)).range
        if not len(self.family.validation.of_classes(indices)):
            raise FamilyError(f"{self.family.name} holds no validation images of {group}; it has no curve")
        if not low < high:
            raise BudgetError(f"{cost} is {low:g} of all networks of {group}; it has no curve")
        limits = [limit for i in range(POINTS) if (limit := low + (high - low) * i / (POINTS - 1)) > 0]
        networks = self.family.specialize_many([(group, {cost: limit}) for limit in limits])
        points = []
        for limit, network in zip(limits, networks, strict=True):
            name = self.identities.name(network.class_indices, network.row)
            known = self._accuracies.get(name)
            accuracy = self._judge(name, network) if known is None else known
            point = {"budget": plain_number(limit), "id": name, "costs": network.costs, "validation_accuracy": accuracy}
            points.append(point)
        classes = [self.family.classes[i] for i in indices]
        return json.dumps(
            {"family": self.name, "group": networks[0].group, "classes": classes, "cost": cost, "points": points}
        ).encode()


@cache
def _quoted(name: str) -> str:
    """The name of a cost as JSON."""
    return json.dumps(name)


_OF_LAYERS = (
    "name", "op", "in_channels", "out_channels", "resolution", "out_resolution", "kernel", "stride", "groups", "weight_bits",
    "activation_bits", "madds", "params",
)  # fmt: skip


def _plain_block(block: Block) -> dict[str, Any]:
    """A block as plain JSON, with what is drawn of it."""
    kernel, expand = shape_of(block)
    return {
        "name": block.name,
        "alternative": block.alternative,
        "kernel": kernel,
        "expand": plain_number(expand),
        "in_channels": block.in_channels,
        "out_channels": block.out_channels,
        "resolution": block.layers[0].resolution,
        "out_resolution": block.out_resolution,
        "shortcut": None if block.shortcut is None else block.join,
        "reads": list(block.reads),
        "madds": sum(layer.madds for layer in block.all_layers),
        "params": sum(layer.params for layer in block.all_layers),
        "layers": [{name: getattr(layer, name) for name in _OF_LAYERS} for layer in block.all_layers],
    }
