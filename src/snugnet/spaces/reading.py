"""Architectures that people bring: in files, in the space's own form or in that of another program; what is unknown is refused."""

from __future__ import annotations

import ast
import difflib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snugnet.errors import ConfigError, SpaceError
from snugnet.files import read_text
from snugnet.spaces.space import Population, SearchSpace
from snugnet.texts import cut, shown
from snugnet.yaml_content import parse_json, parse_yaml

_REMARK = re.compile(
    r"name|id|model|net_id|comments?|notes?|description|source|url|date|author|license|file|seed|seconds|family|group|groups"
    r"|settings|budgets|costs|limit|feature_vector|macs|madds|m?flops|params|parameters|activations|bitops|n_params|n_macs"
    r"|published_.*|predict.*|acc|acc_.*|accuracy.*|.*_accuracy|.*_acc|top_?[15].*|.*latency.*|.*energy.*|.*_ms|.*_mj",
    re.IGNORECASE,
)
"""Keys beside an architecture that say something about it and change nothing in it, as published files have them."""
_MOST = 200_000  # values of a file, and of what its YAML repeats
_LARGEST = 2**63  # no number of an architecture is near it
_SHOWN = 120  # characters of a reason


# -- architectures as mappings -----------------------------------------------------------------------------------------


def read_architecture(space: SearchSpace, arch: Mapping[str, Any]) -> Population:
    """The row, shape ``(1, d)``, of an architecture as people write it: in the space's form, or in one that its ``own_form`` knows.

    Args:
        space: whose architecture it is.
        arch: may state options of the space, if they are the same, and figures such as ``macs`` or ``published_top1``.

    Raises:
        SpaceError: it is none of this space, or has a key that nothing is known of.
    """
    form = type(space).own_form(arch, space.options)
    known = _fields(space)
    for key, value in form.items():
        if key in known or (isinstance(key, str) and _REMARK.fullmatch(key)):
            continue
        if key == "num_classes":  # of the classifier alone
            continue
        if key not in space.options:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            raise SpaceError(f"no key {shown(key)} in an architecture; {hint}allowed: {', '.join(known)}")
        if value != space.options[key]:
            raise SpaceError(f"the architecture has {key} {shown(value)}, this space {space.options[key]!r}")
    return space.from_dict(form)


def _fields(space: SearchSpace) -> list[str]:
    """Keys of the space's JSON form."""
    forms = [space.to_dict(space.smallest), space.to_dict(space.largest)]
    by_choice = space.column if type(space).from_dict is SearchSpace.from_dict else ()
    return list(dict.fromkeys((*space.json_options, *(key for form in forms for key in form), *by_choice)))


def stated_options(kind: type[SearchSpace], form: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a space that an architecture in its form states: those of ``json_options``, and the number of classes."""
    return {key: form[key] for key in (*kind.json_options, "num_classes") if key in form}


# -- files -------------------------------------------------------------------------------------------------------------


def read_architectures(path: Path) -> dict[str, dict[str, Any]]:
    """The architectures of a file by name; one that stands alone is named ``""``.

    Args:
        path: JSON (also a Python dictionary as DyNAS-T prints it) or YAML: an architecture, ``{name: architecture}``, a list of them,
            what a search wrote (``architecture``, ``winners``, ``limits``), or AttentiveNAS's configuration (``pareto_models``).

    Raises:
        ConfigError: it cannot be read, or holds none.
    """
    content = _content(path)
    for key in ("winners", "limits"):
        if isinstance(content, dict) and isinstance(content.get(key), list):
            content = content[key]
    for key in ("pareto_models", "models"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = {name: each for name, each in content[key].items() if isinstance(each, dict)}
    if isinstance(content, list) and content and all(isinstance(each, dict) for each in content):
        content = content[0] if len(content) == 1 else dict(enumerate(content, start=1))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; an architecture is a JSON object")
    inside = _unwrapped(content)
    if inside is content and content and all(isinstance(each, dict) for each in content.values()):
        return {str(name): _unwrapped(each) for name, each in content.items()}
    return {"": inside}


def _unwrapped(content: dict[str, Any]) -> dict[str, Any]:
    """What stands under ``architecture`` or ``net_config`` beside other things, else all of it."""
    for key in ("architecture", "net_config"):
        if isinstance(content.get(key), dict):
            found: dict[str, Any] = content[key]
            return found
    return content


def _content(path: Path) -> Any:
    text = read_text(path, ConfigError)
    if path.suffix in (".yaml", ".yml"):
        try:
            return _plain(parse_yaml(text))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path} is not YAML: {cut(str(error), _SHOWN)}") from error
    try:
        return parse_object(text)
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {cut(str(error), _SHOWN)}") from error


def parse_object(text: str) -> Any:
    """Plain content of JSON, or of a Python dictionary as it is printed (``{'ks': [3], 'wid': None}``); nothing is run.

    Raises:
        ValueError: it is neither.
    """
    try:
        return _plain(parse_json(text))
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith("{") or len(text) > _MOST or "'" not in text:
            raise ValueError(str(error)) from error
        reason = error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler, about what is in the text
            return _plain(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(reason)) from error


def _plain(content: Any) -> Any:
    """The content, if JSON could hold it and it is of a size that an architecture can have.

    Raises:
        ValueError: it is something else.
    """
    open_, seen = [content], 0
    while open_:
        value = open_.pop()
        seen += 1
        if seen > _MOST:
            raise ValueError(f"it holds more than {_MOST:,} values")
        if isinstance(value, dict):
            open_ += [*value, *value.values()]
        elif isinstance(value, (list, tuple)):
            open_ += value
        elif isinstance(value, int) and not -_LARGEST < value < _LARGEST:
            raise ValueError("it holds a whole number of more than 18 digits")
        elif value is not None and not isinstance(value, (str, int, float)):
            raise ValueError(f"it holds a {type(value).__name__}, which no architecture has")
    return content
