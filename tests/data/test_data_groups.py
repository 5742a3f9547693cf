"""Groups: every way in which classes and superclasses can disagree, and the built-in groupings."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snugnet.data.groups import BUILT_IN_GROUPINGS, Groups, read_grouping, select_groups
from snugnet.errors import DataError

CLASSES = ("cat", "cup", "dog", "pen")
MEMBERS = {"thing": ["pen", "cup"], "animal": ["cat", "dog"]}


def test_order_and_index() -> None:
    groups = Groups(MEMBERS, CLASSES)
    assert groups.names == ("thing", "animal")
    assert groups["thing"] == ("pen", "cup")
    assert groups.class_to_group.tolist() == [1, 0, 1, 0]
    assert groups.class_indices("animal").tolist() == [0, 2]
    assert groups.to_dict() == MEMBERS
    assert dict(groups) == {group: tuple(names) for group, names in MEMBERS.items()}
    with pytest.raises(ValueError, match="read-only"):
        groups.class_to_group[0] = 0


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({}, "has no group"),
        ({"a": ["cat", "cup", "dog"]}, "class 'pen' is in no group"),
        ({"a": ["cat"]}, "classes 'cup', 'dog', 'pen' are in no group"),
        ({"a": ["cat", "cup"], "b": ["dog", "pen", "cat"]}, "class 'cat' is in groups 'a' and 'b'"),
        ({"a": ["cat", "cup", "cup", "dog", "pen"]}, "class 'cup' is twice in group 'a'"),
        ({"a": list(CLASSES), "b": []}, "group 'b' is empty"),
        ({"a": [*CLASSES, "pencil"]}, r"'pencil' \(group 'a'; close: 'pen'\)"),
        ({"a": [*CLASSES, "xyz"]}, r"close: none"),
    ],
)
def test_disagreements(members: dict[str, list[str]], says: str) -> None:
    with pytest.raises(DataError, match=says) as error:
        Groups(members, CLASSES)
    assert "\n" not in str(error.value)


def test_one_class_groups_and_one_group_are_allowed() -> None:
    assert Groups({"a": ["cat"], "b": ["cup", "dog", "pen"]}, CLASSES).one_class == ("a",)
    assert len(Groups({"all": CLASSES}, CLASSES)) == 1


def test_unknown_group_names_the_groups() -> None:
    with pytest.raises(DataError, match=r"did you mean 'animal'.*thing, animal"):
        Groups(MEMBERS, CLASSES).class_indices("animals")


def test_ungrouped_classes_are_dropped_only_if_asked() -> None:
    groups, dropped = select_groups({"animal": ["cat", "dog"]}, CLASSES, drop_ungrouped=True)
    assert (groups.classes, dropped) == (("cat", "dog"), ("cup", "pen"))
    with pytest.raises(DataError, match="ungrouped=drop"):
        select_groups({"animal": ["cat", "dog"]}, CLASSES)


def test_names_stand_for_first_synonyms() -> None:
    classes = ["Cardigan, Cardigan Welsh corgi", "cardigan", "cougar, puma, Felis concolor", "cra"]
    groups, _ = select_groups({"clothing": ["cardigan"], "rest": [classes[0], "Cougar", "crab"]}, classes)
    assert groups["clothing"] == ("cardigan",)
    assert groups["rest"] == (classes[0], classes[2], "cra")


@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.randoms())
def test_any_partition_is_accepted_and_indexed(group_of_class: list[int], random: object) -> None:
    classes = [f"class {index}" for index in range(len(group_of_class))]
    members: dict[str, list[str]] = {}
    order = list(zip(classes, group_of_class, strict=True))
    random.shuffle(order)  # type: ignore[attr-defined]
    for name, group in order:
        members.setdefault(f"group {group}", []).append(name)
    groups = Groups(members, classes)
    assert [groups.names[index] for index in groups.class_to_group] == [f"group {group}" for group in group_of_class]
    together = np.sort(np.concatenate([groups.class_indices(name) for name in groups]))
    assert together.tolist() == list(range(len(classes)))


@pytest.mark.parametrize(
    ("name", "shape"),
    [("cifar-100", (20, 5)), ("imagenet-10", (10, 6)), ("imagenet-12", (12, 20)), ("car-20", (20, 3))],
)
def test_built_in_groupings(name: str, shape: tuple[int, int]) -> None:
    members = read_grouping(name)
    assert (len(members), {len(classes) for classes in members.values()}) == (shape[0], {shape[1]})
    classes = [name for of_group in members.values() for name in of_group]
    assert len(set(classes)) == len(classes) == shape[0] * shape[1]
    Groups(members, sorted(classes))


def test_all_built_in_groupings_are_listed() -> None:
    import snugnet.data.groups

    files = Path(snugnet.data.groups.__file__).parent.glob("groupings/*.json")
    assert {file.stem for file in files} == set(BUILT_IN_GROUPINGS)
    assert {group: len(names) for group, names in read_grouping("digits").items()} == {
        "round": 4,
        "straight": 3,
        "curvy": 3,
    }
    for make, names in read_grouping("car-20").items():
        assert all(name.startswith(f"{make} ") and name[-4:].isdigit() for name in names)


def test_json_file(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text(json.dumps(MEMBERS))
    assert read_grouping(str(path)) == MEMBERS
    assert read_grouping(MEMBERS) == MEMBERS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": ["x"], "a": ["y"]}', "key 'a' stands twice"),
        ('["x"]', "not of the form"),
        ('{"a": "x"}', "not of the form"),
        ('{"a": [1]}', "the name 1 as class 1 of 'a'; names are strings"),
        ('{"a": [["x"]]}', r"\['x'\] as class 1 of 'a', where a name is needed"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"a": [' + "9" * 5000 + "]}", "cannot be read as JSON"),
        ('{"a": [', "cannot be read as JSON"),
    ],
)
def test_wrong_json(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "groups.json"
    path.write_text(text)
    with pytest.raises(DataError, match=says) as error:
        read_grouping(str(path))
    assert str(path) in str(error.value)


def test_neither_a_file_nor_built_in() -> None:
    with pytest.raises(DataError, match=r"'cifar-10' is neither a file.*cifar-100"):
        read_grouping("cifar-10")


@pytest.mark.parametrize(
    ("name", "reads"),
    [("yes", "yes, on and true"), ("no", "no, off and false"), ("007", "numbers so, and 007 as 7"), ("0", "numbers"),
     ("null", "null, ~"), ("2020-01-01", "'2020-01-01' .* days and times")],
)  # fmt: skip
def test_yaml_file(tmp_path: Path, name: str, reads: str) -> None:
    path = tmp_path / "groups.yaml"
    path.write_text(f"a: [x, '{name}']\nb: [y]\n", encoding="utf-8-sig")
    assert read_grouping(str(path)) == {"a": ["x", name], "b": ["y"]}
    path.write_text(f"a: [x, {name}]\nb: [y]\n")
    with pytest.raises(
        DataError, match=r"as class 2 of 'a'; YAML reads .*; names are strings: put it in quotes"
    ) as error:
        read_grouping(str(path))
    assert re.search(reads, str(error.value))


def test_files_of_other_encodings_and_names_of_no_file(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_bytes('{"\u00e9": ["x"]}'.encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_grouping(str(path))
    with pytest.raises(DataError, match="is neither a file nor a built-in grouping"):
        read_grouping("a" * 3000)
