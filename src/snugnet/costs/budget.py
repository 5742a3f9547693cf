"""Budgets as people write them, and amounts as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from snugnet.errors import BudgetError

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_BUDGET = re.compile(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)\s*([kmg]?)\s*", re.IGNORECASE)


def parse_budget(value: object) -> float:
    """A budget as a number, in the unit of its cost.

    Args:
        value: a positive number, or text such as ``"1.5M"``, ``"40k"``, ``"2G"`` or ``"4e7"``.

    Raises:
        BudgetError: not a positive, finite number.
    """
    number = math.nan
    if isinstance(value, str):
        if match := _BUDGET.fullmatch(value):
            number = float(match[1]) * _SUFFIXES[match[2].lower()]
    elif not isinstance(value, bool):
        try:
            number = float(value)  # type: ignore[arg-type]  # numpy's numbers too; anything else raises
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise BudgetError(f"a budget is a positive number such as 40000000, 4e7, 40M or 400k, got {value!r}")
    return number


def exact_amount(value: float, rounding: Callable[[float], int] = round) -> str:
    """An amount for people who set a budget by it: every digit from a thousand on, four significant ones below.

    Args:
        value: the amount.
        rounding: as in :func:`format_amount`.
    """
    return f"{rounding(value):,}" if abs(value) >= 1000 else format_amount(value, rounding=rounding)


def format_amount(value: float, unit: str = "", rounding: Callable[[float], int] = round) -> str:
    """An amount for people: four significant digits, with k, M or G from a thousand on.

    Args:
        value: the amount.
        unit: written behind it.
        rounding: ``math.ceil`` for a lower end of a range, so that the number as printed lies inside.
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g} {unit}".strip()
    suffix, scale = next(((s, f) for s, f in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if abs(value) >= f), ("", 1.0))
    digits = 10.0 ** (3 - math.floor(math.log10(abs(value) / scale)))
    scaled = value / scale * digits
    nearest = round(scaled)
    rounded = nearest if math.isclose(scaled, nearest, rel_tol=1e-12) else rounding(scaled)
    return f"{rounded / digits:.10g}{suffix} {unit}".strip()
