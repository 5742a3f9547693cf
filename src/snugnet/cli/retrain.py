"""``snugnet retrain``: training one network by itself: of a family, or one that lies on disk."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.bundles import NETWORK
from snugnet.cli.common import (
    STOPPED,
    BestOf,
    BudgetOption,
    ClassesOption,
    DeviceBudget,
    GroupOption,
    Json,
    ShortBudget,
    check_folder,
    emit,
    load_family,
    read_budgets,
    read_group,
    say,
    say_stopped,
)
from snugnet.cli.specialize import describe, show
from snugnet.errors import ConfigError, SpaceError

if TYPE_CHECKING:
    from snugnet.family import StoredNetwork


class Start(StrEnum):
    """What a retraining begins from."""

    inherited = "inherited"
    scratch = "scratch"


def retrain(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            help="Folder of a family or of one network, or USER/NAME of a family on the Hugging Face hub.",
        ),
    ],
    out_folder: Annotated[
        Path,
        typer.Option("--out", metavar="DIR", help="For the network, its checkpoint and its log; the same goes on."),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Change the recipe: retraining.inherited.learning_rate=0.01 data.source=../images augment.flip=true.",
        ),
    ] = None,
    arch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file with the architecture in the space's form, or what 'snugnet search' or 'specialize --json' wrote.",
        ),
    ] = None,
    group: GroupOption = None,
    classes: ClassesOption = None,
    budget: BudgetOption = None,
    madds: ShortBudget = None,
    params: ShortBudget = None,
    latency_ms: DeviceBudget = None,
    energy_mj: DeviceBudget = None,
    peak_memory: ShortBudget = None,
    weight_memory: ShortBudget = None,
    best_of: BestOf = 1,
    start: Annotated[
        Start,
        typer.Option(
            "--from", help="The weights that there are, with a family's largest network as teacher; or fresh ones."
        ),
    ] = Start.inherited,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the training images of the classes; the recipe's without it.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Throw away an earlier retraining in --out.")] = False,
    as_json: Json = False,
) -> None:
    """Train the network of an architecture, or of a group under budgets, by itself; stopped, the same command goes on.

    With --arch, and neither --group nor --classes, it tells all classes of the family apart. A network on disk is trained as it
    is. No test image is looked at.
    """
    budgets = read_budgets(
        budget, madds=madds, params=params, latency_ms=latency_ms, energy_mj=energy_mj, peak_memory=peak_memory,
        weight_memory=weight_memory,
    )  # fmt: skip
    wanted = read_group(group, classes)
    if arch is not None and (budgets or best_of > 1):
        raise ConfigError("--arch gives the architecture: leave out budgets and --best-of, or --arch")
    architecture = None if arch is None else read_one_architecture(arch)
    check_folder(out_folder)
    from snugnet import retraining
    from snugnet.family.stored import holds_network

    of_family = not holds_network(source)
    if of_family and arch is None and wanted is None:
        raise ConfigError("give an architecture by --arch, or the classes by --group or --classes")
    loaded = load_family(source) if of_family else source
    if not fresh and (out_folder / NETWORK.checkpoint).exists():
        say(f"going on with the retraining in {out_folder} (--fresh starts anew)")
    try:
        network = retraining.retrain(
            loaded, out=out_folder, arch=architecture, group=wanted, start=start.value, epochs=epochs,
            overrides=overrides or (), best_of=best_of, fresh=fresh, **budgets,
        )  # fmt: skip
    except SpaceError as error:
        raise error if arch is None else SpaceError(f"{arch}: {error}") from error
    except KeyboardInterrupt:
        say_stopped(fresh)
        raise typer.Exit(STOPPED) from None
    if as_json:
        about = ("start", "settings", "images", "validation", "seconds")
        emit(
            {
                "folder": str(out_folder),
                **describe(network),
                "bytes": network.sizes,
                **{key: network.provenance[key] for key in about},
            }
        )
        return
    show(describe(network))
    sizes = network.sizes
    packed = "" if sizes["stored"] == sizes["float32"] else f", {sizes['float32']:,} in float"
    say(f"{summary(network)}\nnetwork: {out_folder} (weights: {sizes['stored']:,} bytes{packed})")


def read_one_architecture(path: Path) -> dict[str, Any]:
    """The architecture in a file: bare, as ``architecture`` of what a command wrote, or of its only winner.

    Raises:
        ConfigError: there is none, or there are several.
    """
    from snugnet.spaces import read_architectures

    found = list(read_architectures(path).values())
    if len(found) != 1:
        raise ConfigError(f"{path} holds {len(found)} architectures; give a file with one")
    return found[0]


def summary(network: StoredNetwork) -> str:
    """How it was trained, and what came of it."""
    about = network.provenance
    before, after = about["validation"]["start"], about["validation"]["accuracy"]
    text = f"{about['settings']['epochs']:g} epochs of {about['images']['train']} images in {about['seconds']:.1f} s"
    if after is None:
        return f"{text}; there are no validation images to judge on"
    inherited = "" if before is None else f", {before:.1%} before"
    return f"{text}; accuracy on {about['images']['validation']} validation images {after:.1%}{inherited}"
