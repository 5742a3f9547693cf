"""A family on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import snugnet
from snugnet.bundles import FAMILY, index_checksum
from snugnet.costs import CostTable
from snugnet.errors import FamilyError
from snugnet.family import Family
from snugnet.family.disk import FILES, INDEX, load_family


def stored(folder: Path, name: str) -> Path:
    """Where a file of a family lies."""
    return FAMILY.path(folder, name, json.loads((folder / INDEX).read_text()))


@pytest.fixture
def copy(family_folder: Path, tmp_path: Path) -> Path:
    """A family that may be damaged."""
    (tmp_path / "copy").mkdir()
    for path in (family_folder / INDEX, *(stored(family_folder, name) for name in FILES)):
        shutil.copy(path, tmp_path / "copy" / path.name)
    return tmp_path / "copy"


def test_round_trip(family: Family, tmp_path: Path) -> None:
    table = family.tables["madds"]
    values = [(scope, np.asarray(v) * 1e-6) for scope, v in table.tables]
    family.tables["latency_ms"] = CostTable(family.space, "latency_ms", "ms", [*values, ((), 0.5)])
    try:
        again = snugnet.load(family.save(tmp_path / "again"))
        budget = sum(family.cost_range("madds")) / 2
        one, other = (f.specialize("round", madds=budget, latency_ms=2.0 + 100) for f in (family, again))
        assert (one.row == other.row).all()
        assert one.costs == other.costs
        x = torch.randn(3, 3, 8, 8)
        assert torch.equal(one.module(x), other.module(x))
        assert again.groups == family.groups
        assert again.provenance == family.provenance
    finally:
        del family.tables["latency_ms"]


def test_there_is_no_pickle(family_folder: Path) -> None:
    assert {Path(name).suffix for name in FILES} == {".safetensors", ".npz"}
    for name in FILES:
        assert b"pickle" not in stored(family_folder, name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_missing_truncated_or_altered_files_are_named(copy: Path, name: str) -> None:
    path = stored(copy, name)
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(FamilyError, match=rf"{path.name} is truncated"):
        load_family(copy)
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    with pytest.raises(FamilyError, match=rf"{path.name} was altered"):
        load_family(copy)
    path.unlink()
    with pytest.raises(FamilyError, match=rf"lacks {path.name}"):
        load_family(copy)


def test_bad_indices(copy: Path) -> None:
    index = json.loads((copy / INDEX).read_text())
    (copy / INDEX).write_text(json.dumps({**index, "version": 99}))
    with pytest.raises(FamilyError, match="version 99"):
        load_family(copy)
    for change in ({"classes": index["classes"][::-1]}, {"mean": [0, 0, 0]}, {"groups": []}, {"files": []}):
        (copy / INDEX).write_text(json.dumps({**index, **change}))
        with pytest.raises(FamilyError, match="altered"):
            load_family(copy)
    body = {key: value for key, value in index.items() if key != "sha256"}
    for name, value in (("space", {"name": "none", "options": {}}), ("mean", None), ("groups", []), ("costs", 3)):
        foreign = {**body, name: value}
        (copy / INDEX).write_text(json.dumps({**foreign, "sha256": index_checksum(foreign)}))
        with pytest.raises(FamilyError, match="no whole family"):
            load_family(copy)
    for text, match in (("{", "damaged"), ("[]", "not the index"), ('{"format": "other"}', "not the index")):
        (copy / INDEX).write_text(text)
        with pytest.raises(FamilyError, match=match):
            load_family(copy)
    (copy / INDEX).unlink()
    with pytest.raises(FamilyError, match=r"no family\.json"):
        load_family(copy)
    with pytest.raises(FamilyError, match="no folder"):
        load_family(copy / "nowhere")


def test_a_device_that_is_not_there_is_no_damage(family_folder: Path) -> None:
    with pytest.raises(FamilyError, match="cannot be put on cuda:99"):
        load_family(family_folder, device="cuda:99")


def test_a_name_that_is_neither_folder_nor_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FamilyError, match="no folder here"):
        snugnet.from_pretrained("no/such-family")
    with pytest.raises(FamilyError, match="no folder here"):
        snugnet.from_pretrained("not a valid name!")


def test_a_family_of_the_first_format_is_read_and_saved_over(copy: Path) -> None:
    """Its files had plain names."""
    index = json.loads((copy / INDEX).read_text())
    for name, each in index["files"].items():
        (copy / each.pop("file")).rename(copy / name)
    first = {**index, "version": 1}
    first.pop("sha256")
    (copy / INDEX).write_text(json.dumps({**first, "sha256": index_checksum(first)}))
    family = load_family(copy)
    row = family.specialize("round", madds=1e9).row
    family.save(copy)
    assert (load_family(copy).specialize("round", madds=1e9).row == row).all()
    assert not any((copy / name).exists() for name in FILES)


def test_the_hub_gives_and_forgets_a_familys_files_and_no_others(family_folder: Path) -> None:
    from huggingface_hub.utils import filter_repo_objects

    own = [INDEX, *(stored(family_folder, name).name for name in FILES)]
    others = ["README.md", "supernet.ckpt.safetensors", "results.json", "tensorboard/events.1"]
    assert list(filter_repo_objects([*own, *FILES, *others], allow_patterns=FAMILY.patterns(FILES))) == [*own, *FILES]
