"""``snugnet router``: superclasses that are not known beforehand: a small network tells them, specialised ones do the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import (
    BudgetOption,
    DeviceBudget,
    Json,
    ShortBudget,
    check_folder,
    emit,
    load_family,
    out,
    read_budgets,
    read_names,
    say,
)
from snugnet.cli.specialize import FamilyArgument
from snugnet.errors import ConfigError
from snugnet.texts import listed

if TYPE_CHECKING:
    from snugnet.family.text_table import TextTable

SPLITS = ("validation", "test")


def router(
    family: FamilyArgument,
    groups: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...|FILE",
            help="Superclasses to tell apart: some of the family's, or a JSON or YAML file of others, with the classes of each. All "
            "of the family's without it.",
        ),
    ] = None,
    budget: BudgetOption = None,
    madds: ShortBudget = None,
    params: ShortBudget = None,
    latency_ms: DeviceBudget = None,
    energy_mj: DeviceBudget = None,
    peak_memory: ShortBudget = None,
    weight_memory: ShortBudget = None,
    over: Annotated[
        str | None,
        typer.Option(
            metavar="sum|max",
            help="How a superclass's logit is made of those of its classes; without it, what does better on validation images.",
        ),
    ] = None,
    router_share: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            help="The router's share of what the budget leaves above the smallest route; without it, the best of five on validation images.",
        ),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Routers to judge beside the generator's own, and as many networks for all classes; 0: no search.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of every draw.")] = 0,
    report: Annotated[
        str,
        typer.Option(metavar="validation|test", help="Images to measure on; nothing is ever chosen on test images."),
    ] = "validation",
    data: Annotated[
        list[str] | None,
        typer.Option("-d", "--data", metavar="KEY=VALUE", help="Where the test images lie now: -d source=../images."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write router, networks, index and run.py here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a router over superclasses and the specialised networks behind it, within budgets of the whole route.

    The budget of a cost along the route (madds, latency_ms, energy_mj) is of the router and one network, that of the files (params,
    weight_memory) of all of them, that of peak_memory of each.
    """
    budgets = read_budgets(
        budget, madds=madds, params=params, latency_ms=latency_ms, energy_mj=energy_mj, peak_memory=peak_memory,
        weight_memory=weight_memory,
    )  # fmt: skip
    wanted = None if groups is None else read_superclasses(groups)
    if report not in SPLITS:
        raise ConfigError(f"--report is {' or '.join(SPLITS)}, got {report!r}")
    if data is not None and report != "test":
        raise ConfigError("--data goes with --report test")
    if out_folder is not None:
        from snugnet.routing.bundle import check_place

        check_place(check_folder(out_folder))
    loaded = load_family(family)

    import torch

    from snugnet import pipeline
    from snugnet.cli.evaluate import read_changes, test_images
    from snugnet.routing import making

    images = {"validation": loaded.validation}
    if report == "test":
        images["test"] = test_images(loaded, loaded.provenance, read_changes(data))
    loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    count = making.EVALUATIONS if evaluations is None else evaluations
    made = making.make_route(
        loaded, wanted, over=over, share=router_share, evaluations=count, seed=seed, progress=not as_json, **budgets  # type: ignore[arg-type]
    )  # fmt: skip
    measured = {split: made.measured(each.to(loaded.device)) for split, each in images.items()}
    about = {**made.to_json(), "measured": measured, "on": pipeline.machine()}
    if out_folder is not None:
        from snugnet.routing.bundle import write_route

        write_route(made, out_folder, {**measured, "on": about["on"]})
    if as_json:
        emit({**about, "out": None if out_folder is None else str(out_folder)})
        return
    for split in measured:
        out().print(table(about, split).rich())
    for line in lines(about):
        say(line)
    if out_folder is not None:
        say(
            f"wrote {out_folder}, whose files were run and agree with torch; run it: python {out_folder / 'run.py'} IMAGE ..."
        )


def read_superclasses(text: str) -> list[str] | dict[str, list[str]]:
    """Names of superclasses, or of a file of others.

    Raises:
        ConfigError: a name is empty.
        DataError: the file cannot be read, or is not of the form {superclass: [classes]}.
    """
    if text.endswith((".json", ".yaml", ".yml")):
        if not Path(text).expanduser().is_file():
            raise ConfigError(f"--groups: there is no file {text}")
        from snugnet.data.groups import read_grouping

        return read_grouping(text)
    return read_names(text)


def lines(about: dict[str, Any]) -> list[str]:
    """What was chosen, in words."""
    found = [
        f"the router is given {about['router_share']:.0%} of what the budget leaves above the smallest route, takes {about['router']['madds']:,} MAdds, "
        f"and tells a superclass by the {about['router']['over']} over its classes; {about['evaluated']} router{'s were' if about['evaluated'] > 1 else ' was'} judged on validation images"
    ]
    if about["classes_left_out"]:
        found.append(
            f"images of classes that are left out are sent to a superclass all the same: {listed(about['classes_left_out'])}"
        )
    return found


def table(about: dict[str, Any], split: str) -> TextTable:
    """The route beside one network for all classes, on a split."""
    from snugnet.family.text_table import TextTable, human, percent

    measured = about["measured"][split]
    route = measured["route"]
    body = [
        [
            "route", percent(route["top1"]), percent(route["router"]), percent(route["known_superclass"]), human(route["madds"]),
        ]
    ]  # fmt: skip
    names = {"generator": "one network, of the generator", "search": "one network, searched for"}
    for name, one in measured["one_network"].items():
        body.append([names[name], percent(one["top1"]), "", "", human(one["madds"])])
    limits = ", ".join(f"{name} <= {limit:,.12g}" for name, limit in about["budgets"].items())
    return TextTable(
        f"{about['family']}: {listed(about['superclasses'])}; {limits}; {route['images']} {split} images",
        ["", "accuracy", "of the superclass", "superclass known", "expected madds"],
        body,
        "accuracy: over all classes, end to end; superclass known: the specialised networks by themselves; expected madds: of the router, "
        "and the mean over the images of the network that each goes to",
    )
