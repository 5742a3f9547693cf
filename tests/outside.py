"""Packages from outside, as pip would leave them in a folder: modules, and a distribution that announces what they bring."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(site: Path, name: str, modules: Mapping[str, str], brings: Mapping[str, Mapping[str, str]]) -> Path:
    """Lay out a distribution.

    Args:
        site: the folder, to be put on the path.
        name: of the distribution.
        modules: their source, by name.
        brings: for each group of entry points the names, and what stands behind them.
    """
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    groups = [
        "\n".join([f"[{group}]", *(f"{key} = {value}" for key, value in own.items())]) for group, own in brings.items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n")
    for module, source in modules.items():
        (site / f"{module}.py").write_text(source)
    return site
