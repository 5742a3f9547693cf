"""What a user of specialised networks installs is enough, and what is missing is said in one line."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tiny_family import tiny_family

from snugnet.errors import MissingPackageError
from snugnet.extras import EXTRAS, needs

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "snugnet"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def package(requirement: str) -> str:
    """The name in ``pillow>=10``."""
    return requirement.split(">")[0].split(";")[0].strip()


def test_every_extra_is_one_of_the_package() -> None:
    extras = PROJECT["optional-dependencies"]
    for module, (name, extra) in EXTRAS.items():
        assert name in map(package, extras[extra]), module
    named = {each for name, extra in extras.items() if name != "dev" for each in extra if each.startswith("snugnet[")}
    kinds = {extra for _, extra in EXTRAS.values()}
    assert f"snugnet[{','.join(sorted(kinds))}]" in named, "the extra 'all' has all of them"
    assert not {name for name, _ in EXTRAS.values()} & set(map(package, PROJECT["dependencies"]))


def imported(tree: ast.AST) -> set[str]:
    """Modules of :data:`EXTRAS` that a file imports when it runs."""
    found = set()
    todo = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = ["tensorboard" if node.module == "torch.utils.tensorboard" else node.module]
        found |= {name.split(".")[0] for name in names} & EXTRAS.keys()
        todo += [each for each in ast.iter_child_nodes(node) if not isinstance(each, ast.expr)]
    return found


def test_what_is_missing_is_asked_for_first() -> None:
    may_import = re.compile(rf"(?:import|from) (?:{'|'.join(EXTRAS)}|torch\.utils\.tensorboard)\b")
    alone = {SOURCE / "profiling" / "runner.py", SOURCE / "routing" / "run.py"}  # go to a device by themselves
    for path in sorted(set(SOURCE.rglob("*.py")) - alone):
        if may_import.search(text := path.read_text()):
            face = path.parent / "__init__.py" if path.parent.name == "serve" else path
            needed = {
                name for call in re.findall(r"needs\((.*?)\)", face.read_text()) for name in re.findall(r"\w+", call)
            }
            assert imported(ast.parse(text)) <= needed, path


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingPackageError) as raised:
        needs("sklearn")
    assert str(raised.value) == "this needs scikit-learn, which is not installed: pip install 'snugnet[search]'"


USE = """
import json, sys
from without import only
hidden = only(["torch", "numpy", "safetensors", "onnx"], ["snugnet", "without"])
import snugnet
net = snugnet.load("family").specialize(["1", "4", "7"])
net.export("net.onnx")
said = []
for use in (lambda: net.export("net16.onnx", precision="float16"), lambda: snugnet.from_pretrained("some/family")):
    try:
        use()
    except snugnet.errors.SnugnetError as error:
        said.append(str(error))
print(json.dumps([said, sorted({name.split(".")[0] for name in sys.modules} & hidden)]))
"""


def test_a_user_of_networks_needs_four_packages(tmp_path: Path) -> None:
    import onnx

    tiny_family(tmp_path / "family")
    path = f"{ROOT / 'src'}:{Path(__file__).parent}"
    made = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env={"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    said, imported = json.loads(made.stdout.splitlines()[-1])
    assert said == [
        "this needs onnxruntime, which is not installed: pip install 'snugnet[deploy]'",
        "this needs huggingface-hub, which is not installed: pip install 'snugnet[hub]'",
    ]
    assert imported == []
    assert len(onnx.load(tmp_path / "net.onnx").graph.output) == 1
