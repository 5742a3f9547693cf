"""A family as a directory: safetensors, JSON and npz, with checksums. No pickle: loading one runs no code of its author."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.torch
import torch

from snugnet.bundles import FAMILY
from snugnet.costs import COSTS, CostTable, Profile, counted_table
from snugnet.data import ImageSet
from snugnet.errors import FamilyError
from snugnet.extras import needs
from snugnet.family.record import FamilyRecord
from snugnet.family.specialising import SpecialisingFamily
from snugnet.generator.model import ArchitectureGenerator
from snugnet.spaces import get_space
from snugnet.supernets import Supernet

INDEX = FAMILY.index
FILES = ("supernet.safetensors", "generator.safetensors", "images.npz", "costs.npz")


class Family(SpecialisingFamily):
    """A family: what it is (:class:`~snugnet.family.record.FamilyRecord`), what it hands out
    (:class:`~snugnet.family.specialising.SpecialisingFamily`), and how it is kept."""

    def to(self, device: str | torch.device) -> Self:
        """Move weights and images; returns the family."""
        self.supernet.to(device)
        self.generator.to(device)
        self.calibration = self.calibration.to(device)
        self.validation = self.validation.to(device)
        return self

    def save(self, folder: str | Path) -> Path:
        """Write the family as a directory."""
        return save_family(self, Path(folder))

    def push_to_hub(self, repo_id: str, *, private: bool = True, token: str | None = None) -> str:
        """Upload the family to the Hugging Face hub; returns the address of the commit."""
        return push_family(self, repo_id, private=private, token=token)


def save_family(family: FamilyRecord, folder: Path) -> Path:
    """Write a family.

    Args:
        family: to save.
        folder: is made if needed; other files in it are left alone.

    Returns:
        The folder.
    """
    contents = {
        "supernet.safetensors": _tensors(family.supernet),
        "generator.safetensors": _tensors(family.generator),
        "images.npz": _npz(
            calibration_images=family.calibration.pixels(slice(None)).cpu().numpy(),
            calibration_labels=family.calibration.labels.cpu().numpy(),
            validation_images=family.validation.pixels(slice(None)).cpu().numpy(),
            validation_labels=family.validation.labels.cpu().numpy(),
        ),
        "costs.npz": _npz(**{f"{name}/{key}": v for name, t in family.tables.items() for key, v in t.arrays().items()}),
    }
    index = {
        "name": family.name,
        "space": family.space.to_json(),
        "classes": list(family.classes),
        "groups": {name: list(classes) for name, classes in family.groups.items()},
        "mean": list(family.mean),
        "std": list(family.std),
        "budget": family.budget_name,
        "generator": family.generator.options,
        "costs": list(family.tables),
        "profiles": [profile.to_json() for profile in family.profiles.values()],
        "provenance": family.provenance,
    }
    return FAMILY.write(folder, index, contents)


def load_family(folder: str | Path, device: str | torch.device = "cpu") -> Family:
    """Read a family, every file checked against its checksum first.

    Args:
        folder: as written by :func:`save_family`.
        device: where to put it.

    Raises:
        FamilyError: it is missing, truncated, altered, or of a newer version.
    """
    folder = Path(folder)
    if (folder / FAMILY.checkpoint).exists() and not (folder / INDEX).is_file():
        raise FamilyError(f"{folder} has no {INDEX}; its training has not ended: run the same 'snugnet train' again")
    index, contents = FAMILY.read(folder, FILES)
    try:
        family = _assemble(index, contents)
    except Exception as error:  # whatever a damaged or foreign file breaks, it is the file that is named
        raise FamilyError(f"{folder} holds no whole family ({' '.join(str(error).split())[:200]})") from error
    try:
        return family.to(device)
    except (RuntimeError, AssertionError) as error:  # torch raises either where there is no such device
        raise FamilyError(f"{folder} cannot be put on {device}: {' '.join(str(error).split())[:200]}") from error


def _assemble(index: dict[str, Any], contents: dict[str, bytes]) -> Family:
    classes = tuple(index["classes"])
    space = get_space(index["space"]["name"], **index["space"]["options"])
    supernet = Supernet(space)
    supernet.load_state_dict(safetensors.torch.load(contents["supernet.safetensors"]))
    generator = ArchitectureGenerator(space, **index["generator"])
    generator.load_state_dict(safetensors.torch.load(contents["generator.safetensors"]))
    images = _arrays(contents["images.npz"])
    stored = _arrays(contents["costs.npz"])
    profiles = {each.name: each for each in map(Profile.from_json, index.get("profiles", ()))}
    tables = {}
    for name in index["costs"]:
        if name in COSTS:  # counted from the space; what is stored is for where its package is not installed
            tables[name] = counted_table(space, name)
            continue
        if name in profiles:
            tables[name] = profiles[name].cost.table(space)
            continue
        own = {key.removeprefix(f"{name}/"): value for key, value in stored.items() if key.startswith(f"{name}/")}
        tables[name] = CostTable.from_arrays(space, own)
    sets = [
        ImageSet(torch.from_numpy(images[f"{part}_images"]), torch.from_numpy(images[f"{part}_labels"]))
        for part in ("calibration", "validation")
    ]
    return Family(
        name=index["name"],
        supernet=supernet.eval(),
        generator=generator.eval(),
        budget_name=index["budget"],
        classes=classes,
        groups={name: tuple(members) for name, members in index["groups"].items()},
        mean=tuple(index["mean"]),
        std=tuple(index["std"]),
        tables=tables,
        calibration=sets[0],
        validation=sets[1],
        provenance=index["provenance"],
        profiles=profiles,
    )


def _tensors(module: torch.nn.Module) -> bytes:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    return safetensors.torch.save(state)


def _npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(content: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def push_family(family: FamilyRecord, repo_id: str, *, private: bool, token: str | None) -> str:
    """Upload a family to the Hugging Face hub.

    Args:
        family: to upload.
        repo_id: ``user/name``; made if it is not there.
        private: whether a new repository is private.
        token: of the hub; the logged-in user's without it.

    Returns:
        The address of the commit.
    """
    needs("huggingface_hub")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        save_family(family, Path(folder))
        return str(
            api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=f"snugnet family {family.name}",
                delete_patterns=FAMILY.patterns(FILES),  # of what was there before
            )
        )


def from_pretrained(path_or_repo: str | Path, *, revision: str | None = None, token: str | None = None) -> Family:
    """A family from a folder, or from a repository of the Hugging Face hub.

    Args:
        path_or_repo: a folder on disk, or ``user/name`` on the hub.
        revision: branch, tag or commit on the hub.
        token: of the hub.

    Raises:
        FamilyError: neither a folder nor a repository, or what is there is no whole family.
    """
    if Path(path_or_repo).is_dir():
        return load_family(path_or_repo)
    needs("huggingface_hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(
            str(path_or_repo), revision=revision, token=token, allow_patterns=FAMILY.patterns(FILES)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise FamilyError(
            f"{path_or_repo} is no folder here, and no repository that the hub gives ({' '.join(str(error).split())[:160]})"
        ) from error
    return load_family(folder)
