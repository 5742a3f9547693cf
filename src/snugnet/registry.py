"""Things by name: those of this package, and those that an installed package brings through an entry point.

A package announces what it brings in its own ``pyproject.toml``::

    [project.entry-points."snugnet.spaces"]
    my-space = "my_package.my_space:MySpace"

Its space, search method, predictor or cost then has its place in every command, recipe and study. Nothing of it is imported before
its name is asked for, so a package that is broken disturbs nobody else.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from importlib import metadata
from typing import Generic, TypeVar

from snugnet.errors import SnugnetError

T = TypeVar("T")


class Registry(Generic[T]):
    """What is known by name.

    Attributes:
        group: of the entry points, such as ``snugnet.spaces``.
        noun: what one of them is called in messages, such as ``space``.
        error: raised for a name that is not known.
        key: the attribute by which such a thing names itself.
    """

    def __init__(
        self,
        group: str,
        noun: str,
        error: type[SnugnetError],
        fits: Callable[[object], bool],
        *,
        key: str = "name",
        homes: Mapping[str, str] | None = None,
    ) -> None:
        """Begin with what this package itself brings.

        Args:
            group: of the entry points.
            noun: for messages.
            error: for names that are not known.
            fits: whether an object that an entry point gives is such a thing; what it raises says why it is none.
            key: the attribute by which such a thing names itself.
            homes: from names to where this package has them, as an entry point says it (``module:attribute``): they too are
                imported when they are asked for.
        """
        self.group, self.noun, self.error, self.key = group, noun, error, key
        self._fits = fits
        self._own: dict[str, T] = {}
        self._homes = {name: metadata.EntryPoint(name, value, group) for name, value in (homes or {}).items()}
        self._brought: dict[str, metadata.EntryPoint] | None = None

    def add(self, name: str, thing: T) -> T:
        """Make a thing known; one of the same name is replaced."""
        self._own[name] = thing
        return thing

    def names(self) -> list[str]:
        """All names, sorted; what entry points bring is not imported."""
        return sorted({*self._own, *self._entry_points()})

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._entry_points()

    def __getitem__(self, name: str) -> T:
        """The thing of that name.

        Raises:
            SnugnetError: of the registry's class: there is none, or the package that brings it cannot be imported.
        """
        if name not in self._own:
            if name not in self._entry_points():
                known = self.names()
                close = difflib.get_close_matches(str(name), known, 1)
                hint = f"did you mean {close[0]!r}? " if close else ""
                raise self.error(f"unknown {self.noun} {name!r}; {hint}known: {', '.join(known)}")
            self._own[name] = self._load(self._entry_points()[name])
        return self._own[name]

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        if self._brought is None:
            self._brought = dict(self._homes)
            for point in metadata.entry_points(group=self.group):
                if self._is_known(point):
                    continue
                if point.name in self._own or point.name in self._brought:
                    warnings.warn(
                        f"{point.value} brings a second {self.noun} {point.name!r}; it is left out", stacklevel=3
                    )
                else:
                    self._brought[point.name] = point
        return self._brought

    def _is_known(self, point: metadata.EntryPoint) -> bool:
        """Whether what an entry point gives has been added already, as a decorator does where its module is imported first."""
        module, _, attribute = point.value.partition(":")
        return point.name in self._own and self._own[point.name] is getattr(sys.modules.get(module), attribute, None)

    def _load(self, point: metadata.EntryPoint) -> T:
        try:
            with redirect_stdout(sys.stderr):  # which is for results
                thing: T = point.load()
            fits = self._fits(thing)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever somebody else's package does when it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise self.error(f"{self.noun} {point.name!r} cannot be loaded from {point.value} ({reason})") from error
        if not fits:
            raise self.error(f"{self.noun} {point.name!r}: {point.value} is no {self.noun}, it is {thing!r:.80}")
        if (name := getattr(thing, self.key, None)) != point.name:  # what it makes would be stored under that name
            raise self.error(f"{self.noun} {point.name!r}: {point.value} calls itself {name!r}; give it the same name")
        if missing := sorted(getattr(thing, "__abstractmethods__", ())):
            raise self.error(f"{self.noun} {point.name!r}: {point.value} does not define {', '.join(missing)}")
        return thing
