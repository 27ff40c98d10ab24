"""Policies of yours on the mesh's calls: `python -m examples.pybreaker_and_limits`.

A `pybreaker.CircuitBreaker`, listeners and all, guards a cluster; a limit in the notation of `limits` holds for every
process that names the same store (`redis://...` in earnest; this process alone with `memory://`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import httpx
import pybreaker

from examples.tiny_server import TinyServer
from meshlib import CircuitOpenError, Mesh, RateLimitedError, SharedRateLimit


class Announcer(pybreaker.CircuitBreakerListener):
    """A listener as pybreaker knows them."""

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        """A change of state."""
        print(f"breaker: {old_state.name} -> {new_state.name}")


server = TinyServer("payments")
breaker = pybreaker.CircuitBreaker(fail_max=3, reset_timeout=60, listeners=[Announcer()], name="payments")
mesh = Mesh.static(
    {"payments": [server.address], "reports": [server.address]},
    breakers={"payments": breaker},
    rate_limits={"reports": SharedRateLimit("5/minute", "memory://", name="reports")},
)


def main() -> None:
    with mesh, mesh.http.client() as client:
        server.status = 500
        answers: Counter[object] = Counter()
        for _ in range(10):
            try:
                answers[client.get("http://payments/charge").status_code] += 1
            except pybreaker.CircuitBreakerError as error:  # pybreaker's, httpx's and meshlib's in one
                answers[type(error).__name__, isinstance(error, CircuitOpenError)] += 1
        print(f"ten calls to a failing service: {dict(answers)}")
        server.status = 200
        passed = Counter(call(client) for _ in range(12))
        print(f"twelve calls, five a minute allowed: {dict(passed)}")


def call(client: httpx.Client) -> str:
    try:
        return client.get("http://reports/").reason_phrase
    except RateLimitedError as error:
        return f"refused, {error.flag}"


if __name__ == "__main__":
    main()
