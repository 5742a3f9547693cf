"""Settings as plain data: the fields of a dataclass, given by name on the command line, in Python and in studies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, get_type_hints

from pydantic import create_model

from snugnet.config import Config, read_config
from snugnet.errors import SearchError


def has_settings(base: type) -> Callable[[object], bool]:
    """For a registry: whether a thing is a class below this one, with settings whose types are known while it runs."""

    def fits(thing: object) -> bool:
        return isinstance(thing, type) and issubclass(thing, base) and isinstance(setting_types(thing), dict)

    return fits


def setting_types(kind: type) -> dict[str, Any]:
    """The types of the settings of a dataclass, by name, in order."""
    hints = get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind) if each.init}


def setting_defaults(kind: type) -> dict[str, Any]:
    """The values that settings have where they are not given; those without one are left out."""
    return {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(kind)
        if each.init and not (each.default is MISSING and each.default_factory is MISSING)
    }


def check_settings(name: str, kind: type, settings: Mapping[str, Any], others: Iterable[str] = ()) -> dict[str, Any]:
    """Settings as the fields of a dataclass want them.

    Args:
        name: that messages begin with.
        kind: a dataclass; one may be made of the fields that are given and the defaults of the rest.
        settings: by name, as YAML gives them.
        others: names that stand for something else here; named where a setting is unknown.

    Raises:
        SearchError: a setting is unknown, or one that is needed is not given.
        ConfigError: a value is not of the field's type.
    """
    types, defaults = setting_types(kind), setting_defaults(kind)
    for key in settings:
        if key not in types:
            known = [*others, *(own for own in types if own not in others)]
            raise SearchError(f"{name} takes no {key}; it takes {', '.join(known) or 'no settings'}")
    for key in types:
        if key not in defaults and key not in settings:
            raise SearchError(f"{name} needs the setting {key}, and it is not given")
    wanted: dict[str, Any] = {key: (types[key], ...) for key in settings}
    checked = read_config(create_model(kind.__name__, __base__=Config, **wanted), settings, name)
    return {key: getattr(checked, key) for key in settings}


def describe_settings(kind: type) -> str:
    """The settings of a dataclass with their defaults, for people: ``samples=1000 top=20``."""
    defaults = setting_defaults(kind)
    return " ".join(f"{key}={defaults.get(key, '(needed)')}" for key in setting_types(kind))
