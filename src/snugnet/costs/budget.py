"""Budgets as people write them, and amounts as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

from snugnet.errors import BudgetError
from snugnet.texts import shown

_SUFFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_BUDGET = re.compile(
    r"\s*(\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d{1,3}(?:_\d{3})+(?:\.\d*)?|\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?)\s*((?:[kmg]i?)?)\s*",
    re.IGNORECASE,
)
"""A number, with commas between its thousands as reports and messages print them, underscores as in programs, or without."""
_SMALLEST = 1e-300  # of what is scaled to four digits: by more than that no float can be
_SHARE = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*%\s*")


def parse_budget(value: object) -> float:
    """A budget as a number, in the unit of its cost.

    Args:
        value: a positive number, or text such as ``"1.5M"``, ``"40k"``, ``"2G"``, ``"4e7"`` or ``"1,723,904"``;
            ``"256Ki"`` is 256 times 1024.

    Raises:
        BudgetError: not a positive, finite number.
    """
    number = math.nan
    if isinstance(value, str):
        if match := _BUDGET.fullmatch(value):
            number = float(re.sub("[,_]", "", match[1])) * _SUFFIXES[match[2].lower()]
    elif not isinstance(value, bool):
        try:
            number = float(value)  # type: ignore[arg-type]  # numpy's numbers too; anything else raises
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise BudgetError(f"a budget is a positive number such as 40000000, 4e7, 40M or 400k, got {shown(value)}")
    return number


def resolve_budget(value: object, bounds: tuple[float, float]) -> float:
    """A budget as a number, in the unit of its cost; a share such as ``"40%"`` is of the range of that cost.

    Args:
        value: an amount as :func:`parse_budget` takes it, or a share as text: ``"0%"`` is the cheapest architecture,
            ``"100%"`` the dearest.
        bounds: cost of the cheapest and of the dearest architecture: :attr:`CostTable.range` of the table that is asked.

    Raises:
        BudgetError: neither an amount nor a share from 0% to 100%.
    """
    match = _SHARE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        return parse_budget(value)
    share = float(match[1]) / 100
    if not 0 <= share <= 1:
        raise BudgetError(f"a share of the range of a cost is from 0% to 100%, got {value!r}")
    low, high = bounds
    return min(low + share * (high - low), high) if share < 1 else high  # never outside, by rounding


def without_unit(name: str, text: str) -> str:
    """An amount as text without the unit of its cost, as it is printed behind it: ``4.5 ms`` of ``latency_ms`` is ``4.5``.

    Args:
        name: of the cost, or of one on a device (``latency_ms@raspi4``). Its unit is what follows the last underscore, else the
            name itself (``8.4M MAdds`` of ``madds``); of a memory it is the byte (``256 KiB`` of ``peak_memory``).
        text: the amount; what has another unit stays, and is then no amount.
    """
    words = name.partition("@")[0].split("_")
    unit = "B" if "memory" in words else words[-1]
    match = re.fullmatch(rf"(.*[\d.kmgi%])\s*{re.escape(unit)}\s*", text, re.IGNORECASE | re.DOTALL) if unit else None
    return match[1] if match else text


def read_budgets(texts: Iterable[str]) -> dict[str, str]:
    """Budgets by the name of their cost, from texts such as ``madds=40M``, ``latency_ms=12.5`` or ``madds=40%``.

    Returns:
        For each cost its budget as it stands there, without its unit: one that :func:`resolve_budget` can read.

    Raises:
        BudgetError: a text has another form, or two are of one cost.
    """
    budgets: dict[str, str] = {}
    for text in texts:
        name, equals, value = (piece.strip() for piece in text.partition("="))
        if not (name and equals and value):
            raise BudgetError(f"a budget is given as NAME=VALUE, such as madds=40M or madds=40%, got {text!r}")
        if name in budgets:
            raise BudgetError(f"two budgets of {name} are given, {budgets[name]} and {value}; leave one out")
        value = without_unit(name, value)
        resolve_budget(value, (0.0, 1.0))
        budgets[name] = value
    return budgets


def split_amounts(text: str) -> tuple[str, ...]:
    """Several amounts: commas without a space between them, or semicolons or commas with a space, where they have commas inside."""
    apart = re.search(r";|,\s", text.strip())
    return tuple(value.strip() for value in re.split(r";|,\s" if apart else ",", text))


def read_limits(text: str) -> tuple[str, tuple[str, ...]]:
    """A cost and several budgets of it, from a text such as ``madds=250M,300M,330M``.

    A comma without a space separates two of them. Numbers with commas inside stand between semicolons, or commas with a space:
    ``madds=1,723,904; 2,000,000``.

    Returns:
        The name of the cost, and each budget as it stands there.

    Raises:
        BudgetError: the text has another form.
    """
    name, _, values = text.partition("=")
    limits = split_amounts(values)
    if any(re.fullmatch(r"0\d\d", value) for value in limits):
        raise BudgetError(
            f"of numbers with commas inside, a semicolon separates two, such as {name.strip()}=1,723,904; 2,000,000; got {text!r}"
        )
    return name.strip(), tuple(amount for value in limits for amount in read_budgets([f"{name}={value}"]).values())


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
    if not math.isfinite(value) or abs(value) < _SMALLEST:
        return f"{value:g} {unit}".strip()
    suffix, scale = next(((s, f) for s, f in (("G", 1e9), ("M", 1e6), ("k", 1e3)) if abs(value) >= f), ("", 1.0))
    digits = 10.0 ** (3 - math.floor(math.log10(abs(value) / scale)))
    scaled = value / scale * digits
    nearest = round(scaled)
    rounded = nearest if math.isclose(scaled, nearest, rel_tol=1e-12) else rounding(scaled)
    return f"{rounded / digits:.10g}{suffix} {unit}".strip()
