"""The laws that a space, a cost, a search method and a predictor must keep, for authors in and out of the tree.

    from snugnet.testing import check_space

    def test_my_space():
        check_space(MySpace.create(resolution=8, num_classes=4))

Each check raises a :class:`ContractError` that says which contract is broken and what was found.
"""

from snugnet.testing.contract import ContractError
from snugnet.testing.costs import check_cost
from snugnet.testing.methods import check_method
from snugnet.testing.predictors import check_predictor
from snugnet.testing.spaces import check_space

__all__ = ["ContractError", "check_cost", "check_method", "check_predictor", "check_space"]
