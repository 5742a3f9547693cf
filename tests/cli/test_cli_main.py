"""The command as a process: quick to start, and wrong usage is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import snugnet as package
from snugnet.errors import SnugnetError

COMMANDS = ["quickstart", "train", "specialize", "retrain", "evaluate", "export", "space", "cost"]


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "snugnet", *arguments], capture_output=True, text=True, check=False, **options
    )


def test_help_lists_every_command() -> None:
    done = process("--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert all(command in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(snugnet: Any, command: str) -> None:
    done = snugnet(command, "--help")
    assert done.code == 0
    assert done.err == ""
    assert "--help" in done.out


HEAVY = "{'torch', 'numpy', 'pydantic_settings', 'matplotlib', 'datasets', 'sklearn', 'onnx', 'rich.progress'}"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["specialize", "--help"], ["--version"], ["space", "lst"]]
)
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from snugnet.cli.main import main
try:
    main({arguments!r})
except SystemExit:
    pass
print(sorted({HEAVY} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"


def test_version(snugnet: Any) -> None:
    assert snugnet("--version").out == f"snugnet {package.__version__}\n"


def test_without_a_command_help_is_shown(snugnet: Any) -> None:
    done = snugnet()
    assert done.code == 2
    assert "quickstart" in done.out + done.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "No such command 'trian'"),
        (["space", "lst"], "No such command 'lst'"),
        (["--fast"], "No such option: --fast"),
        (["train"], "Missing argument"),
        (["cost", "ofa-mobilenet-v3"], "Missing option '--arch'"),
        (["specialize", "x", "--best-of", "0"], "'--best-of'"),
        (["specialize", "x", "--best-of", "many"], "'--best-of'"),
        (["space", "show", "ofa-mobilenet-v3", "--blueprint", "huge"], "'smallest', 'centroid', 'largest'"),
        (["space", "list", "more"], "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_line(snugnet: Any, arguments: list[str], says: str) -> None:
    assert says in snugnet(*arguments).error


def test_wrong_input_is_one_line_and_code_2_as_a_process(tmp_path: Path) -> None:
    done = process("train", "nowhere.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot read recipe nowhere.yaml: No such file or directory\n"


def test_a_fault_of_the_program_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    from snugnet.cli import main, space

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(space, "emit", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        main.main(["space", "list", "--json"])


def test_a_message_of_several_lines_becomes_one(monkeypatch: pytest.MonkeyPatch, snugnet: Any) -> None:
    from snugnet.cli import space

    def broken(*_: object) -> None:
        raise SnugnetError("first\n  second")

    monkeypatch.setattr(space, "emit", broken)
    assert snugnet("space", "list", "--json").error == "error: first second"


@pytest.mark.skipif(os.name == "nt", reason="POSIX pipes")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m snugnet space show ofa-mobilenet-v3 --blueprint largest | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr


def test_what_is_no_number_is_null_in_json(capsys: pytest.CaptureFixture[str]) -> None:
    from snugnet.cli.common import emit

    emit({"a": float("nan"), "b": [float("inf"), 1.5], "c": (True, None, "x")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": [True, None, "x"]}


@pytest.mark.parametrize(("name", "expected"), [("round", "round"), ("a/b c", "a-b-c"), ("../x", "x"), ("//", "group")])
def test_names_of_groups_as_names_of_files(name: str, expected: str) -> None:
    from snugnet.texts import slug

    assert slug(name) == expected


def test_names_may_hold_commas_in_quotes() -> None:
    from snugnet.cli.common import read_names

    assert read_names('"tench, Tinca tinca", goldfish') == ["tench, Tinca tinca", "goldfish"]


def test_a_warning_is_one_line_without_our_source() -> None:
    code = (
        "import warnings; from snugnet.cli import main; "
        "main.app = lambda **_: warnings.warn('two\\nlines'); main.main([])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "warning: two lines\n")


def test_error_lines_are_short(snugnet: Any, tmp_path: Path) -> None:
    """What is wrong comes first, what to do last; the middle of a long message is left out."""
    from snugnet.cli.common import LONGEST_LINE, one_line

    name = "x" * 5000
    error = snugnet("cost", name, "--arch", "a.json").error
    assert len(error) == LONGEST_LINE
    assert error.startswith("error: unknown space 'xxx")
    assert error.endswith("spos-shufflenet-v2")
    assert len(snugnet("cost", "ofa-mobilenet-v3", "--arch", name).error) == LONGEST_LINE
    assert len(snugnet("search", tmp_path, f"--{name}").error) <= LONGEST_LINE
    assert one_line("error", "a\n b") == "error: a b"
