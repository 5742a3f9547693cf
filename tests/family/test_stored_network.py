"""A network on disk: whole, or a line that names what is wrong with which file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

import snugnet
from snugnet.bundles import NETWORK, index_checksum
from snugnet.errors import FamilyError, NetworkError
from snugnet.family import Family, StoredNetwork, load_network
from snugnet.family.stored import WEIGHTS


@pytest.fixture
def network(family: Family, tmp_path: Path) -> StoredNetwork:
    return snugnet.retrain(family, group=["5", "2"], madds="30%", epochs=0.5, out=tmp_path / "net", progress=False)


@pytest.fixture
def folder(network: StoredNetwork, tmp_path: Path) -> Path:
    return network.save(tmp_path / "copy")


def weights(folder: Path) -> Path:
    return NETWORK.path(folder, WEIGHTS, json.loads((folder / NETWORK.index).read_text()))


def test_round_trip(network: StoredNetwork, folder: Path, family: Family) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["network.json", weights(folder).name]
    assert b"pickle" not in weights(folder).read_bytes()
    again = snugnet.load(folder)
    assert isinstance(again, StoredNetwork)
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(again.module(x), network.module(x))
    assert again.metadata() == network.metadata() == family.network(["5", "2"], network.row).metadata()
    assert (again.budgets, again.provenance) == (network.budgets, network.provenance)
    assert again.family.space.to_json() == family.space.to_json()
    assert (again.family.classes, again.family.mean) == (family.classes, family.mean)


def test_the_index_says_what_it_is(network: StoredNetwork, folder: Path) -> None:
    index = json.loads((folder / NETWORK.index).read_text())
    assert (index["format"], index["version"], index["classes"]) == ("snugnet-network", 1, ["5", "2"])
    assert index["architecture"] == network.arch
    assert (index["image_resolution"], index["resolution"]) == (8, network.blueprint.resolution)
    assert index["costs"] == {"madds": network.blueprint.madds, "params": network.blueprint.params}
    assert index["provenance"]["validation"]["accuracy"] == network.validation_accuracy
    held = safetensors.torch.load_file(weights(folder))
    assert held.keys() == network.module.state_dict().keys()


def test_load_tells_a_family_from_a_network(family_folder: Path, folder: Path, tmp_path: Path) -> None:
    assert isinstance(snugnet.load(family_folder), Family)
    assert isinstance(snugnet.load(folder), StoredNetwork)
    with pytest.raises(FamilyError, match="there is no folder"):
        snugnet.load(tmp_path / "nowhere")
    with pytest.raises(NetworkError, match="cannot be put on cuda:99"):
        snugnet.load(folder, device="cuda:99")
    with pytest.raises(NetworkError, match=r"no network\.json"):
        load_network(family_folder)


def test_missing_truncated_or_altered_files_are_named(folder: Path) -> None:
    path = weights(folder)
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(NetworkError, match=rf"{path.name} is truncated"):
        snugnet.load(folder)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(NetworkError, match=rf"{path.name} was altered"):
        snugnet.load(folder)
    path.unlink()
    with pytest.raises(
        NetworkError, match=rf"lacks {path.name}; copy the whole folder, or run 'snugnet retrain' again"
    ):
        snugnet.load(folder)


def test_bad_indices(folder: Path) -> None:
    index = json.loads((folder / NETWORK.index).read_text())
    (folder / NETWORK.index).write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(NetworkError, match="version 99"):
        snugnet.load(folder)
    (folder / NETWORK.index).write_text(json.dumps({**index, "classes": ["2", "5"]}))
    with pytest.raises(NetworkError, match="altered"):
        snugnet.load(folder)
    body = {key: value for key, value in index.items() if key != "sha256"}
    larger = {**index["architecture"], "depth": [4, 4, 4, 4, 4]}
    for name, value in (
        ("classes", ["5", "ten"]),
        ("classes", ["5", "2", "0"]),
        ("architecture", larger),
        ("family", []),
    ):
        foreign = {**body, name: value}
        (folder / NETWORK.index).write_text(json.dumps({**foreign, "sha256": index_checksum(foreign)}))
        with pytest.raises(NetworkError, match="holds no whole network"):
            snugnet.load(folder)
