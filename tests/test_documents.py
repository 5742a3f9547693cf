"""What README, CONTRIBUTING and docs say is so: commands parse, links lead somewhere, the README's own lines run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from tiny_family import tiny_family
from typer.main import get_command

import snugnet
from snugnet.cli.main import app, main

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)(?:#[^)]*)?\)")


def blocks(path: Path, *languages: str) -> list[str]:
    """Code blocks of a document."""
    return [text for language, text in FENCE.findall(path.read_text()) if language in languages]


def commands(path: Path, program: str) -> list[list[str]]:
    """Lines of its shell blocks that call a program, as arguments; placeholders such as ``...`` end them."""
    lines = [line.strip() for text in blocks(path, "bash", "") for line in text.replace("\\\n", " ").splitlines()]
    own = [shlex.split(line, comments=True) for line in lines if line.split(" ")[0] == program]
    return [line[1 : line.index("...")] if "..." in line else line[1:] for line in own]


COMMAND = get_command(app)


def parse(arguments: list[str]) -> None:
    """What the command line does with arguments before it does anything.

    Raises:
        Exception: of the command line's own: wrong usage.
    """
    command, name, parent = COMMAND, "snugnet", None
    while True:
        parent = command.make_context(name, list(arguments), parent=parent)
        if not hasattr(command, "resolve_command") or not (rest := [*parent._protected_args, *parent.args]):
            return
        name, command, arguments = command.resolve_command(parent, rest)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_commands_and_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for arguments in commands(path, "snugnet"):
        try:
            parse(arguments)
        except Exception as error:
            pytest.fail(f"{path.name}: snugnet {shlex.join(arguments)}: {getattr(error, 'message', error)}")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for arguments in commands(path, "make"):
        assert {each for each in arguments if "=" not in each} <= targets, f"{path.name}: make {shlex.join(arguments)}"
    for arguments in commands(path, "python"):
        file = next((each for each in arguments if each.endswith(".py")), None)
        assert file in (None, "runner.py", "route/run.py") or (ROOT / file).is_file(), f"{path.name}: python {file}"
    for target in LINK.findall(path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} leads to {target}"


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which runs/digits is a small family, and the README's other files stand."""
    folder = tmp_path_factory.mktemp("readme")
    tiny_family(folder / "runs" / "digits")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    (folder / "devices.csv").write_text("group,madds\nround,50%\nstraight,\n")
    space = snugnet.get_space("ofa-mobilenet-v3")
    (folder / "net.json").write_text(json.dumps(space.to_dict(space.smallest)))
    return folder


QUICK = ("specialize runs/digits", "space", "cost", "plot")
"""Lines of the README that take no time; each of the others has tests of its own in ``tests/cli``."""


def test_lines_of_the_readme_run(
    quickstart: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(quickstart)
    lines = [line for line in commands(ROOT / "README.md", "snugnet") if " ".join(line).startswith(QUICK)]
    lines = [line for line in lines if "--latency-ms" not in line]  # wants a device that was measured
    assert len(lines) >= 7
    for line in lines:
        with pytest.raises(SystemExit) as end:
            main(line)
        assert end.value.code == 0, f"{shlex.join(line)}: {capsys.readouterr().err}"
    assert (quickstart / "round.onnx").stat().st_size > 10_000
    assert len(list((quickstart / "fleet").glob("*.onnx"))) == 2


def test_every_command_of_the_readme_is_run_by_a_test() -> None:
    texts = [path.read_text() for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    for name in {line[0] for line in commands(ROOT / "README.md", "snugnet")}:
        assert any(f'"{name}", ' in text for text in texts), f"no test runs snugnet {name}"


def test_python_of_the_readme_runs(quickstart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(quickstart)
    (quickstart / "round.onnx").unlink(missing_ok=True)
    text = "\n".join(blocks(ROOT / "README.md", "python"))
    assert "family.specialize(" in text
    told: dict[str, object] = {}
    exec(compile(text, "README.md", "exec"), told)
    assert told["net"].costs["madds"] <= 4e6  # type: ignore[attr-defined]
    assert (quickstart / "round.onnx").exists()


def test_one_version() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == snugnet.__version__
    assert not re.search(r"^version:", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
