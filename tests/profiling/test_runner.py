"""The runner of a bundle: by itself, killed, gone on with, and on bundles that are not whole."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from snugnet.costs.units import distinct_blocks
from snugnet.errors import ConfigError
from snugnet.profiling import runner
from snugnet.profiling.readings import read_measured
from snugnet.profiling.writing import drawn_networks, write_bundle
from snugnet.spaces import SearchSpace, get_space

SPACE = get_space(
    "ofa-mobilenet-v3", width_mult=0.1, resolution=9, num_classes=4, stem_stride=1, stage_strides=(2, 1, 1, 1, 1),
    depths=(1,), kernel_sizes=(3,), expand_ratios=(2, 3),
)  # fmt: skip
NETWORKS = 4
FAST = ("--rounds", "2", "--seconds", "0.0005")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle; tests copy it before they change it."""
    return write_bundle(SPACE, (2,), tmp_path_factory.mktemp("bundle") / "b", networks=NETWORKS, progress=False)


@pytest.fixture
def bundle(written: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(written, tmp_path / "bundle"))


def run(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The runner as it is on a device: its own file, in Python without this package."""
    command = [sys.executable, "-I", str(bundle / "runner.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=bundle.parent)


def error(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines)) == (2, 1), done.stderr
    return lines[0]


def test_the_runner_needs_numpy_and_onnxruntime_alone(bundle: Path) -> None:
    code = "import sys, runner; runner.main(sys.argv[1:]); print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'onnx', 'snugnet'}))"
    done = subprocess.run(
        [sys.executable, "-c", code, *FAST],
        capture_output=True,
        text=True,
        check=True,
        cwd=bundle,
        env={"PYTHONPATH": str(bundle)},
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_row_a_file_and_what_it_was_measured_on(bundle: Path) -> None:
    done = run(bundle, *FAST)
    assert done.returncode == 0, done.stderr
    table = read_measured(Path(done.stdout.strip()), "ms")
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert table.values.keys() == manifest["files"].keys()
    assert len(table.values) == len(distinct_blocks(SPACE, (2,), 1)) + NETWORKS
    assert table.about["batch"] == table.about["threads"] == "1"
    assert table.about["networks"] == str(NETWORKS)
    assert table.about["runtime"].startswith("onnxruntime ")
    assert time.strftime("%Y-%m") in table.about["date"]
    networks = [value for name, value in table.values.items() if name.startswith("network")]
    blocks = [value for name, value in table.values.items() if name.startswith("block")]
    assert min(networks) > np.median(blocks)


def test_files_that_old_runtimes_take_with_a_batch_that_is_fixed(tmp_path: Path) -> None:
    folder = write_bundle(SPACE, (), tmp_path / "b", batch=3, networks=1, progress=False)
    for path in folder.glob("*.onnx"):
        model = onnx.load(path)
        assert model.ir_version == 8
        assert [each.version for each in model.opset_import] == [17]
        (entry,) = model.graph.input
        assert entry.type.tensor_type.shape.dim[0].dim_value == 3


def test_blocks_of_every_space_run(tiny_space: SearchSpace, tmp_path: Path) -> None:
    folder = write_bundle(tiny_space, (), tmp_path / "b", networks=1, progress=False)
    names = sorted(json.loads((folder / "manifest.json").read_text())["files"])
    for name in names[:: max(1, len(names) // 12)]:
        assert runner.Timed(folder / f"{name}.onnx", runner.Settings()).ms > 0


def test_a_runner_that_is_killed_goes_on(bundle: Path) -> None:
    command = [sys.executable, "-I", str(bundle / "runner.py"), "--rounds", "400", "--seconds", "0.0005"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = bundle / runner.READINGS
    while not log.is_file() or log.read_text().count("\n") < 30:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (bundle / runner.MEASURED).exists()
    before = log.read_text()
    whole = before[: before.rindex("\n") + 1]
    log.write_text(whole + "0,block-0123")  # cut off in the middle of a line
    done = run(bundle, "--rounds", "2", "--seconds", "0.0005")
    assert done.returncode == 0, done.stderr
    after = log.read_text()
    assert after.startswith(whole)
    assert "block-0123," not in after
    names = json.loads((bundle / "manifest.json").read_text())["files"]
    readings = [line.split(",")[:2] for line in after.splitlines() if not line.startswith(("#", "round"))]
    assert {tuple(each) for each in readings if each[0] in "01"} == {(r, name) for r in "01" for name in names}
    assert len({tuple(each) for each in readings}) == len(readings)


def test_readings_with_other_settings_are_not_mixed(bundle: Path) -> None:
    assert run(bundle, *FAST).returncode == 0
    assert "was read with threads '1', now it is '2'; --fresh throws it away" in error(
        run(bundle, *FAST, "--threads", "2")
    )
    assert run(bundle, *FAST, "--threads", "2", "--fresh").returncode == 0


def test_a_bundle_that_is_not_whole(bundle: Path) -> None:
    path = sorted(bundle.glob("*.onnx"))[0]
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    assert f"{path.name} is truncated or altered" in error(run(bundle))
    path.unlink()
    assert f"lacks {path.name}; copy the whole folder" in error(run(bundle))
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))
    assert "is a bundle of version 2, this runner takes 1" in error(run(bundle))
    (bundle / "manifest.json").write_text("{}")
    assert "is not the manifest of a bundle" in error(run(bundle))
    assert not (bundle / runner.READINGS).exists()


@pytest.mark.parametrize(("option", "value"), [("--threads", "0"), ("--rounds", "0"), ("--seconds", "nan")])
def test_settings_that_are_none(bundle: Path, option: str, value: str) -> None:
    assert "at least one thread and one round" in error(run(bundle, option, value))


def test_a_provider_and_a_meter_that_are_not_there(bundle: Path, tmp_path: Path) -> None:
    assert "cannot use TensorrtExecutionProvider here; --provider is one of" in _last(
        run(bundle, "--provider", "TensorrtExecutionProvider")
    )
    with pytest.raises(runner.RunnerError, match="no RAPL here"):
        runner._rapl(tmp_path)
    assert not (bundle / runner.READINGS).exists()


def _last(done: subprocess.CompletedProcess[str]) -> str:
    """The error; ONNX Runtime may have written a warning of its own before it."""
    assert done.returncode == 2, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_the_least_time_does_not_see_a_jump_of_the_clock() -> None:
    assert runner.least([1.0, 1.1, 0.2, 1.2, 50.0]) == 1.0
    assert runner.least([3.0]) == 3.0


def test_rapl_counts_all_packages_and_goes_round(tmp_path: Path) -> None:
    for i, energy in enumerate((900_000, 100_000)):
        package = tmp_path / f"intel-rapl:{i}"
        package.mkdir()
        (package / "max_energy_range_uj").write_text("1000000\n")
        (package / "energy_uj").write_text(f"{energy}\n")
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of a package, which counts already
    read = runner._rapl(tmp_path)
    assert read() == 0
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000\n")  # past its end, by 0.2 J
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("150000\n")
    assert read() == pytest.approx(200 + 50)
    assert read() == pytest.approx(250)


def test_nvml_counts_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a stand-in for the driver's library, which this machine need not have."""
    counted = iter([1000, 1000, 1450])

    class Library:
        def nvmlInit_v2(self) -> int:
            return 0

        def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: Any) -> int:
            return 0

        def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, value: Any) -> int:
            value._obj.value = next(counted)
            return 0

    monkeypatch.setattr(runner.ctypes, "CDLL", lambda name: Library())
    read = runner._nvml()
    assert [read(), read()] == [1000, 1450]
    monkeypatch.setattr(Library, "nvmlDeviceGetTotalEnergyConsumption", lambda *_: 3)
    with pytest.raises(runner.RunnerError, match="nvmlDeviceGetTotalEnergyConsumption gives error 3"):
        runner._nvml()

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(runner.ctypes, "CDLL", missing)
    with pytest.raises(runner.RunnerError, match="no NVML here"):
        runner._nvml()


def test_energy_of_a_run_is_that_of_many(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "_ENERGY_SECONDS", 0.01)
    spent = 0.0

    class Subject:
        def run(self, times: int) -> float:
            nonlocal spent
            spent += 2.5 * times
            return 1.0

    assert runner._energy(Subject(), lambda: 100 + spent) == pytest.approx(2.5)  # type: ignore[arg-type]
    monkeypatch.setattr(runner, "energy_meter", lambda name: lambda: 0.0 if name == "none" else spent)
    path = runner.measure(bundle, runner.Settings(rounds=1, seconds=0.0005, meter="rapl"))
    assert path.read_text().count("mJ") == 1


def test_a_clock_that_goes_back_or_stands(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sorted(bundle.glob("block*.onnx"))[0]
    timed = runner.Timed(path, runner.Settings())
    ticks = iter([1_000_000, 900_000, 5_000_000, 5_500_000])  # set back by 0.1 ms, then a run of 0.5 ms
    timed.clock = lambda: next(ticks)
    assert timed.run(1) == pytest.approx(0.5)
    timed.clock = lambda: 7
    with pytest.raises(runner.RunnerError, match="the clock stands still"):
        timed.run(1)


def test_rounds_end_when_they_agree_and_a_machine_is_called_noisy(tmp_path: Path) -> None:
    def readings(jitter: float) -> list[runner.Reading]:
        return [
            runner.Reading(r, f, 2 + jitter * (r % 2), 1 + jitter * (r % 2), 1.0, 0.5)
            for r in range(runner.LEAST_ROUNDS)
            for f in "ab"
        ]

    assert runner.disagreement(readings(0.0))[0] == 0
    assert runner.disagreement([])[0] == np.inf
    assert runner._next_round(readings(0.0), ["a", "b"], 40) is None
    assert runner._next_round(readings(0.5), ["a", "b"], 40) == runner.LEAST_ROUNDS
    assert runner._next_round(readings(0.5), ["a", "b"], runner.LEAST_ROUNDS) is None
    assert runner._next_round(readings(0.0)[:-1], ["a", "b"], 40) == runner.LEAST_ROUNDS - 1
    quiet = runner._summarise(tmp_path / "q.csv", readings(0.0), ["a", "b"], {}, runner.Settings())
    assert runner.noise(quiet) == ""
    noisy = runner._summarise(tmp_path / "n.csv", readings(0.5), ["a", "b"], {}, runner.Settings())
    assert "odd and even rounds differ by 20.0%" in runner.noise(noisy)
    assert read_measured(quiet, "ms").values == {"a": 1.0, "b": 1.0}  # twice a yardstick of half a millisecond


def test_a_bundle_is_written_once_and_not_beside_other_things(bundle: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in bundle.glob("*.onnx")}
    write_bundle(SPACE, (2,), bundle, networks=NETWORKS, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in bundle.glob("*.onnx")} == before
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match=r"holds letter\.txt, which is not of this bundle"):
        write_bundle(SPACE, (2,), tmp_path / "notes", networks=1, progress=False)
    assert [path.name for path in (tmp_path / "notes").iterdir() if path.name[0] != "."] == ["letter.txt"]


def test_another_bundle_takes_its_place_where_that_is_asked_for(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="which is not of this bundle"):
        write_bundle(SPACE, (2,), bundle, networks=1, batch=2, progress=False)
    write_bundle(SPACE, (2,), bundle, networks=1, batch=2, fresh=True, progress=False)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert {path.stem for path in bundle.glob("*.onnx")} == set(manifest["files"])


def test_fewer_rounds_than_were_read(bundle: Path) -> None:
    assert run(bundle, "--rounds", "3", "--seconds", "0.0005").returncode == 0
    done = run(bundle, "--rounds", "1", "--seconds", "0.0005")
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_written(bundle: Path) -> None:
    (bundle / "file").write_text("x")
    assert "file" in error(run(bundle, *FAST, "--out", str(bundle / "file" / "out")))


def test_networks_are_the_same_ones_every_time() -> None:
    assert (drawn_networks(SPACE, 5) == drawn_networks(SPACE, 8)[:5]).all()
    assert len(drawn_networks(SPACE, 1000)) == len(np.unique(drawn_networks(SPACE, 1000), axis=0)) <= SPACE.size
