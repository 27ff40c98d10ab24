"""``import meshlib`` is free of every optional part, and cheap."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPTIONAL = (
    "consul",
    "cryptography",
    "django",
    "envoy",
    "fastapi",
    "flask",
    "google.protobuf",
    "grpc",
    "httptools",
    "httpx",
    "httpx2",
    "limits",
    "opentelemetry",
    "prometheus_client",
    "pybreaker",
    "re2",
    "redis",
    "rich",
    "starlette",
    "uvicorn",
    "watchfiles",
    "werkzeug",
    "xxhash",
    "yaml",
)
LIMIT = 0.030  # seconds of the processor over a bare interpreter: what others do meanwhile is not counted
RUNS = 7

LOADED = """
import json, sys
{statement}
print(json.dumps(sorted(sys.modules)))
"""
COST = """
import time
begun = time.process_time()
import meshlib
print(time.process_time() - begun)
"""


def run(code: str) -> str:
    """The output of a fresh interpreter, in the source tree."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout


def loaded_after(statement: str) -> set[str]:
    return set(json.loads(run(LOADED.format(statement=statement))))


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """Modules in a fresh interpreter after ``import meshlib``, less those every interpreter of this environment has."""
    return loaded_after("import meshlib") - loaded_after("pass")


def test_an_optional_part_would_be_seen():
    assert {"yaml", "yaml.nodes"} <= loaded_after("import yaml")
    assert not {part for part in OPTIONAL if part in loaded_after("pass")}


@pytest.mark.parametrize("part", OPTIONAL)
def test_importing_meshlib_imports_no(part, loaded):
    assert "meshlib" in loaded
    assert [name for name in loaded if name == part or name.startswith(f"{part}.")] == []


def test_importing_meshlib_costs_little():
    cost = min(float(run(COST)) for _ in range(RUNS))
    assert cost <= LIMIT, f"import meshlib took {cost * 1000:.1f} ms at the best of {RUNS}"
