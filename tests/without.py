"""A Python in which only some packages, and what they require, are installed; the others cannot be found."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib import metadata
from typing import Any


def only(packages: Iterable[str], modules: Iterable[str] = ()) -> set[str]:
    """Hide all other packages from imports of this process.

    Args:
        packages: that stay, with what they require.
        modules: that stay as well.

    Returns:
        Names of the modules that are hidden.
    """
    kept: set[str] = set()
    todo = list(packages)
    while todo:
        name = _canonical(todo.pop())
        if name not in kept:
            kept.add(name)
            todo += [re.split(r"[^\w.-]", each, maxsplit=1)[0] for each in _required(name)]
    homes = metadata.packages_distributions()
    hidden = {module for module, of in homes.items() if not kept & {_canonical(name) for name in of}} - {*modules}
    sys.meta_path[:] = [_Without(finder, hidden) for finder in sys.meta_path]
    return hidden


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(name: str) -> list[str]:
    try:
        return [each for each in metadata.requires(name) or () if "extra ==" not in each]
    except metadata.PackageNotFoundError:  # of another platform
        return []


class _Without:
    """A finder that does not find some modules."""

    def __init__(self, finder: Any, hidden: set[str]) -> None:
        self.finder, self.hidden = finder, hidden

    def find_spec(self, name: str, *where: Any) -> Any:
        return None if name.split(".")[0] in self.hidden else self.finder.find_spec(name, *where)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)
