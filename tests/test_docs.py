"""What the docs show can be typed: Python compiles, commands and their options are there, and examples in docstrings run."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from tiny_family import tiny_family

from snugnet.cli.main import app
from snugnet.cli.profile import HERE

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
EXAMPLES = {
    "snugnet.family.stored": "load",
    "snugnet.family.specialising": "SpecialisingFamily.specialize SpecialisingFamily.specialize_many",
    "snugnet.family.networks": "Classifier.export",
    "snugnet.family.search": "search_family",
    "snugnet.spaces.space": "get_space",
    "snugnet.costs.counted": "counted_table",
    "snugnet.costs.sampling": "sample",
    "snugnet.costs.decoding": "decode",
    "snugnet.recipe": "load_recipe",
}
"""The front doors: functions whose docstrings have an example."""


def blocks(language: str) -> list[Any]:
    """Code blocks of all pages, each named by its page and line."""
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in FENCE.finditer(text):
            if match[2] == language:
                where = f"{page.relative_to(ROOT)}:{text[: match.start()].count(chr(10)) + 1}"
                found.append(pytest.param(re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE), id=where))
    return found


def test_the_site_leads_to_every_page() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    led_to = [
        page
        for part in site["nav"]
        for where in part.values()
        for page in ([{"": where}] if isinstance(where, str) else where)
    ]
    there = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert {path for page in led_to for path in page.values()} == {
        path for path in there if not path.startswith("results/")
    }


@pytest.mark.parametrize("code", blocks("python"))
def test_python_compiles(code: str) -> None:
    compile(code, "<docs>", "exec")


def commands(text: str) -> list[list[str]]:
    """The arguments of every ``snugnet`` in a block for the shell."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("|&;<>"):
                words.append(word)
                continue
            while words and re.match(r"\w+=", words[0]):  # of the environment
                words.pop(0)
            if words and words[0].rpartition("/")[2] == "snugnet":
                found.append(words[1:])
            words = []
    return found


@cache
def whole_command() -> Any:
    """``snugnet``, with all that is below it."""
    return typer.main.get_command(app)


@pytest.mark.parametrize("text", blocks("bash"))
def test_commands_are_there(text: str) -> None:
    for words in commands(text):
        command = whole_command()
        said = f"snugnet {' '.join(words)}"
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            if words[0] not in command.commands and HERE in command.commands:
                words.insert(0, HERE)
            assert words[0] in command.commands, said
            command = command.commands[words.pop(0)]
        options = {"--help", "-h", *(opt for each in command.params for opt in (*each.opts, *each.secondary_opts))}
        unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.split("=")[0] not in options]
        assert not unknown, f"{said}: {unknown}"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/digits``, an untrained family, and the recipes."""
    folder = tmp_path_factory.mktemp("front")
    tiny_family(folder / "runs" / "digits")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    return folder


@pytest.mark.parametrize(("module", "name"), [(m, n) for m, names in EXAMPLES.items() for n in names.split()])
def test_examples_run(module: str, name: str, digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(digits)
    thing: Any = importlib.import_module(module)
    for part in name.split("."):
        thing = getattr(thing, part)
    (example,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs={thing.__name__: thing})
    assert example.examples, f"{name} has no example"
    said: list[str] = []
    outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert outcome.failed == 0, "".join(said)
