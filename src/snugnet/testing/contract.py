"""What a broken contract looks like: one line that names it, and what was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from snugnet.errors import SnugnetError


class ContractError(AssertionError):
    """A law that a space, a method, a cost or a predictor must keep, and does not."""


def holds(kept: object, what: str, contract: str, found: object = "") -> None:
    """Refuse what does not keep a contract.

    Args:
        kept: whether it is kept.
        what: the thing that is checked, by name.
        contract: what must hold.
        found: what was found instead.

    Raises:
        ContractError: it is not kept.
    """
    if not kept:
        raise ContractError(
            f"{what}: {contract}" + (f"; found: {' '.join(str(found).split())[:300]}" if found != "" else "")
        )


@contextmanager
def works(what: str, contract: str) -> Iterator[None]:
    """Refuse what cannot even be tried: whatever is raised inside breaks the contract.

    Raises:
        ContractError: from what was raised.
    """
    try:
        yield
    except ContractError:
        raise
    except Exception as error:  # of the code that is checked, so of any class
        kind = "" if isinstance(error, SnugnetError) else f"{type(error).__name__}: "
        raise ContractError(f"{what}: {contract}; found: {kind}{' '.join(str(error).split())[:300]}") from error
