"""``snugnet export``: a network on disk, or one that a family hands out, as a file for a device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from snugnet.cli.common import (
    BestOf,
    BudgetOption,
    ClassesOption,
    DeviceBudget,
    GroupOption,
    Json,
    ShortBudget,
    check_file,
    emit,
    load_family,
    read_budgets,
    read_group,
    say,
)
from snugnet.cli.evaluate import images_for_ranges, read_changes, test_images
from snugnet.cli.int8 import as_json as beside_as_json
from snugnet.cli.int8 import compare, images_to_judge_on, say_precisions
from snugnet.cli.int8 import show as show_beside
from snugnet.cli.specialize import describe, show
from snugnet.errors import ConfigError

if TYPE_CHECKING:
    from snugnet.family import Classifier


def export(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DIR", help="Folder of a network (of 'snugnet retrain'), or of a family, or USER/NAME on the hub."
        ),
    ],
    out_file: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The file to write: .onnx, or .pt2 for torch.export.")
    ],
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
    precision: Annotated[
        str,
        typer.Option(help="Of an .onnx file: float32, float16 or int8; inputs and outputs are float32 in all of them."),
    ] = "float32",
    int8: Annotated[bool, typer.Option("--int8", help="Short for --precision int8.")] = False,
    opset: Annotated[
        int | None,
        typer.Option(
            help="Of an .onnx file, 14 to 21; with 21, weights trained at four bits or less take half a byte. 17 without it."
        ),
    ] = None,
    ir_version: Annotated[
        int | None, typer.Option(help="Of an .onnx file; the least that the opset allows without it: 8 for opset 17.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("-d", "--data", metavar="KEY=VALUE", help="With int8: where the images lie: -d source=../images."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a network as a file, checked against torch before it is written.

    Of a family, the options choose the network as 'snugnet specialize' does; a network on disk is written as it is.
    """
    budgets = read_budgets(
        budget, madds=madds, params=params, latency_ms=latency_ms, energy_mj=energy_mj, peak_memory=peak_memory,
        weight_memory=weight_memory,
    )  # fmt: skip
    wanted = read_group(group, classes)
    check_file(out_file)
    if int8 and precision not in ("float32", "int8"):
        raise ConfigError(f"--int8 and --precision {precision} are both given; leave one out")
    options = {"precision": "int8" if int8 else precision, "opset": opset, "ir_version": ir_version}
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    from snugnet.deploy import FileOptions

    FileOptions(**given).check(out_file)
    int8 = options["precision"] == "int8"
    if data is not None and not int8:
        raise ConfigError("--data goes with int8: it says where its images lie")
    from snugnet.family.stored import holds_network, load_network

    network: Classifier
    if holds_network(source):
        if wanted is not None or budgets or best_of > 1:
            raise ConfigError(f"{source} is one network; classes, budgets and --best-of choose a network of a family")
        network = load_network(source)
        ranges, images = None, None
        if int8:
            changes = read_changes(data)
            ranges = images_for_ranges(network, changes)
            images = test_images(network.family, network.provenance, changes), "test images"
    elif wanted is None:
        load_family(source)  # what is no family is said first
        raise ConfigError(f"{source} is a family; say which network by --group or --classes")
    else:
        family = load_family(source)
        network, ranges = family.specialize(wanted, best_of=best_of, **budgets), None
        images = images_to_judge_on(family, data) if int8 else None
        say_precisions(network, family, str(options["precision"]))
    network.export(out_file, images=ranges, **given)
    beside = None if images is None else compare(network, out_file, images[0])
    size = out_file.stat().st_size
    if as_json:
        told = {} if images is None or beside is None else {"int8": beside_as_json(beside, images[1])}
        emit({**describe(network), **told, "precision": options["precision"], "file": str(out_file), "bytes": size})
        return
    show(describe(network))
    say(f"wrote {out_file}, {size:,} bytes, which was run and agrees with {'the float32 file' if int8 else 'torch'}")
    if images is not None and beside is not None:
        show_beside(beside, images[1])
