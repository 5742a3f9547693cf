import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from snugnet.costs import (
    exact_amount,
    format_amount,
    parse_budget,
    read_budgets,
    read_limits,
    resolve_budget,
    without_unit,
)
from snugnet.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5M", 1.5e6),
        ("40k", 4e4),
        ("40K", 4e4),
        (" 2 g ", 2e9),
        ("4e7", 4e7),
        ("4E+7", 4e7),
        (".5m", 5e5),
        ("7.", 7),
        ("1,723,904", 1723904),
        ("1,723.5k", 1723500),
        ("1_723_904", 1723904),
        (" 12,000 ", 12000),
        (4e7, 4e7),
        (3, 3),
        (np.float32(2.5), 2.5),
        (np.int64(9), 9),
    ],
)
def test_budgets_that_can_be_read(text, value):
    assert parse_budget(text) == value


@pytest.mark.parametrize(
    "value",
    ["", "M", "1.5MB", "1,5M", "1,2345", "1_7", "1_723,904", ",100", "1234,567", "1,723,90", "1,,000", "-3", "0", "0k", "nan", "inf", "1e999", "1.2.3", 0, -1, math.nan, math.inf, True, None, [],
     10**400],
)  # fmt: skip
def test_budgets_that_cannot(value):
    with pytest.raises(BudgetError, match="a budget is a positive number"):
        parse_budget(value)


def test_several_limits():
    assert read_limits("madds=250M,300M,330M") == ("madds", ("250M", "300M", "330M"))
    assert read_limits("latency_ms=50,100,150") == ("latency_ms", ("50", "100", "150"))
    assert read_limits("madds=1,723,904; 2,000,000") == ("madds", ("1,723,904", "2,000,000"))
    assert read_limits("madds=1,723,904, 2M") == ("madds", ("1,723,904", "2M"))
    with pytest.raises(BudgetError, match="a semicolon separates two, such as madds=1,723,904; 2,000,000; got"):
        read_limits("madds=2,000,000")


@given(st.floats(1000, 1e15))
def test_numbers_are_read_as_they_are_printed(value):
    for rounding in (math.ceil, math.floor):
        assert parse_budget(exact_amount(value, rounding)) == rounding(value)


def test_amounts_that_a_budget_is_set_by():
    assert exact_amount(12_345_678.5, math.ceil) == "12,345,679"
    assert exact_amount(11.4372, math.ceil) == "11.44"
    assert exact_amount(11.4372, math.floor) == "11.43"
    assert exact_amount(0.03) == "0.03"


def test_amounts():
    assert format_amount(566_170_656, "MAdds") == "566.2M MAdds"
    assert format_amount(121_278_672, rounding=math.ceil) == "121.3M"
    assert format_amount(121_328_672, rounding=math.ceil) == "121.4M"
    assert format_amount(12.3456, "ms") == "12.35 ms"
    assert format_amount(1.5e6) == "1.5M"
    assert format_amount(0) == "0"
    assert format_amount(2.5e-308, "ms") == "2.5e-308 ms"
    assert format_amount(5e-324) == "4.94066e-324"
    assert format_amount(-2500) == "-2.5k"
    assert parse_budget(format_amount(0.012345)) == 0.01234


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0%", 20), ("100%", 120), ("40%", 60), (" 12.5 % ", 32.5), (".5%", 20.5), ("100.0%", 120), ("40", 40), ("1k", 1000),
     (7.5, 7.5)],
)  # fmt: skip
def test_a_share_is_of_the_range(value, expected):
    assert resolve_budget(value, (20.0, 120.0)) == expected


@pytest.mark.parametrize("value", ["100.1%", "-1%", "1e2%", "%", "40M%", "nan%", "0", "-3", None])
def test_shares_that_cannot_be_read(value):
    with pytest.raises(
        BudgetError, match=r"a share of the range of a cost is from 0% to 100%|a budget is a positive number"
    ):
        resolve_budget(value, (20.0, 120.0))


@settings(deadline=None)
@example(low=6.2, span=0.0, share=98.0)
@given(low=st.floats(-1e9, 1e9), span=st.floats(0, 1e12), share=st.floats(0, 100))
def test_shares_stay_in_the_range_and_rise(low, span, share):
    high = low + span
    cheapest, between, dearest = (resolve_budget(f"{s:f}%", (low, high)) for s in (0, share, 100))
    assert (cheapest, dearest) == (low, high)
    assert low <= between <= high


@pytest.mark.parametrize(
    ("name", "text", "amount"),
    [("latency_ms", "4.5 ms", "4.5"), ("latency_ms@raspi4", "4.5ms", "4.5"), ("energy_mj", "1.5 mJ", "1.5"),
     ("madds", "8.4M MAdds", "8.4M"), ("madds", "40% madds", "40%"), ("params", "1,723,904 params", "1,723,904"),
     ("madds", "4.5 ms", "4.5 ms"), ("latency_ms", "ms", "ms"), ("latency_ms", "4.5 mJ", "4.5 mJ")],
)  # fmt: skip
def test_amounts_with_the_unit_of_their_cost(name, text, amount):
    assert without_unit(name, text) == amount
    assert without_unit(name, amount) == amount


def test_budgets_with_units():
    assert read_budgets(["latency_ms=4.5 ms", "madds=1_723_904"]) == {"latency_ms": "4.5", "madds": "1_723_904"}
    assert read_limits("latency_ms=4 ms,5 ms") == ("latency_ms", ("4", "5"))
    for text in ("madds=4.5 ms", "latency_ms=4.5 s", "energy_mj=3 ms"):
        with pytest.raises(BudgetError, match="a budget is a positive number"):
            read_budgets([text])


def test_budgets_by_name():
    assert read_budgets(["madds=40M", "latency_ms = 12.5", "params=40%"]) == {
        "madds": "40M", "latency_ms": "12.5", "params": "40%",
    }  # fmt: skip
    assert read_budgets([]) == {}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["madds"], "NAME=VALUE"),
        (["=40M"], "NAME=VALUE"),
        (["madds="], "NAME=VALUE"),
        (["madds=40M", "params=1M", "madds=50%"], "two budgets of madds are given, 40M and 50%; leave one out"),
        (["madds=101%"], "from 0% to 100%"),
        (["madds=many"], "a budget is a positive number"),
    ],
)
def test_budgets_by_name_that_cannot_be_read(texts, words):
    with pytest.raises(BudgetError, match=words) as caught:
        read_budgets(texts)
    assert "\n" not in str(caught.value)
