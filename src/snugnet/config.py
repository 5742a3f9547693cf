"""Configurations: what every section of a recipe has in common, and one line for what is wrong in one."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from snugnet.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)


class Config(BaseModel):
    """A section of a recipe: unknown keys are refused, numbers are finite, and yes or no is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_flag_for_a_number(cls, values: Any) -> Any:
        for key, value in values.items() if isinstance(values, dict) else ():
            field = cls.model_fields.get(key)
            if field is not None and (flag := _flag(value)) is not None and not _takes_flags(field.annotation):
                raise ValueError(f"{key} is {value!r}; {str(flag).lower()} is a yes or no, which it does not take")
        return values


def _flag(value: Any) -> bool | None:
    """A yes or no that a value is, or has in it."""
    if isinstance(value, bool):
        return value
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return next((flag for each in inside if (flag := _flag(each)) is not None), None)


def _takes_flags(annotation: Any) -> bool:
    """Whether a key of that type may hold a yes or no somewhere; a section checks its own keys."""
    return (
        annotation in (bool, Any)
        or (isinstance(annotation, type) and issubclass(annotation, BaseModel))
        or any(_takes_flags(each) for each in get_args(annotation))
    )


def read_config(model: type[Model], values: Mapping[str, Any], where: str = "") -> Model:
    """Check plain data against a configuration.

    Args:
        model: such as :class:`snugnet.data.DataConfig`.
        values: as read from YAML.
        where: they come from; stands before the message.

    Raises:
        ConfigError: one line naming the first wrong key, what was given and what is allowed.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain(error, model)}" if where else explain(error, model)) from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first fault in one line: where it is, what was given, what is allowed."""
    faults = error.errors(include_url=False)
    # A key that is misspelt is missing as well: what is there is named before what is not.
    faults.sort(key=lambda each: each["type"] == "missing")
    first = _path(model, faults[0]["loc"])
    # A key of several types has a fault for each of them; the deepest is of the type that was meant.
    own = [each for each in faults if _path(model, each["loc"])[: len(first)] == first]
    fault = max(own, key=lambda each: len(_path(model, each["loc"])))
    path = _path(model, fault["loc"])
    key = ".".join(map(str, path))
    if fault["type"] == "extra_forbidden":
        allowed = list(_section(model, path[:-1]).model_fields)
        close = difflib.get_close_matches(str(path[-1]), allowed, 1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"no key {key!r}; {hint}allowed: {', '.join(allowed)}"
    if fault["type"] == "missing":
        return f"needs the key {key!r}, and it is not given; add it"
    if fault["type"] == "value_error":  # of our own validators: they say what was given
        message = fault["msg"].removeprefix("Value error, ")
        return f"{key}: {message}" if key else message
    messages = [each["msg"] for each in faults if _path(model, each["loc"]) == path]
    message = " or ".join(dict.fromkeys(message[:1].lower() + message[1:] for message in messages))
    given = " ".join(repr(fault["input"]).split())
    return f"{key or 'it'} is {given if len(given) <= 80 else given[:77] + '...'}: {message}"


def _path(model: type[BaseModel], location: Sequence[int | str]) -> list[int | str]:
    """A fault's place without the names that pydantic gives to the members of a union (``str``, ``list[int]``)."""
    path: list[int | str] = []
    section: type[BaseModel] | None = model
    for part in location:
        if section is None and isinstance(part, str) and (part.endswith("]") or part in _TAGS):
            continue
        path.append(part)
        if isinstance(part, str):
            field = section.model_fields.get(part) if section else None
            section = _model_in(field.annotation) if field else None
    return path


_TAGS = {"str", "int", "float", "bool", "none", "constrained-str", "constrained-int", "constrained-float"}


def _section(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    for part in path:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, or holds a list of."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
