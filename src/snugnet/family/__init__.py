"""The product: one directory from which any (group, budget) gets its network at once.

Names are loaded on first use, so that a command that needs the record alone does not import the report.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snugnet.family.disk import from_pretrained, load_family, save_family
    from snugnet.family.record import Family, Group, Scenario, Specialized
    from snugnet.family.report import Report, evaluate
    from snugnet.family.search import FamilySearch, Searched, search_family

__all__ = [
    "Family",
    "FamilySearch",
    "Group",
    "Report",
    "Scenario",
    "Searched",
    "Specialized",
    "evaluate",
    "from_pretrained",
    "load_family",
    "save_family",
    "search_family",
]

_HOME = {
    "disk": ("from_pretrained", "load_family", "save_family"),
    "record": ("Family", "Group", "Scenario", "Specialized"),
    "report": ("Report", "evaluate"),
    "search": ("FamilySearch", "Searched", "search_family"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
