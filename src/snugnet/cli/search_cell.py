"""``snugnet search-cell``: a differentiable search for the cells of one network, under limits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import (
    STOPPED,
    BudgetOption,
    DeviceBudget,
    Json,
    ShortBudget,
    check_folder,
    emit,
    packaged_recipe,
    read_budgets,
    say,
    say_stopped,
)
from snugnet.errors import ConfigError

if TYPE_CHECKING:
    from snugnet.cell_search import CellSearchResult

RECIPES = {"darts": "dca-darts", "nas-bench-201": "dca-nas-bench-201"}
"""What a space is searched by where no recipe is given: as the papers do it."""

MEASURED = ("latency_ms", "energy_mj")


def search_cell(
    space: Annotated[str, typer.Argument(metavar="SPACE|RECIPE", help="darts, nas-bench-201, or a YAML file.")],
    out_folder: Annotated[
        Path,
        typer.Option(
            "--out", metavar="DIR", help="For the network, report, pictures and checkpoints; the same goes on."
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Change the recipe: search.epochs=10 search.method=darts space.cells=8."
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Images to search on; short for data.source=SOURCE.")
    ] = None,
    budget: BudgetOption = None,
    madds: ShortBudget = None,
    params: ShortBudget = None,
    latency_ms: DeviceBudget = None,
    energy_mj: DeviceBudget = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="That latency and energy are of; others as --budget latency_ms@NAME=N."),
    ] = None,
    at_least: Annotated[
        list[str] | None, typer.Option("--at-least", metavar="NAME=N", help="At least N of a cost, such as params=2M.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away an earlier search in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Search the cells of a network that keeps limits, and write the network; 'snugnet retrain' trains it.

    Weights and architecture are learned together (DCA-NAS). No test image is looked at; a search that was stopped goes on.
    """
    limits = read_budgets(budget, madds=madds, params=params, latency_ms=latency_ms, energy_mj=energy_mj)
    least = read_budgets(at_least) if at_least else {}
    if device is not None:
        if not any(name in MEASURED for name in (*limits, *least)):
            raise ConfigError(
                "--device says what latency or energy are of; give --latency-ms or --energy-mj, or leave it out"
            )
        limits, least = ({_on(name, device): n for name, n in each.items()} for each in (limits, least))
    check_folder(out_folder)
    path = packaged_recipe(RECIPES[space]) if space in RECIPES else Path(space)
    if space not in RECIPES and path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{space} is no space of cells and no YAML file; the spaces: {', '.join(RECIPES)}")
    from snugnet import cell_search
    from snugnet.config import read_config
    from snugnet.differentiable.config import CellRecipe
    from snugnet.differentiable.search import CHECKPOINT
    from snugnet.yaml_content import read_yaml

    content = read_yaml(path, [*([] if data is None else [f"data.source={data}"]), *(overrides or ())])
    for key, amounts in (("limits", limits), ("at_least", least)):
        if amounts:
            known = content.get(key) or {}
            if not isinstance(known, dict):
                raise ConfigError(f"{path}: {key} is {known!r}; amounts stand there by the names of their costs")
            content[key] = {**known, **amounts}
    recipe = read_config(CellRecipe, content, str(path))
    if not fresh and (out_folder / CHECKPOINT).exists():
        say(f"going on with the search in {out_folder} (--fresh starts anew)")
    try:
        result = cell_search.search_cells(recipe, out=out_folder, fresh=fresh)
    except KeyboardInterrupt:
        say_stopped(fresh)
        raise typer.Exit(STOPPED) from None
    if as_json:
        emit({"folder": str(out_folder), **result.to_json()})
    else:
        _show(result, out_folder)


def _on(name: str, device: str) -> str:
    return f"{name}@{device}" if name in MEASURED else name


def _show(result: CellSearchResult, folder: Path) -> None:
    from snugnet.costs import exact_amount

    network: Any = result.network
    for kind, cell in network.arch.items():
        print(f"{kind}: {cell}")
    for name, cost in network.costs.items():
        print(f"{name}: {exact_amount(cost)}")
    for limit, bound in zip(result.limits, result.bounds, strict=True):
        say(
            f"{limit.table.name} {'>=' if limit.at_least else '<='} {exact_amount(limit.amount)}: kept (the search was given "
            f"{exact_amount(bound)}; without limits it would be {exact_amount(result.unlimited[limit.table.name])})"
        )
    if result.found.ended:
        say(f"ended early: {result.found.ended}")
    say(
        f"{result.found.seconds:.0f} s; network: {folder}; train it with: snugnet retrain {folder} --from scratch --out DIR"
    )
