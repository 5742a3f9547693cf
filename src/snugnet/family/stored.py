"""A network as a directory: safetensors and JSON, with checksums. No pickle: loading one runs no code of its author."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from snugnet.bundles import FAMILY, NETWORK
from snugnet.data import ImageSet
from snugnet.deploy.packing import packed_state, unpacked_state
from snugnet.errors import NetworkError
from snugnet.family.disk import Family, load_family
from snugnet.family.networks import Classifier, Origin
from snugnet.nn.network import Network, build, with_layout
from snugnet.spaces import Blueprint, get_space

WEIGHTS = "weights.safetensors"


@dataclass(eq=False)
class StoredNetwork(Classifier):
    """One network with weights of its own, trained by itself and kept on disk.

    Attributes:
        weights: parameters and batch-norm statistics by name.
        provenance: how it came to be: recipe, settings, accuracies on validation images, time, machine.
    """

    family: Origin
    weights: dict[str, Tensor]
    provenance: dict[str, Any]

    def _build(self) -> Network:
        network = build(self.blueprint, self.weights)
        return with_layout(network, torch.channels_last).eval().requires_grad_(False)

    def _stored_images(self) -> tuple[ImageSet, ImageSet]:
        raise NetworkError("a network on disk holds no images, and int8 needs some to measure ranges on; give them")

    @property
    def validation_accuracy(self) -> float | None:
        """On the validation images of its classes, a fraction; None if there were none."""
        found: float | None = self.provenance["validation"]["accuracy"]
        return found

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the weights: ``stored``, where quantised ones take the bits that they have, and as plain ``float32``."""
        each = {"stored": packed_state(self.blueprint, self.weights), "float32": self.weights}
        return {name: sum(tensor.nbytes for tensor in state.values()) for name, state in each.items()}

    def save(self, folder: str | Path) -> Path:
        """Write the network as a directory; quantised weights at their bit width (:mod:`snugnet.deploy.packing`).

        Args:
            folder: is made if needed; other files in it are left alone.

        Returns:
            The folder.
        """
        origin = self.family
        index = {
            "family": {
                "name": origin.name,
                "space": origin.space.to_json(),
                "classes": list(origin.classes),
                "mean": list(origin.mean),
                "std": list(origin.std),
            },
            "group": self.group,
            "classes": list(self.classes),
            "architecture": self.arch,
            "image_resolution": origin.space.resolution,
            "resolution": self.blueprint.resolution,
            "costs": self.costs,
            "budgets": self.budgets,
            "bytes": self.sizes,
            "provenance": self.provenance,
        }
        state = packed_state(self.blueprint, self.weights)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        return NETWORK.write(Path(folder), index, {WEIGHTS: safetensors.torch.save(tensors)})


def load_network(folder: str | Path, device: str | torch.device = "cpu") -> StoredNetwork:
    """Read a network, every file checked against its checksum first.

    Args:
        folder: as written by :meth:`StoredNetwork.save`.
        device: where to put it.

    Raises:
        NetworkError: it is missing, truncated, altered, or of a newer version.
    """
    folder = Path(folder)
    if (folder / NETWORK.checkpoint).exists() and not (folder / NETWORK.index).is_file():
        raise NetworkError(
            f"{folder} has no {NETWORK.index}; its training has not ended: run the same 'snugnet retrain' again"
        )
    index, contents = NETWORK.read(folder, (WEIGHTS,))
    try:
        network = _assemble(index, contents[WEIGHTS])
        _ = network.module  # refuses weights of another architecture
    except Exception as error:  # whatever a damaged or foreign file breaks, it is the file that is named
        raise NetworkError(f"{folder} holds no whole network ({' '.join(str(error).split())[:200]})") from error
    try:
        network.module.to(device)
    except (RuntimeError, AssertionError) as error:  # torch raises either where there is no such device
        raise NetworkError(f"{folder} cannot be put on {device}: {' '.join(str(error).split())[:200]}") from error
    return network


def _assemble(index: dict[str, Any], weights: bytes) -> StoredNetwork:
    family = index["family"]
    space = get_space(family["space"]["name"], **family["space"]["options"])
    classes = tuple(family["classes"])
    row = space.from_dict(index["architecture"])[0]
    return StoredNetwork(
        family=Origin(family["name"], space, classes, tuple(family["mean"]), tuple(family["std"])),
        group=index["group"],
        class_indices=tuple(classes.index(name) for name in index["classes"]),
        row=row,
        costs=_checked_costs(index, space.blueprint(row).with_classes(len(index["classes"]))),
        budgets=index["budgets"],
        weights=unpacked_state(space.blueprint(row), safetensors.torch.load(weights)),
        provenance=index["provenance"],
    )


def _checked_costs(index: dict[str, Any], blueprint: Blueprint) -> dict[str, float]:
    """The costs that the index states, where they are numbers, and those that can be counted are the network's.

    Raises:
        ValueError: they are not.
    """
    costs = {name: value for name, value in index["costs"].items() if isinstance(value, (int, float))}
    counted = {"madds": blueprint.madds, "params": blueprint.params}
    wrong = [name for name in index["costs"] if name not in costs or costs[name] != counted.get(name, costs[name])]
    if wrong:
        raise ValueError(f"{wrong[0]} {index['costs'][wrong[0]]!r} is not that of its architecture")
    return costs


def holds_network(folder: str | Path) -> bool:
    """Whether a folder is a network's, or one whose training has begun, and not a family's."""
    folder = Path(folder)
    has = [(folder / name).is_file() for name in (FAMILY.index, NETWORK.index, NETWORK.checkpoint)]
    return any(has[1:]) and not has[0]


def load(folder: str | Path, device: str | torch.device = "cpu") -> Family | StoredNetwork:
    """A family, or a network, from the folder that it was saved in.

    Args:
        folder: what lies in it says which of the two it is.
        device: where to put it.

    Raises:
        FamilyError: there is no whole family.
        NetworkError: there is no whole network.

    Examples:
        >>> family = load("runs/digits")
        >>> list(family.groups)
        ['round', 'straight', 'curvy']
    """
    return load_network(folder, device) if holds_network(folder) else load_family(folder, device)
