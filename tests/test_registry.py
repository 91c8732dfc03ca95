"""Names of parts, of this package and of others."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from leandetr.errors import RecipeError
from leandetr.registry import Registry, at_least_one, did_you_mean

GROUP = "leandetr.tests"


@dataclass(frozen=True)
class Part:
    size: int = 1


def test_a_registered_config_is_found_by_name_and_back():
    parts = Registry("part")
    assert parts.register("simple")(Part) is Part
    assert parts.get("simple") is Part
    assert parts.name_of(Part) == "simple"
    assert parts.names() == ["simple"]


def test_a_name_is_taken_once():
    parts = Registry("part")
    parts.register("simple")(Part)
    with pytest.raises(RecipeError, match="part 'simple' is already registered by Part; choose"):
        parts.register("simple")(Registry)
    assert parts.get("simple") is Part


def test_unknown_names_suggest_near_ones_or_all():
    parts = Registry("part")
    with pytest.raises(RecipeError, match="no part 'simpel'; known: none"):
        parts.get("simpel")
    parts.register("simple")(Part)
    parts.register("other")(Registry)
    with pytest.raises(RecipeError, match=r"no part 'simpel'; did you mean simple\?"):
        parts.get("simpel")
    with pytest.raises(RecipeError, match="no part 'xyz'; known: other, simple"):
        parts.get("xyz")


def test_an_unregistered_config_has_no_name():
    with pytest.raises(RecipeError, match=r"Part is not registered; decorate it with @part\.reg"):
        Registry("part").name_of(Part)


def test_suggestions_are_few():
    assert did_you_mean("lite", ["lite-a", "lite-b", "lite-c", "lite-d"]).count(" or ") == 2


def test_counts_of_nothing_are_refused():
    at_least_one(Part(), "here", "size")
    with pytest.raises(RecipeError, match=r"expected here\.size of at least 1; got 0; type here"):
        at_least_one(Part(0), "here", "size")


def install(site: Path, name: str, code: str, target: str | None = None):
    """A package called `name` that declares a part of the same name."""
    (site / f"{name}.py").write_text(code)
    about = site / f"{name}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = {target or name}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def parts(monkeypatch):
    """A registry that packages of the tests can import as `leandetr.registry.parts`."""
    parts = Registry("part", entry_points=GROUP)
    monkeypatch.setattr("leandetr.registry.parts", parts, raising=False)
    return parts


GOOD = """
from leandetr.registry import parts
@parts.register("{name}")
class Foreign: pass
"""


def test_parts_of_installed_packages_are_found(site, parts):
    install(site, "foreign_good", GOOD.format(name="foreign_good"))
    assert parts.names() == ["foreign_good"]
    assert parts.get("foreign_good").__name__ == "Foreign"


def test_an_entry_point_may_name_the_config_itself(site, parts):
    install(site, "foreign_class", GOOD.format(name="foreign_class"), "foreign_class:Foreign")
    assert parts.get("foreign_class").__name__ == "Foreign"


def test_a_broken_package_breaks_no_other_part(site, parts, caplog):
    parts.register("simple")(Part)
    install(site, "foreign_broken", "import leandetr.nothing_here")
    with caplog.at_level(logging.WARNING):
        assert parts.get("simple") is Part
        assert parts.names() == ["simple"]
    assert len(caplog.records) == 1  # warned once
    says = (
        r"part 'foreign_broken' of the package foreign_broken cannot be imported "
        r"\(ModuleNotFoundError: .*nothing_here.*\); .*pip uninstall foreign_broken"
    )
    with pytest.raises(RecipeError, match=says):
        parts.get("foreign_broken")


def test_a_package_that_registers_nothing_is_told(site, parts, caplog):
    install(site, "foreign_empty", "")
    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(RecipeError, match=r"registers nothing .*register\('foreign_empty'\)"),
    ):
        parts.get("foreign_empty")


def test_a_package_cannot_take_a_name_that_is_there(site, parts, caplog):
    parts.register("foreign_double")(Part)
    install(site, "foreign_double", GOOD.format(name="foreign_double"))
    with caplog.at_level(logging.WARNING):
        assert parts.get("foreign_double") is Part
    assert "already registered by Part" in caplog.text
