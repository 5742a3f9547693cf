"""The product: one directory from which any (group, budget) gets its network at once.

Names are loaded on first use, so that a command that needs the record alone does not import the report.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snugnet.family.disk import Family, from_pretrained, load_family, save_family
    from snugnet.family.limits import LimitsSearch, LimitsSearched, search_limits
    from snugnet.family.networks import Classifier, Networks, Origin, Specialized
    from snugnet.family.record import FamilyRecord, Group
    from snugnet.family.report import Report, evaluate
    from snugnet.family.scenarios import Scenario
    from snugnet.family.search import FamilySearch, Searched, search_family
    from snugnet.family.specialising import SpecialisingFamily
    from snugnet.family.specialising_all import NetworkFiles, specialize_all
    from snugnet.family.stored import StoredNetwork, load, load_network

__all__ = [
    "Classifier",
    "Family",
    "FamilyRecord",
    "FamilySearch",
    "Group",
    "LimitsSearch",
    "LimitsSearched",
    "NetworkFiles",
    "Networks",
    "Origin",
    "Report",
    "Scenario",
    "Searched",
    "SpecialisingFamily",
    "Specialized",
    "StoredNetwork",
    "evaluate",
    "from_pretrained",
    "load",
    "load_family",
    "load_network",
    "save_family",
    "search_family",
    "search_limits",
    "specialize_all",
]

_HOME = {
    "disk": ("Family", "from_pretrained", "load_family", "save_family"),
    "limits": ("LimitsSearch", "LimitsSearched", "search_limits"),
    "networks": ("Classifier", "Networks", "Origin", "Specialized"),
    "record": ("FamilyRecord", "Group"),
    "report": ("Report", "evaluate"),
    "scenarios": ("Scenario",),
    "search": ("FamilySearch", "Searched", "search_family"),
    "specialising": ("SpecialisingFamily",),
    "specialising_all": ("NetworkFiles", "specialize_all"),
    "stored": ("StoredNetwork", "load", "load_network"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
