import math

import numpy as np
import pytest

from snugnet.costs import exact_amount, format_amount, parse_budget
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
    ["", "M", "1.5MB", "1,5M", "-3", "0", "0k", "nan", "inf", "1e999", "1.2.3", 0, -1, math.nan, math.inf, True, None, [],
     10**400],
)  # fmt: skip
def test_budgets_that_cannot(value):
    with pytest.raises(BudgetError, match="a budget is a positive number"):
        parse_budget(value)


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
    assert format_amount(-2500) == "-2.5k"
    assert parse_budget(format_amount(0.012345)) == 0.01234
