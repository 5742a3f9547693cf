# %% [markdown]
# # A search method of your own
#
# Halving: many architectures, then children of the better half of them, half as many, and so on. It is compared with random search at as many evaluations.
#
#     python examples/own_method.py [FAMILY]    # runs/digits without it

# %%
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

import snugnet
from snugnet.search.method import METHODS, Method, Round
from snugnet.spaces import Population
from snugnet.testing import check_method

FAMILY = sys.argv[1] if len(sys.argv) == 2 else "runs/digits"

# %% [markdown]
# A method is a frozen dataclass: its fields are its settings, plain data with defaults. A round proposes rows within all limits (`now.samples`,
# `now.children` give such) and then selects the survivors. All draws come from `now.rng`, so a search that is stopped goes on as if it had not been.


# %%
@dataclass(frozen=True)
class Halving(Method):
    """Half as many architectures each round, children of the best half of all before.

    Attributes:
        first: architectures of the first round.
    """

    name: ClassVar[str] = "halving"
    first: int = 32

    @property
    def rounds(self) -> int:
        return self.first.bit_length()

    @property
    def evaluations(self) -> int:
        return 2 * self.first

    def propose(self, now: Round) -> Population:
        n = max(1, self.first >> now.number)
        if now.number == 0:
            return now.samples(n)
        parents = now.archive.rows[now.survivors]

        def mutated(k: int, rng: np.random.Generator) -> Population:
            return now.problem.space.mutate(parents[rng.integers(len(parents), size=k)], 0.1, rng)

        return now.children(n, set(), mutated)

    def select(self, now: Round, pool: NDArray[np.intp]) -> NDArray[np.intp]:
        best = np.argsort(-now.archive.scores[pool], kind="stable")
        return pool[best[: max(1, len(pool) // 2)]]


METHODS.add("halving", Halving)  # in a package of yours an entry point does this
check_method(Halving(first=16))
print("halving keeps every law of a search method")

# %%
family = snugnet.load(FAMILY)
group = next(iter(family.groups))
for name, settings in {"halving": {"first": 16}, "random": {"samples": 32}}.items():
    found = snugnet.search_family(family, name, group=group, budgets={"madds": "40%"}, progress=False, **settings)
    best, evaluated = found.winners()[0], len(found.result.archive)
    print(f"{name}: {evaluated} evaluated, best {best['accuracy']:.1%} at {best['costs']['madds']:,} MAdds")
