"""``snugnet cost``: exact counts of architectures in files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from snugnet.spaces import get_space

SPACE = "ofa-mobilenet-v3"
SMALLEST = {
    "width_mult": 1.0,
    "resolution": 224,
    "depth": [2] * 5,
    "kernel_size": [[3, 3]] * 5,
    "expand_ratio": [[3, 3]] * 5,
}


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def make(content: Any, name: str = "arch.json") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return path

    return make


COSTS = {
    "activations": 3502728,
    "madds": 121278672,
    "params": 3410792,
    "peak_memory": 3211264,  # 112 x 112 pixels of 16 channels, and of the 48 that they are expanded to, 4 bytes each
    "peak_memory_int8": 802816,
    "weight_memory": 13619296,
    "weight_memory_int8": 3431728,
}


def test_one_architecture(snugnet: Any, write: Any) -> None:
    assert snugnet("cost", SPACE, "--arch", write(SMALLEST), "--json").json == COSTS


def test_as_a_process_it_prints_the_json_and_imports_no_torch(write: Any) -> None:
    code = (
        "import sys; from snugnet.cli.main import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'matplotlib', 'datasets'} & set(sys.modules)), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "cost", SPACE, "--arch", str(write(SMALLEST)), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == COSTS
    assert done.stderr == "[]\n"


def test_published_networks(snugnet: Any) -> None:
    beside = Path(__file__).resolve().parents[3] / "shared"
    path = Path(os.environ.get("SNUGNET_SHARED", beside)) / "data" / SPACE / "specialized_nets.json"
    if not path.is_file():
        pytest.skip(f"no published networks at {path}; set SNUGNET_SHARED to the folder that holds data/")
    published = json.loads(path.read_text(encoding="utf-8"))
    counted = snugnet("cost", SPACE, "--arch", path, "--json").json
    assert {name: {key: each[key] for key in ("madds", "params")} for name, each in counted.items()} == {
        name: {"madds": net["macs"], "params": net["params"]} for name, net in published.items()
    }


def test_models_of_another_space(snugnet: Any, write: Any, shared_folder: Path) -> None:
    """Published files state more than the architecture; the resolution is one of its choices."""
    models = json.loads((shared_folder / "data" / "attentive-nas" / "models.json").read_text())["models"]
    costs = snugnet("cost", "attentive-nas", "--arch", write(models), "--json").json
    assert {name: each["madds"] for name, each in costs.items()} == {
        "a0": 203_389_568, "a2": 316_730_080, "a6": 709_007_232,
    }  # fmt: skip
    assert snugnet("cost", "attentive-nas", "--arch", write(models["a0"]), "--json").json == costs["a0"]
    assert "lacks 'depth'" in snugnet("cost", SPACE, "--arch", write({"width_mult": 1.0})).error


def test_architectures_of_other_programs(snugnet: Any, write: Any, cases: Path) -> None:
    arch = json.loads((cases / "ofa-ks-e-d.json").read_text())
    space = get_space(SPACE)
    counted = snugnet("cost", SPACE, "--arch", cases / "ofa-ks-e-d.json", "--json").json
    assert counted["madds"] == space.blueprint(space.from_dict(arch)).madds
    at160 = snugnet("cost", SPACE, "--arch", write({**arch, "r": [160]}), "--json").json
    assert at160["madds"] == get_space(SPACE, resolution=160).blueprint(space.from_dict(arch)).madds
    ten = snugnet("cost", SPACE, "--arch", write({**arch, "num_classes": 10}), "--json").json
    assert counted["params"] - ten["params"] == 990 * 1281
    thousand = write({**arch, "num_classes": 1000})
    assert snugnet("cost", SPACE, "--arch", thousand, "--num-classes", "10", "--json").json == ten


def test_a_misspelt_key_is_no_default(snugnet: Any, write: Any) -> None:
    error = snugnet("cost", "spos-shufflenet-v2", "--arch", write({"blocks": [0] * 20, "chanels": [0.6] * 20})).error
    assert "no key 'chanels' in an architecture; did you mean 'channels'?" in error


def test_people_get_a_table(snugnet: Any, write: Any) -> None:
    done = snugnet("cost", SPACE, "--arch", write({"small [one]": SMALLEST}))
    assert done.code == 0
    assert "small [one]" in done.out
    assert "121,278,672" in done.out


def test_classes_and_options(snugnet: Any, write: Any) -> None:
    path = write({key: value for key, value in SMALLEST.items() if key not in ("width_mult", "resolution")})
    plain = snugnet("cost", SPACE, "--arch", path, "--json").json
    ten = snugnet("cost", SPACE, "--arch", path, "--num-classes", "10", "--json").json
    assert plain["params"] - ten["params"] == 990 * 1281
    assert ten == snugnet("cost", SPACE, "--arch", path, "-o", "num_classes=10", "--json").json
    small = snugnet(
        "cost", SPACE, "--arch", path, "-o", "resolution=32", "-o", "stage_strides=[1,2,2,1,2]", "--json"
    ).json
    assert small["params"] == plain["params"]
    assert small["madds"] < plain["madds"]


def test_an_option_may_repeat_what_the_file_says(snugnet: Any, write: Any) -> None:
    done = snugnet("cost", SPACE, "--arch", write(SMALLEST), "-o", "width_mult=1.0", "-o", "resolution=224", "--json")
    assert done.json["madds"] == 121278672


@pytest.mark.parametrize("name", [SPACE, "mobilenet-v2"])
def test_a_resolution_that_is_a_choice(snugnet: Any, write: Any, name: str) -> None:
    space = get_space(name, resolutions=[128, 160])
    arch = write(space.to_dict(space.smallest))
    done = snugnet("cost", name, "--arch", arch, "-o", "resolutions=[128,160]", "--json")
    assert done.json["madds"] == space.blueprint(space.smallest).madds
    fixed = get_space(name, resolution=128)
    assert done.json["madds"] == fixed.blueprint(fixed.smallest).madds


def test_whole_numbers_may_be_written_as_floats(snugnet: Any, write: Any) -> None:
    path = write({**SMALLEST, "depth": [2.0] * 5})
    assert snugnet("cost", SPACE, "--arch", path, "--json").json["madds"] == 121278672


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("NaN", "NaN is not a number"),
        ("[1, 2]", "holds a list"),
        ("null", "holds a NoneType"),
        ("{}", "lacks 'depth'"),
        ({"a": {}}, "a: the architecture lacks 'depth'"),
        ({"a": SMALLEST, "b": {**SMALLEST, "depth": [2, 2, 2, 2, 9]}}, "b: stage5.depth = 9 is not in this space; allowed: [2, 3, 4]"),
        ({**SMALLEST, "depth": [2] * 4}, "depth has 5 entries, got 4"),
        ({**SMALLEST, "depth": 2}, "depth is a list"),
        ({**SMALLEST, "depth": [None] * 5}, "allowed: [2, 3, 4]"),
        ({**SMALLEST, "depth": [[2]] * 5}, "allowed: [2, 3, 4]"),
        ({**SMALLEST, "depth": [{}] * 5}, "allowed: [2, 3, 4]"),
        ({**SMALLEST, "kernel_size": [[3]] * 5}, "1 entries for a depth of 2"),
        ({**SMALLEST, "kernel_size": [[3, 4]] * 5}, "allowed: [3, 5, 7]"),
        ({**SMALLEST, "kernel_size": "33"}, "kernel_size is a list"),
        ({**SMALLEST, "kernel_size": [[[3], [3]]] * 5}, "allowed: [3, 5, 7]"),
        ({**SMALLEST, "expand_ratio": [3] * 5}, "expand_ratio of stage 1 is a list"),
        ({**SMALLEST, "width_mult": "1.0"}, "width_mult is a number"),
        ({**SMALLEST, "width_mult": -1}, "width_mult is a number in (0, 8]"),
        ({**SMALLEST, "resolution": 224.5}, "resolution is a whole number"),
        ({**SMALLEST, "resolution": None}, "has resolution None, this space 224"),
        ({**SMALLEST, "resolution": 0}, "resolution is a whole number of at least 1"),
    ],
)  # fmt: skip
def test_wrong_files(snugnet: Any, write: Any, content: Any, says: str) -> None:
    path = write(content)
    error = snugnet("cost", SPACE, "--arch", path, "--json").error
    assert says in error
    assert str(path) in error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-o", "width_mult=1.2"], "width_mult is 1.0 there and 1.2 in -o; leave out -o width_mult"),
        (["-o", "width"], "settings are key=value, got 'width'"),
        (["-o", "width=1"], "unknown option 'width' of space ofa-mobilenet-v3; allowed: width_mult, resolution"),
        (["-o", "stem_stride=3"], "strides are 1 or 2"),
        (["-o", "stem_stride=[1]"], "strides are 1 or 2"),
        (["-o", "stem_stride=1.0"], "strides are 1 or 2"),
        (["-o", "stage_strides=2"], "stage_strides is a list"),
        (["-o", "stage_strides=[2,2]"], "stage_strides has 5 entries"),
        (["-o", "depths=[]"], "depths is a rising list"),
        (["-o", "depths=[4,2]"], "depths is a rising list"),
        (["-o", "kernel_sizes=[-1,3]"], "kernel_sizes is a rising list"),
        (["-o", "expand_ratios=[3,.inf]"], "expand_ratios is a rising list"),
        (["-o", "num_classes=10", "-o", "num_classes=11"], "-o gives num_classes twice"),
        (["-o", "num_classes=10", "--num-classes", "11"], "--num-classes is 11 and -o num_classes 10"),
        (["-o", "num_classes=ten"], "num_classes is a whole number"),
        (["-o", "name=x"], "unknown option 'name'"),
        (["-o", "cls=x"], "unknown option 'cls'"),
        (["-o", "width_mult=[1"], "is not YAML"),
    ],
)
def test_wrong_options(snugnet: Any, write: Any, options: list[str], says: str) -> None:
    assert says in snugnet("cost", SPACE, "--arch", write(SMALLEST), *options).error


def test_wrong_names_and_paths(snugnet: Any, write: Any, tmp_path: Path) -> None:
    assert (
        "unknown space 'ofa'; known: attentive-nas, darts, mobilenet-v2, nas-bench-201, ofa-mobilenet-v3"
        in snugnet("cost", "ofa", "--arch", write(SMALLEST)).error
    )
    assert "cannot read nowhere.json: No such file" in snugnet("cost", SPACE, "--arch", "nowhere.json").error
    assert "Is a directory" in snugnet("cost", SPACE, "--arch", tmp_path).error
    (tmp_path / "binary.json").write_bytes(b"\xff\x00")
    assert "binary.json is not UTF-8 text" in snugnet("cost", SPACE, "--arch", "binary.json").error


CELL = {"arch_str": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"}
NO_PATH = {"arch_str": "|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"}


COUNTED = {
    "activations": 2107530,
    "madds": 184730240,
    "params": 1288506,
    "peak_memory": 327680,
    "peak_memory_int8": 81920,
    "weight_memory": 5142504,
    "weight_memory_int8": 1295448,
}
"""Of the cell, on CIFAR-10."""


def test_costs_on_devices(snugnet: Any, write: Any) -> None:
    path = write({"best": CELL, "empty": NO_PATH})
    arguments = ("cost", "nas-bench-201", "--arch", path, "--device", "edgetpu", "--device", "fpga")
    done = snugnet(*arguments, "--json")
    assert done.json["best"] == {
        **COUNTED,
        "latency_ms@edgetpu": 1.475253,
        "latency_ms@fpga": 7.42096,
        "energy_mj@fpga": 51.94672,
    }
    assert done.json["empty"]["latency_ms@edgetpu"] is None
    assert done.err == "empty: latency_ms@edgetpu was not measured for this architecture\n"
    shown = snugnet(*arguments).out
    assert "energy_mj@fpga" in shown
    assert "51.94672" in shown
    one = snugnet("cost", "nas-bench-201", "--arch", write(CELL), "--device", "raspi4", "--json").json
    assert one == {**COUNTED, "latency_ms@raspi4": 80.400089}


def test_costs_on_devices_go_by_the_data_set(snugnet: Any, write: Any) -> None:
    arguments = ("cost", "nas-bench-201", "--arch", write(CELL), "--device", "raspi4", "--json")
    hundred = snugnet(*arguments, "--num-classes", "100").json["latency_ms@raspi4"]
    assert hundred == snugnet(*arguments, "--num-classes", "7", "--dataset", "cifar100").json["latency_ms@raspi4"]
    assert "got num_classes 7; networks were measured with" in snugnet(*arguments, "--num-classes", "7").error


@pytest.mark.parametrize(
    ("space", "arguments", "says"),
    [
        ("nas-bench-201", ["--device", "pi"], "unknown device 'pi'; known: edgegpu, raspi4"),
        ("nas-bench-201", ["--device", "fpga", "--dataset", "x"], "unknown data set 'x'; measured: cifar10"),
        ("nas-bench-201", ["--device", "fpga", "-o", "cells=1"], "got cells 1; networks were measured with"),
        ("nas-bench-201", ["--dataset", "cifar10"], "give --device as well"),
        (SPACE, ["--device", "fpga"], "were measured of the cells of nas-bench-201, got ofa-mobilenet-v3"),
    ],
)
def test_devices_that_were_not_measured(snugnet: Any, write: Any, space: str, arguments: list[str], says: str) -> None:
    arch = CELL if space == "nas-bench-201" else SMALLEST
    assert says in snugnet("cost", space, "--arch", write(arch), *arguments, "--json").error
