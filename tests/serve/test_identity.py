"""Names of networks: what they say, and that nothing else is a name."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from snugnet.errors import NetworkError
from snugnet.family import Family
from snugnet.serve.identity import PATTERN, Identities


def test_a_name_says_its_network(family: Family) -> None:
    names = Identities(family)
    rows = family.space.sample(20, np.random.default_rng(0))
    groups = [*family.groups, ["1", "8"], ["8", "1"], list(family.classes)]
    every = {}
    for row in (*rows, *family.space.smallest, *family.space.largest):
        for group in groups:
            indices = family.class_indices(group)
            name = names.name(indices, row)
            found, same = names.read(name)
            assert family.class_indices(found) == indices
            assert np.array_equal(same, row)
            assert re.fullmatch(PATTERN, name)
            every.setdefault(name, (indices, row.tobytes()))
            assert every[name] == (indices, row.tobytes())
    assert len(every) == len({row.tobytes() for row in (*rows, *family.space.smallest, *family.space.largest)}) * len(
        groups
    )


def test_classes_of_a_superclass_are_that_superclass(family: Family) -> None:
    names, row = Identities(family), family.space.smallest[0]
    group = next(iter(family.groups))
    assert names.name(family.class_indices(list(family.groups[group])), row) == names.name(
        family.class_indices(group), row
    )


def test_names_of_another_family_and_other_texts_are_refused(family: Family) -> None:
    row = family.space.largest[0]
    name = Identities(family).name((0, 1), row)
    other = Identities(replace(family, mean=(0.1, 0.2, 0.3)))
    assert other.name((0, 1), row) != name
    for wrong in (name[:-1], name + "A", name[:16], "0" * 16 + name[16:], name[:16] + name[17:], "x", "", name.upper()):
        with pytest.raises(NetworkError, match=r"has no network .* ask for its scenario again"):
            Identities(family).read(wrong)
    with pytest.raises(NetworkError):
        other.read(name)
    for content in (
        b"",
        b"\0",
        b"\0\xff\xff\0",
        b"\1\0\2\0\0\0\0\0",
        b"\1\xff\xff\0",
        b"\2\0\0\0",
        b"\0\0\0" + b"\xff" * 40,
    ):
        forged = Identities(family)._signed(content)
        with pytest.raises(NetworkError):
            Identities(family).read(forged)
