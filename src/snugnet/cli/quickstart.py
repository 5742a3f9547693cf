"""``snugnet quickstart``: the whole way on handwritten digits, with nothing to download."""

from __future__ import annotations

from typing import Annotated

import typer

from snugnet.cli.common import Json, packaged_recipe, say
from snugnet.cli.train import Fresh, middle_budget, run

RECIPE = "quickstart"


def quickstart(
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder for the family and the results.")] = "runs/digits",
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train on handwritten digits (built in), specialise to three groups, write ONNX files and a figure."""
    from snugnet.recipe import load_recipe

    recipe = load_recipe(packaged_recipe(RECIPE)).model_copy(update={"output": output})
    report = run(recipe, fresh=fresh, as_json=as_json)
    if not as_json:
        from snugnet.family.text_table import human

        budget = human(middle_budget(report))
        say(
            f"""next:
  snugnet specialize {output} --group curvy --madds {budget} --out curvy.onnx
  snugnet specialize {output} --classes 1,3,8 --madds {budget} --best-of 8
  snugnet evaluate {output} --budgets 6
  snugnet space show ofa-mobilenet-v3"""
        )
