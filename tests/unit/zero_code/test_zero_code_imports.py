"""What waits for a module happens once, after the module's own code, and never breaks an import."""

import importlib
import importlib.util
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from meshlib.zero_code.imports import when_imported


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a module that can be imported and has not been."""
    (tmp_path / "mesh_me").mkdir()
    (tmp_path / "mesh_me" / "__init__.py").write_text("value = 1\n")
    (tmp_path / "mesh_me" / "part.py").write_text("value = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    finders = list(sys.meta_path)
    yield "mesh_me"
    sys.meta_path[:] = finders
    for name in ("mesh_me", "mesh_me.part"):
        sys.modules.pop(name, None)


def test_an_action_runs_after_the_modules_own_code(module: str):
    seen: list[int] = []
    when_imported(module, lambda found: seen.append(found.value))
    assert module not in sys.modules
    assert seen == []
    imported = importlib.import_module(module)
    importlib.import_module(module)
    assert seen == [1]
    assert type(imported.__loader__).__name__ == "SourceFileLoader", "the module does not look different"
    assert imported.__spec__ is not None
    assert imported.__spec__.loader is imported.__loader__


def test_a_part_of_a_package(module: str):
    seen: list[int] = []
    when_imported(f"{module}.part", lambda found: seen.append(found.value))
    importlib.import_module(module)
    assert seen == []
    importlib.import_module(f"{module}.part")
    assert seen == [2]


def test_what_is_imported_already_is_seen_to_at_once(module: str):
    importlib.import_module(module)
    seen: list[ModuleType] = []
    when_imported(module, seen.append)
    assert seen == [sys.modules[module]]


def test_an_action_that_fails_is_told_and_breaks_nothing(module: str, caplog: pytest.LogCaptureFixture):
    def fail(found: ModuleType) -> None:
        raise AttributeError("no such thing to patch")

    when_imported(module, fail)
    with caplog.at_level(logging.ERROR, "meshlib"):
        assert importlib.import_module(module).value == 1
    assert "mesh_me could not be meshed and is used as it is" in caplog.text


def test_whoever_asks_where_a_module_is_does_not_end_the_wait(module: str):
    """Programs look for what is installed before they import it."""
    seen: list[int] = []
    when_imported(module, lambda found: seen.append(found.value))
    specs = [importlib.util.find_spec(module) for _ in range(2)]
    assert None not in specs
    assert seen == []
    importlib.import_module(module)
    assert seen == [1]


def test_a_module_that_fails_at_first_is_waited_for_again(module: str, tmp_path: Path):
    seen: list[int] = []
    when_imported(module, lambda found: seen.append(found.value))
    file = tmp_path / module / "__init__.py"
    file.write_text("raise ImportError('not yet')\n")
    with pytest.raises(ImportError, match="not yet"):
        importlib.import_module(module)
    file.write_text("value = 12345\n")
    importlib.import_module(module)
    assert seen == [12345]


def test_a_module_that_does_not_exist_stays_unknown():
    when_imported("mesh_nobody_has", lambda found: None)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("mesh_nobody_has")
