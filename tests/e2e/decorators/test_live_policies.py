"""Decorators whose policies a mesh's configuration changes while they are used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from meshlib import Mesh, RateLimitedError
from meshlib.decorators import bulkhead, circuit_breaker, rate_limit, retry, timeout
from parts.xds import eventually


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bootstrap.json"


@pytest.fixture
def mesh(file: Path) -> Iterator[Mesh]:
    put(file)
    with Mesh.from_file(file).wait_ready() as mesh:
        yield mesh


def put(file: Path, **runtime: Any) -> None:
    layer = {"name": "policies", "static_layer": {f"meshlib.prices.{key}": value for key, value in runtime.items()}}
    file.write_text(json.dumps({"layered_runtime": {"layers": [layer]}}))


def attempts(function: Any, calls: list[None]) -> int:
    calls.clear()
    with pytest.raises(OSError):  # noqa: PT011  any
        function()
    return len(calls)


def test_a_policy_follows_the_configuration(mesh: Mesh, file: Path) -> None:
    calls: list[None] = []

    @retry(3, base_interval=0.0, name="prices", mesh=mesh)
    def prices() -> None:
        calls.append(None)
        raise OSError

    assert attempts(prices, calls) == 3
    put(file, **{"retry.attempts": 5})
    eventually(lambda: attempts(prices, calls) == 5, "more attempts")
    put(file, **{"retry.attempts": 1})
    eventually(lambda: attempts(prices, calls) == 1, "none")
    put(file)
    eventually(lambda: attempts(prices, calls) == 3, "as the decorator says")


def test_every_kind_of_policy_does(mesh: Mesh, file: Path) -> None:
    common: Any = {"name": "prices", "mesh": mesh}
    limit, breaker = rate_limit("1/hour", **common), circuit_breaker(fail_max=5, **common)
    longest, inside = timeout(5.0, **common), bulkhead(1, **common)

    @limit
    def limited() -> str:
        return "in"

    assert limited() == "in"
    with pytest.raises(RateLimitedError, match="over the limit of 1/hour"):
        limited()
    values = {"rate_limit.limit": "1000/second", "circuit_breaker.fail_max": 2, "timeout.seconds": 0.5}
    put(file, **values, **{"bulkhead.limit": 7})
    eventually(lambda: longest._settings.now().seconds == 0.5, "in force")
    assert [limited() for _ in range(50)] == ["in"] * 50
    assert inside._settings.now().limit == 7

    @breaker
    def failing() -> None:
        raise OSError

    for _ in range(2):
        with pytest.raises(OSError):  # noqa: PT011  any
            failing()
    assert breaker.breaker.current_state == "open"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("value", "reason"),
    [("many", "not a number"), (2.5, "not a whole number"), (0, "at least once"), (True, "not a number")],
)
def test_what_cannot_be_used_is_reported_and_changes_nothing(mesh: Mesh, file: Path, value: Any, reason: str) -> None:
    calls: list[None] = []

    @retry(3, base_interval=0.0, name="prices", mesh=mesh)
    def prices() -> None:
        calls.append(None)
        raise OSError

    put(file, **{"retry.attempts": value, "retry.max_interval": 9})
    eventually(lambda: mesh.plan.snapshot.runtime.items, "in force")
    assert attempts(prices, calls) == 3
    (issue,) = [issue for issue in mesh.issues if issue.path == "meshlib.prices.retry.attempts"]
    assert reason in issue.reason
