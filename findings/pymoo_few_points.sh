#!/usr/bin/env bash
# pymoo 0.6.2: where a space has fewer distinct points than the population, a run ends after the first generation, silently.
#
# Source: pymoo, pymoo/algorithms/base/genetic.py, `_infill` (`self.termination.force_termination = True` when mating gives no
#         new individual); documentation, "Termination": `('n_gen', 30)` ends a run after 30 generations.
# Date:   2026-11-27
# Guess:  30 generations of 20 individuals, as asked; or a word about why not.
# Seen:   of the nine points of a 3 x 3 grid the population has nine, and the run stops when the second generation finds no
#         tenth. `message` and `success` of the result are None, as after a full run: code that counts on n_gen x pop_size
#         evaluations, or on a population of pop_size, is wrong without notice.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet pymoo==0.6.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" - <<'PYTHON'
import numpy as np
from pymoo.algorithms.moo.nsga2 import NSGA2
from pymoo.core.problem import Problem
from pymoo.operators.crossover.sbx import SBX
from pymoo.operators.mutation.pm import PM
from pymoo.operators.repair.rounding import RoundingRepair
from pymoo.operators.sampling.rnd import IntegerRandomSampling
from pymoo.optimize import minimize


class Grid(Problem):
    """Two whole numbers from 0 to `top`; two distances to minimise."""

    def __init__(self, top):
        super().__init__(n_var=2, n_obj=2, xl=0, xu=top, vtype=int)

    def _evaluate(self, x, out, *args, **kwargs):
        out["F"] = np.stack([(x**2).sum(1), ((x - 9) ** 2).sum(1)], 1)


found = {}
for top in (9, 2):
    whole = {"vtype": float, "repair": RoundingRepair()}
    method = NSGA2(20, sampling=IntegerRandomSampling(), crossover=SBX(**whole), mutation=PM(**whole))
    result = minimize(Grid(top), method, ("n_gen", 30), seed=1)
    found[top] = (result.algorithm.n_gen - 1, len(result.pop), result.message, result.success)
    generations, size, message, success = found[top]
    print(f"{(top + 1) ** 2:3} points: {generations} generations, population {size}, {message=}, {success=}")

assert found[9] == (30, 20, None, None), found
assert found[2] == (2, 9, None, None), found
PYTHON
