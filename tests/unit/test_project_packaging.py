"""What pyproject.toml, the Makefile and .ci/run promise: bare installs, extras that add up, reasons for ignores."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from parts.registry import PARTS

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def test_a_bare_install_needs_only_the_standard_library():
    assert PROJECT["dependencies"] == []


def test_all_is_every_extra():
    (requirement,) = EXTRAS["all"]
    match = re.fullmatch(r"meshlib\[(.*)\]", requirement)
    assert match
    assert set(match[1].split(",")) == set(EXTRAS) - {"all"}


@pytest.mark.parametrize("extra", sorted(set(EXTRAS) - {"all"}))
def test_each_requirement_has_a_tried_lower_bound(extra):
    loose = [line for line in EXTRAS[extra] if ">=" not in line and not line.startswith("meshlib[")]
    assert loose == []


def test_pybreaker_is_held_below_a_release_nobody_tried():
    assert EXTRAS["breaker"] == ["pybreaker>=1.4,<1.6"]


def test_every_lint_rule_that_is_off_has_its_reason():
    section = TEXT[TEXT.index("[tool.ruff.lint]") : TEXT.index("[tool.ruff.lint.per-file-ignores]")]
    ignored = section[section.index("ignore = [") :].splitlines()[1:]
    rules = [line for line in ignored if line.strip().startswith('"')]
    assert rules
    assert [line for line in rules if "#" not in line] == []


def test_ci_requires_only_parts_that_exist():
    script = (ROOT / ".ci" / "run").read_text()
    table = re.search(r"PACKAGE_OF=\((.*?)\n?\)\n", script, re.DOTALL)
    assert table
    required = set(re.findall(r"\[(\w+)\]=", table[1]))
    assert {"envoy", "redis", "go_control_plane", "gunicorn", "wrk"} <= required <= set(PARTS)


def test_make_without_a_target_is_the_help():
    listed = subprocess.run(["make", "-s", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^  make (\S+)", listed, re.MULTILINE)
    assert {"demo", "test", "bench", "lint", "docs", "venv", "servers", "clean"} <= set(targets)


def test_an_old_python_is_refused_with_a_sentence(tmp_path):
    command = ["make", "-s", "-C", str(ROOT), "venv", "PYTHON=", f"VENV={tmp_path / 'venv'}"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "needs Python 3.11 or newer" in refused.stderr
