"""What a space is made of: choices, and the parts of the network that they shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from snugnet.errors import SpaceError
from snugnet.spaces.blueprint import Block


@dataclass(frozen=True)
class Choice:
    """One thing that can be chosen.

    Attributes:
        name: unique in its space, such as ``"stage1.block2.kernel_size"``.
        options: what can be chosen, smallest first where they have an order.
        kind: what sort of choice this is (``depth``, ``kernel_size``, ``expand_ratio``); choices of a kind share one
            head of the architecture generator.
        layers: for each of the ``len(options) - 1`` nested gates, the position of the layer that it belongs to.
        parent: the choice that decides whether this one matters; it stands earlier in the space.
        active: for each option of the parent, whether this choice then matters.
    """

    name: str
    options: tuple[Any, ...]
    kind: str
    layers: tuple[int, ...]
    parent: str | None = None
    active: tuple[bool, ...] = ()

    def index(self, option: Any) -> int:
        """The index of an option.

        Raises:
            SpaceError: there is no such option.
        """
        if isinstance(option, bool) or option not in self.options:
            raise SpaceError(f"{self.name} = {option!r} is not in this space; allowed: {list(self.options)}")
        return self.options.index(option)


@dataclass(frozen=True)
class Part:
    """A piece of the network and the few choices that it depends on.

    The blueprint of an architecture is its parts' blocks in a row, and every additive cost has one table a part: that is
    why counts and networks cannot disagree.

    Attributes:
        name: unique in its space.
        choices: columns of the choices that the part depends on.
        build: from the chosen options to the part's blocks (none where the part is skipped).
    """

    name: str
    choices: tuple[int, ...]
    build: Callable[..., tuple[Block, ...]]
