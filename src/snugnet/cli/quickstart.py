"""``snugnet quickstart``: the whole way on handwritten digits, with nothing to download."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

import snugnet
from snugnet.cli.common import Json, say
from snugnet.cli.train import Fresh, middle_budget, run
from snugnet.errors import ConfigError

RECIPE = "recipes/quickstart.yaml"


def quickstart(
    output: Annotated[str, typer.Option(metavar="DIR", help="Folder for the family and the results.")] = "runs/digits",
    fresh: Fresh = False,
    as_json: Json = False,
) -> None:
    """Train on handwritten digits (built in), specialise to three groups, write ONNX files and a figure."""
    from snugnet.recipe import load_recipe

    recipe = load_recipe(packaged_recipe()).model_copy(update={"output": output})
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


def packaged_recipe() -> Path:
    """The quickstart's recipe: of the checkout that this file is in, or as the wheel installed it.

    Raises:
        ConfigError: neither is there.
    """
    checkout = Path(snugnet.__file__).resolve().parents[2] / RECIPE
    if checkout.is_file():
        return checkout
    for file in metadata.files("snugnet") or ():
        if file.as_posix().endswith(f"share/snugnet/{RECIPE}"):
            return Path(str(file.locate()))
    raise ConfigError(f"{RECIPE} is not installed; install snugnet anew")
