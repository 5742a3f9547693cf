"""Every key of every recipe has something said about it, and what is shown loads again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from snugnet.cli.recipe import read, space_options
from snugnet.commented import commented, entries, key_texts
from snugnet.config import Config

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


def sections(kind: type[Config] = Config) -> Iterator[type[Config]]:
    """All that a recipe is made of."""
    for each in kind.__subclasses__():
        if getattr(sys.modules[each.__module__], each.__name__, None) is each:  # not one that is made of settings
            yield each
        yield from sections(each)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_what_is_shown_is_the_recipe(path: Path, tmp_path: Path) -> None:
    recipe = read(path, [])
    text = commented(recipe, space_options(recipe))
    (tmp_path / "shown.yaml").write_text(text)
    assert read(tmp_path / "shown.yaml", []) == recipe
    lines = text.splitlines()
    top = [line for line in lines if line[:1].isalpha()]
    assert [line.partition(":")[0] for line in top] == list(yaml.safe_load(text))
    for line in top:
        assert lines[lines.index(line) - 1].lstrip().startswith("# "), line


def test_every_key_is_explained() -> None:
    import snugnet.differentiable.config
    import snugnet.study.config

    assert snugnet
    silent = [
        f"{section.__name__}.{key}"
        for section in set(sections())
        if section.__module__.startswith("snugnet.")
        for key in section.model_fields
        if not key_texts(section).get(key)
    ]
    assert silent == []


def test_texts_are_lines_without_marks() -> None:
    text = """Something.

    Attributes:
        one, two: of :class:`~snugnet.config.Config` and ``three``,
            over two lines.
        three: the last.

    Raises:
        four: not a key.
    """
    both = "of snugnet.config.Config and three, over two lines."
    assert entries(text, "Attributes") == {"one": both, "two": both, "three": "the last."}
