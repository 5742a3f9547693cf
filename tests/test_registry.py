"""Things by name, from this package and from others that are really installed, if only in a folder on the path."""

from __future__ import annotations

import importlib
import sys
import warnings
from pathlib import Path

import pytest
from outside import install

from snugnet.errors import SpaceError
from snugnet.registry import Registry

GROUP = "snugnet.registry_test"
GOOD = """
from abc import ABC, abstractmethod

class Wheel:
    name = 'wheel'

class Other:
    name = 'another'

class Half(ABC):
    name = 'wheel'

    @abstractmethod
    def turn(self): ...

NO_WHEEL = 3
"""


def make(**homes: str) -> Registry[type]:
    return Registry(GROUP, "wheel", SpaceError, lambda thing: isinstance(thing, type), homes=homes)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, for the modules good_wheels and broken_wheels of outside packages."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("good_wheels", "broken_wheels"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_what_is_added_is_known_and_may_be_replaced() -> None:
    registry = make()
    assert registry.add("b", int) is int
    registry.add("a", str)
    assert registry.names() == ["a", "b"]
    assert ("a" in registry, "c" in registry, 3 in registry) == (True, False, False)
    registry.add("b", float)
    assert registry["b"] is float


def test_an_unknown_name_says_what_is_known_and_what_may_be_meant() -> None:
    registry = make()
    registry.add("wheel", int)
    with pytest.raises(SpaceError, match=r"^unknown wheel 'whel'; did you mean 'wheel'\? known: wheel$"):
        registry["whel"]
    with pytest.raises(SpaceError, match=r"^unknown wheel 'x'; known: wheel$"):
        registry["x"]


def test_its_own_things_are_imported_when_they_are_asked_for(site: Path) -> None:
    (site / "good_wheels.py").write_text(GOOD)
    registry = make(wheel="good_wheels:Wheel")
    assert registry.names() == ["wheel"]
    assert "good_wheels" not in sys.modules
    assert registry["wheel"] is sys.modules["good_wheels"].Wheel
    assert registry["wheel"] is registry["wheel"]


def test_an_installed_package_brings_one(site: Path) -> None:
    install(site, "good", {"good_wheels": GOOD}, {GROUP: {"wheel": "good_wheels:Wheel"}})
    registry = make()
    assert registry.names() == ["wheel"]
    assert "wheel" in registry
    assert "good_wheels" not in sys.modules
    assert registry["wheel"].__name__ == "Wheel"


@pytest.mark.parametrize("source", ["import no_such_module", "1 / 0", "raise SystemExit(3)", "x = ("])
def test_a_broken_package_disturbs_nobody_until_its_name_is_asked_for(site: Path, source: str) -> None:
    install(site, "good", {"good_wheels": GOOD}, {GROUP: {"wheel": "good_wheels:Wheel"}})
    install(site, "broken", {"broken_wheels": source}, {GROUP: {"square": "broken_wheels:Wheel"}})
    registry = make()
    assert registry.names() == ["square", "wheel"]
    assert registry["wheel"].__name__ == "Wheel"
    with pytest.raises(SpaceError, match=r"^wheel 'square' cannot be loaded from broken_wheels:Wheel \(\w+: .+\)$"):
        registry["square"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("good_wheels:NO_WHEEL", "good_wheels:NO_WHEEL is no wheel, it is 3"),
        ("good_wheels:Other", "good_wheels:Other calls itself 'another'; give it the same name"),
        ("good_wheels:Half", "good_wheels:Half does not define turn"),
        ("good_wheels:Nothing", "cannot be loaded from good_wheels:Nothing"),
    ],
)
def test_what_is_no_such_thing_is_refused(site: Path, value: str, says: str) -> None:
    install(site, "odd", {"good_wheels": GOOD}, {GROUP: {"wheel": value}})
    with pytest.raises(SpaceError, match=says):
        make()["wheel"]


def test_a_second_of_the_same_name_is_left_out_with_a_warning(site: Path) -> None:
    install(site, "good", {"good_wheels": GOOD}, {GROUP: {"wheel": "good_wheels:Wheel", "own": "good_wheels:Other"}})
    install(site, "second", {}, {GROUP: {"wheel": "broken_wheels:Wheel"}})
    registry = make()
    registry.add("own", int)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert registry.names() == ["own", "wheel"]
        assert registry.names() == ["own", "wheel"]  # said once
    messages = sorted(str(each.message) for each in caught)
    assert len(messages) == 2
    assert "good_wheels:Other brings a second wheel 'own'; it is left out" in messages
    assert registry["own"] is int


def test_what_fails_when_it_is_looked_at_is_refused_in_one_line(site: Path) -> None:
    install(site, "good", {"good_wheels": GOOD}, {GROUP: {"wheel": "good_wheels:Wheel"}})
    registry: Registry[type] = Registry(GROUP, "wheel", SpaceError, lambda thing: thing.spokes > 3)  # type: ignore[attr-defined]
    with pytest.raises(SpaceError, match=r"cannot be loaded from good_wheels:Wheel \(AttributeError: .*spokes"):
        registry["wheel"]


def test_what_has_made_itself_known_is_no_second_one(site: Path) -> None:
    """A module may be imported by hand before names are asked for: its decorator and its entry point say the same."""
    install(site, "good", {"good_wheels": GOOD}, {GROUP: {"wheel": "good_wheels:Wheel"}})
    registry = make()
    wheel = registry.add("wheel", importlib.import_module("good_wheels").Wheel)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert registry.names() == ["wheel"]
    assert registry["wheel"] is wheel
