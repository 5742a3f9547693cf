"""``snugnet recipe``: what a recipe can say, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import Json, emit, packaged_recipe
from snugnet.errors import ConfigError

if TYPE_CHECKING:
    from snugnet.config import Config

app = typer.Typer(help="Show recipes.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def show(
    recipe: Annotated[
        str,
        typer.Argument(
            help="YAML file of 'snugnet train', 'search-cell' or 'study', or the name of a recipe that is installed."
        ),
    ] = "quickstart",
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Change the recipe: training.batch_size=64.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show every key of a recipe, defaults filled in, below what it is for: YAML that loads again."""
    from snugnet.commented import commented

    if not recipe or ("=" in recipe and not Path(recipe).exists()):
        raise ConfigError("the recipe comes first, then KEY=VALUE: recipe show quickstart training.batch_size=64")
    path = Path(recipe)
    config = read(path if path.suffix or path.exists() else packaged_recipe(recipe), overrides or [])
    if as_json:
        emit(config.model_dump(mode="json"))
    else:
        print(commented(config, space_options(config)), end="")


def read(path: Path, overrides: list[str]) -> Config:
    """A recipe of whichever command it is for.

    Raises:
        ConfigError: the file, a key or a value is wrong.
    """
    from snugnet.config import read_config
    from snugnet.recipe import parse_recipe
    from snugnet.yaml_content import read_yaml

    content = read_yaml(path, overrides)
    if "supernets" in content:
        from snugnet.study.config import load_study

        return load_study(path, overrides)
    if "search" in content and "training" not in content:
        from snugnet.differentiable.config import CellRecipe

        return read_config(CellRecipe, content, str(path))
    return parse_recipe(content, str(path))


def space_options(config: Any) -> dict[str, str]:
    """What the search space of a recipe says of its options."""
    from snugnet.commented import entries
    from snugnet.spaces import space_class

    space = getattr(config, "space", None)
    return {} if space is None else entries(space_class(space.name).__doc__ or "", "Options")
