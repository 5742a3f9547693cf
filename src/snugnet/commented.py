"""A configuration as YAML that loads again, with what is known of every key above it, from the docstrings."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping

import yaml
from pydantic import BaseModel

from snugnet.config import Config

_WIDTH = 110
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*(?:\n {8,}.*)*)", re.MULTILINE)
_MARKUP = re.compile(r":\w+:`~?\.?([^`]*)`|``([^`]*)``")


def entries(docstring: str, heading: str) -> dict[str, str]:
    """What a section of a docstring (``Attributes:``, ``Options:``) says of each name, in one line each."""
    _, _, rest = inspect.cleandoc(docstring).partition(f"\n{heading}:\n")
    section = re.split(r"\n(?=\S)", rest)[0]
    return {name: _plain(text) for names, text in _ENTRY.findall(section) for name in names.split(", ")}


def key_texts(section: type[BaseModel]) -> dict[str, str]:
    """What the docstrings say of every key of a section: under ``Attributes:``, or below the key; what is there to say of a section
    stands in its own class."""
    texts: dict[str, str] = {}
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            texts[name] = _plain(inspect.cleandoc(field.annotation.__doc__ or "").split("\n\n")[0])
    for each in reversed(section.__mro__):
        if issubclass(each, Config) and each is not Config:
            texts |= entries(each.__doc__ or "", "Attributes") | dict(_below_keys(each))
    return texts


def commented(config: BaseModel, extra: Mapping[str, str] | None = None) -> str:
    """A configuration in YAML, defaults filled in, each key below what its docstring says.

    Args:
        config: such as a recipe.
        extra: what there is to say of keys that a section takes beside its own, such as the options of a search space.
    """
    return "".join(f"{line}\n" for line in _lines(config, extra or {}))


def _lines(config: BaseModel, extra: Mapping[str, str], remarks: bool = True) -> Iterator[str]:
    texts = {**extra, **key_texts(type(config))}
    plain = config.model_dump(mode="json")
    for name in plain:
        value = getattr(config, name)
        if remarks and name in texts:
            yield from textwrap.wrap(texts[name], _WIDTH, initial_indent="# ", subsequent_indent="# ")
        if isinstance(value, BaseModel):
            yield f"{name}:"
            yield from (f"  {line}" for line in _lines(value, extra, remarks))
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            yield f"{name}:"
            for i, each in enumerate(value):
                yield "  -"
                yield from (f"    {line}" for line in _lines(each, extra, remarks and not i))
        else:
            text = yaml.safe_dump(
                plain[name], sort_keys=False, allow_unicode=True, default_flow_style=None, width=_WIDTH
            )
            inside = text.removesuffix("...\n").splitlines()
            if len(inside) == 1:
                yield f"{name}: {inside[0]}"
            else:
                yield from (f"{name}:", *(f"  {line}" for line in inside))


def _below_keys(section: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Keys of a class, and the texts that stand below them."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(body, ast.ClassDef)
    for key, text in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name)
            and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant) and isinstance(text.value.value, str)
        ):  # fmt: skip
            yield key.target.id, _plain(text.value.value)


def _plain(text: str) -> str:
    """One line, without the marks of reStructuredText."""
    return " ".join(_MARKUP.sub(lambda match: match[1] or match[2], text).split())
