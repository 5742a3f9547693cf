"""``snugnet study``: one line for what is wrong, before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny_family import TINY

from snugnet.files import LOCK

STUDY: dict[str, Any] = {
    "name": "tiny",
    "output": "runs/a",
    "seeds": [0],
    "recipe": {key: value for key, value in TINY.items() if key not in ("name", "output", "evaluation")},
    "supernets": {"plain": {}},
    "methods": [{"name": "Random", "supernet": "plain", "search": "random"}],
    "tables": {"All": ["Random"]},
}


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_two_studies_do_not_share_a_folder(snugnet: Any, tmp_path: Path, busy: int, fresh: tuple[str, ...]) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(STUDY))
    done = snugnet("study", "study.yaml", *fresh)
    assert done.code == 2
    assert f"runs/a is in use by process {busy} on " in done.err.splitlines()[-1]
    assert {path.name for path in (tmp_path / "runs" / "a").iterdir()} == {LOCK}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--family", "EAS"], "a family of a study needs both --family METHOD and --out FOLDER"),
        (["--seed", "0"], "a family of a study needs both --family METHOD and --out FOLDER"),
        (
            ["--family", "EAS", "--out", "a", "--fresh"],
            "--family reads what the study has trained; it does not go with --fresh",
        ),
        (["--family", "EAS", "--out", "a"], "no method 'EAS'; methods with a generator: none"),
        (
            ["--family", "Random", "--out", "study.yaml"],
            "cannot write into study.yaml: study.yaml is a file, not a folder",
        ),
    ],
)
def test_wrong_ways_to_ask_for_a_family(snugnet: Any, tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(STUDY))
    done = snugnet("study", "study.yaml", *options)
    assert done.code == 2
    assert done.err.splitlines()[-1].endswith(says)
    assert {path.name for path in tmp_path.iterdir()} == {"study.yaml"}
