"""Plain content of YAML files, and ``key=value`` texts that change it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snugnet.errors import ConfigError
from snugnet.files import read_text

if TYPE_CHECKING:
    import yaml


def read_yaml(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The plain content of a YAML file, with ``key=value`` texts applied to it.

    Raises:
        ConfigError: the file cannot be read, or is no mapping, or a text is no setting.
    """
    path = Path(path)
    text = read_text(path, ConfigError, "recipe ")
    try:
        content = parse_yaml(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a recipe is a YAML mapping, got {type(content).__name__}")
    for override in overrides:
        put(content, *read_assignment(override))
    return content


def read_assignment(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is read as YAML.

    Raises:
        ConfigError: it is something else.
    """
    key, sign, value = text.partition("=")
    key = key.strip()
    if not sign or not key:
        raise ConfigError(f"settings are key=value, got {text!r}")
    try:
        return key, parse_yaml(value)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{key}: {value!r} is not YAML") from error


def parse_yaml(text: str) -> Any:
    """The plain content of a text in YAML, in which no key stands twice.

    Raises:
        ValueError: it is none, or a value is none, such as a day that is not in the calendar.
        RecursionError: it is nested too deep.
    """
    import yaml

    try:
        return yaml.load(text, _unique_keys())
    except (
        yaml.YAMLError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
        OverflowError,
    ) as error:  # of keys and tags that are none
        raise ValueError(str(error)) from error


def parse_json(text: str) -> Any:
    """The content of a text in JSON, in which no key stands twice and every number is one (NaN and infinity are not).

    Raises:
        ValueError: it is none.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, parse_constant=_no_number, object_pairs_hook=_unique)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return content


@cache
def _unique_keys() -> type[yaml.SafeLoader]:
    """Plain YAML reads ``a: 1`` and a later ``a: 2`` as 2 and says nothing."""
    import yaml

    class UniqueKeys(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} stands twice", key.start_mark
                    )
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    return UniqueKeys


def put(content: dict[str, Any], key: str, value: Any) -> None:
    """Set what a dotted key reaches, in place, making sections that are not there yet.

    Raises:
        ConfigError: the key leads through a value, or past the end of a list.
    """
    place: Any = content
    *sections, last = key.split(".")
    for depth, section in enumerate(sections):
        if isinstance(place, list):
            place = place[_position(place, section, key)]
        else:
            if place.get(section) is None:
                place[section] = {}
            place = place[section]
        if not isinstance(place, (dict, list)):
            raise ConfigError(f"{key}: {'.'.join(sections[: depth + 1])} is a value, not a section")
    if isinstance(place, list):
        place[_position(place, last, key)] = value
    else:
        place[last] = value


def _position(place: list[Any], text: str, key: str) -> int:
    if not text.isdecimal() or int(text) >= len(place):
        raise ConfigError(f"{key}: {text!r} is not a position in a list of {len(place)} (they count from 0)")
    return int(text)
