"""Superclasses: which class is in which group, checked. No torch in here."""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from snugnet.data.config import not_a_name
from snugnet.errors import DataError
from snugnet.files import read_text
from snugnet.texts import cut, listed, one_form, shown
from snugnet.yaml_content import parse_json, parse_yaml

BUILT_IN_GROUPINGS = ("cifar-100", "imagenet-10", "imagenet-12", "car-20", "digits")
"""Groupings that ship with the package, each a file ``groupings/NAME.json``.

``imagenet-10``, ``imagenet-12`` and ``car-20`` are Tables A, B and C of EAS (arXiv 2108.01224). ImageNet classes are
written as ImageNet writes them (first synonym, its capitals). Car-20 classes are written as Stanford Cars names them,
make + model + year; the table's "Italia Coupe 2012" is that data set's "Ferrari 458 Italia Coupe 2012".
"""

_LONGEST_NAME = 255  # characters of a file's name
# The Hugging Face copy of CIFAR-100 spells this class without its last letter.
_MISSPELT = {"crab": "cra"}


class Groups(Mapping[str, tuple[str, ...]]):
    """Ordered mapping from each superclass to its classes, covering every class of the data once.

    Attributes:
        names: the superclasses in order.
        classes: the class names in label order.
        class_to_group: int64 ``(num_classes,)``, the position in ``names`` of each class's superclass; read-only.
    """

    names: tuple[str, ...]
    classes: tuple[str, ...]
    class_to_group: NDArray[np.int64]

    def __init__(self, members: Mapping[str, Sequence[str]], classes: Sequence[str]) -> None:
        """Check ``members`` against ``classes``.

        Raises:
            DataError: no group, an empty group, a class in two groups or in none, or a class that is not in
                ``classes``.
        """
        _check_members(members)
        group_of = {name: group for group, of_group in members.items() for name in of_group}
        unknown = [name for name in group_of if name not in set(classes)]
        if unknown:
            raise DataError(_unknown_message(unknown, classes, group_of))
        missing = [name for name in classes if name not in group_of]
        if missing:
            raise DataError(
                f"{_listed(missing)} in no group; every class needs one: add the class to a group, "
                "or set ungrouped=drop to leave its images out"
            )
        self._members = {group: tuple(of_group) for group, of_group in members.items()}
        self.names = tuple(self._members)
        self.classes = tuple(classes)
        position = {group: index for index, group in enumerate(self.names)}
        self.class_to_group = np.array([position[group_of[name]] for name in self.classes], dtype=np.int64)
        self.class_to_group.flags.writeable = False

    def __getitem__(self, group: str) -> tuple[str, ...]:
        """Classes of ``group``, in the order in which the group lists them."""
        return self._members[group]

    def __iter__(self) -> Iterator[str]:
        """Superclasses in order."""
        return iter(self._members)

    def __len__(self) -> int:
        """Number of superclasses."""
        return len(self._members)

    def __repr__(self) -> str:
        """Readable form with sizes, not with every class."""
        return "Groups(" + ", ".join(f"{group}: {len(of_group)}" for group, of_group in self.items()) + ")"

    @property
    def one_class(self) -> tuple[str, ...]:
        """Groups of a single class: allowed in training, but there is nothing to tell apart in them."""
        return tuple(group for group, of_group in self.items() if len(of_group) == 1)

    def class_indices(self, group: str) -> NDArray[np.int64]:
        """Labels of the classes of ``group``, ascending.

        Raises:
            DataError: there is no such group.
        """
        group = one_form(group)
        if group not in self._members:
            close = difflib.get_close_matches(group, self.names, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise DataError(f"no group {shown(group)}; {hint}groups are: {listed(self.names)}; use one of them")
        return np.flatnonzero(self.class_to_group == self.names.index(group))

    def to_dict(self) -> dict[str, list[str]]:
        """JSON form ``{superclass: [classes]}``."""
        return {group: list(of_group) for group, of_group in self.items()}


def select_groups(
    members: Mapping[str, Sequence[str]], classes: Sequence[str], *, drop_ungrouped: bool = False
) -> tuple[Groups, tuple[str, ...]]:
    """Fit a grouping to the classes of the data.

    A listed name stands for the class of that name, else for the one class whose first synonym (the text before a
    comma, as in ImageNet's ``"cougar, puma, ..."``) it is, capitals aside. Names are compared, and given, in one Unicode form (NFC).

    Args:
        members: superclass to classes.
        classes: the data's class names, in label order.
        drop_ungrouped: leave out the classes that are in no group, instead of raising.

    Returns:
        The groups over the classes that are kept, in their old order, and the names of the dropped ones.

    Raises:
        DataError: see `Groups`.
    """
    members = _in_one_form(members)
    classes = [one_form(name) for name in classes]
    _check_members(members)
    resolve = _Resolver(classes)
    resolved = {group: [resolve(name) for name in of_group] for group, of_group in members.items()}
    named = {name for of_group in resolved.values() for name in of_group}
    dropped = tuple(name for name in classes if name not in named) if drop_ungrouped else ()
    kept = [name for name in classes if name not in set(dropped)]
    return Groups(resolved, kept), dropped


def read_grouping(spec: str | Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Grouping from an inline mapping, the name of a built-in one, or the path of a JSON or YAML file.

    Raises:
        DataError: no such name or file, or a file that is not ``{superclass: [classes]}`` with every superclass once.
    """
    if not isinstance(spec, str):
        return {group: list(of_group) for group, of_group in spec.items()}
    if spec in BUILT_IN_GROUPINGS:
        text = (resources.files("snugnet.data") / "groupings" / f"{spec}.json").read_text("utf-8")
        return _parse(text, spec)
    path = Path(spec).expanduser()
    if len(path.name) > _LONGEST_NAME or not path.is_file():
        raise DataError(
            f"groups {shown(spec)} is neither a file nor a built-in grouping ({', '.join(BUILT_IN_GROUPINGS)}); "
            "give one of these, or the path of a JSON or YAML file {superclass: [classes]}"
        )
    return _parse(read_text(path, DataError), str(path))


def _parse(text: str, name: str) -> dict[str, list[str]]:
    kind, parse = ("YAML", parse_yaml) if name.endswith((".yaml", ".yml")) else ("JSON", parse_json)
    try:
        value = parse(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"groups file {name} cannot be read as {kind} ({cut(str(error), 160)}); mend the file"
        ) from None
    if not isinstance(value, dict) or not all(isinstance(of_group, list) for of_group in value.values()):
        raise DataError(f"groups file {name} is not of the form {{superclass: [class, ...]}}; rewrite it so")
    if problem := not_a_name(value, yaml=kind == "YAML"):
        raise DataError(f"groups file {name} has {problem}")
    return value


def _check_members(members: Mapping[str, Sequence[str]]) -> None:
    if not members:
        raise DataError("the grouping has no group; at least one is needed: {superclass: [class, ...]}")
    for group, of_group in members.items():
        if not of_group:
            raise DataError(f"group {group!r} is empty; a group needs at least one class: add one or remove the group")
    home: dict[str, str] = {}
    for group, of_group in members.items():
        for name in of_group:
            if name in home:
                where = (
                    f"twice in group {shown(group)}"
                    if home[name] == group
                    else f"in groups {shown(home[name])} and {shown(group)}"
                )
                raise DataError(
                    f"class {shown(name)} is {where}; a class is in one group, once: remove it from the other"
                )
            home[name] = group


def _in_one_form(members: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The grouping with its names in one Unicode form."""
    same: dict[str, list[str]] = {}
    for group, of_group in members.items():
        if one_form(group) in same:
            raise DataError(f"group {shown(group)} stands twice, in two Unicode forms; merge or rename them")
        same[one_form(group)] = [one_form(name) for name in of_group]
    return same


class _Resolver:
    """Maps a listed name to the data's spelling of the class, or leaves it as it is."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.exact = set(classes)
        first = [name.split(",")[0].strip().casefold() for name in classes]
        unique = {key for key, count in Counter(first).items() if count == 1}
        self.by_synonym = {key: name for key, name in zip(first, classes, strict=True) if key in unique}

    def __call__(self, name: str) -> str:
        if name in self.exact:
            return name
        for spelling in (name, _MISSPELT.get(name, name)):
            found = self.by_synonym.get(spelling.casefold())
            if found is not None:
                return found
        return name


def _unknown_message(unknown: Sequence[str], classes: Sequence[str], group_of: Mapping[str, str]) -> str:
    hints = []
    for name in unknown[:3]:
        close = difflib.get_close_matches(name, classes, 3, cutoff=0.5)
        hints.append(f"{shown(name)} (group {shown(group_of[name])}; close: {', '.join(map(shown, close)) or 'none'})")
    more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
    return f"the groups name classes that the data has not: {'; '.join(hints)}{more}; correct or remove them"


def _listed(names: Sequence[str]) -> str:
    some = ", ".join(map(shown, names[:10])) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"class {some} is" if len(names) == 1 else f"classes {some} are"
