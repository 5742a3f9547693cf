"""What a thing was made with: equal where it is the same, and named where it differs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from snugnet.fingerprint import describe_differences, differences, digest, file_digest, fingerprint

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON)
def test_equal_is_what_has_no_differences(a: object, b: object) -> None:
    one, two = fingerprint(x=a), fingerprint(x=b)
    assert (differences(one, two) == []) == (json.dumps(one, sort_keys=True) == json.dumps(two, sort_keys=True))
    assert differences(one, one) == []


def test_what_differs_is_named() -> None:
    made = fingerprint(
        seed=0, training={"stages": [{"epochs": 1}, {"epochs": 2, "subnets": 2}], "batch_size": 8}, old=1
    )
    own = fingerprint(seed=0, training={"stages": [{"epochs": 1}, {"epochs": 3}], "batch_size": 8}, new=None, flag=True)
    assert differences(made, own) == ["training.stages.1.epochs", "training.stages.1.subnets", "new", "flag", "old"]
    assert differences(1, own) == differences(None, own) == ["format of the checkpoint"]
    assert differences({"x": True}, {"x": 1}) == ["x"]
    many = fingerprint(**{f"k{i}": i for i in range(9)})
    assert describe_differences({}, many) == "k0, k1, k2, k3 and 5 more"
    assert describe_differences(many, many) == ""


def test_digests(tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32)
    assert digest(array) == digest(torch.from_numpy(array)) == digest(array.copy()) != digest(array.reshape(2, 3))
    assert digest(array) != digest(array.astype(np.float64))
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert digest({"b": 1, "a": 2}) == digest({"a": 2, "b": 1}) != digest({"a": 2, "b": 2})
    last = torch.randn(2, 4, 3, 3)
    assert digest(last) == digest(last.to(memory_format=torch.channels_last))  # the layout in memory is no content
    (tmp_path / "x").write_bytes(b"ab")
    assert file_digest(tmp_path / "x") == digest(b"ab")


def test_a_folder_of_tables_has_a_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = file_digest(tmp_path)
    assert before == file_digest(tmp_path)
    (tmp_path / "b").write_text("")
    more = file_digest(tmp_path)
    (tmp_path / "a").write_text("2")
    assert len({before, more, file_digest(tmp_path)}) == 3
