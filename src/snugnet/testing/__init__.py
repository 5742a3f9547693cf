"""The laws that a space, a search method, a cost and a predictor must keep, for authors in and out of the tree.

    from snugnet.testing import check_space

    def test_my_space():
        check_space(MySpace.create(resolution=8, num_classes=4))

Each check raises a :class:`ContractError` that says which contract is broken and what was found.
"""

from snugnet.testing.contract import ContractError
from snugnet.testing.spaces import check_space

__all__ = ["ContractError", "check_space"]
