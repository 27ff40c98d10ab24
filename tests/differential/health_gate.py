"""A backend that answers one health check at a time, of Envoy and of the mesh alike, when the test says what."""

from __future__ import annotations

import re
import threading
from collections import deque
from typing import Any

from differential.calls_twin import Twin
from e2e.wire.raw_server import Peer, RawServer
from meshlib.balancing.base import Host

SIDES = ("envoy", "mesh")
PATIENCE = 20.0
Answer = bytes | str
"""Bytes to send, or "reset", "close", "hang"."""


def response(status: int = 200, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} -", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Gate:
    """`first` is said at once to the first check of each side: until then neither is ready."""

    def __init__(self, first: Answer) -> None:
        self._first = first
        self._changed = threading.Condition()
        self._asked = dict.fromkeys(SIDES, 0)
        self._answers: dict[str, deque[Answer]] = {side: deque([first]) for side in SIDES}
        self.heads: dict[str, bytes] = {}
        self.bodies: dict[str, bytes] = {}
        self.server = RawServer(self._serve)
        self.port = self.server.port

    def step(self, answer: Answer) -> None:
        """Answer the check that each side is waiting for, and return when each has begun the next."""
        with self._changed:
            before = dict(self._asked)
            for side in SIDES:
                self._answers[side].append(answer)
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: all(self._asked[side] > before[side] for side in SIDES), PATIENCE)

    def ready(self) -> None:
        """Until each side has begun its second check."""
        with self._changed:
            assert self._changed.wait_for(lambda: all(self._asked[side] > 1 for side in SIDES), PATIENCE)

    def stop(self) -> None:
        with self._changed:
            for side in SIDES:
                self._answers[side].extend(["close"] * 100)
            self._changed.notify_all()
        self.server.stop()

    def _next(self, side: str) -> Answer:
        with self._changed:
            self._asked[side] += 1
            self._changed.notify_all()
            assert self._changed.wait_for(lambda: self._answers[side], 2 * PATIENCE)
            return self._answers[side].popleft()

    def _serve(self, peer: Peer) -> None:
        while head := peer.head():
            side = "envoy" if b"Envoy/HC" in head else "mesh"
            self.heads[side] = head
            self.bodies[side] = peer.exactly(_length(head))
            answer = self._next(side)
            if isinstance(answer, bytes):
                peer.send(answer)
            elif answer == "hang":
                peer.wait()
                return
            else:
                if answer == "reset":
                    peer.reset()
                return


def _length(head: bytes) -> int:
    found = re.search(rb"(?i)content-length: *([0-9]+)", head)
    return int(found[1]) if found else 0


def flags_of_envoy(twin: Twin, cluster: str = "up") -> dict[int, set[str]]:
    """What Envoy's checks say of the cluster's endpoints, by port."""
    (status,) = [each for each in twin.envoy.clusters()["cluster_statuses"] if each["name"] == cluster]
    return {
        host["address"]["socket_address"]["port_value"]: {
            _NAMES[name] for name in host["health_status"] if name in _NAMES
        }
        for host in status.get("host_statuses", ())
    }


def flags_of_mesh(twin: Twin, cluster: str = "up") -> dict[int, set[str]]:
    """The same of the mesh's."""
    return {host.endpoint.address.port: _flags(host) for host in twin.mesh.plan.clusters[cluster].balancer.hosts}


def _flags(host: Host) -> set[str]:
    return set(host.cell.probed.flags()) if host.cell.probed is not None else set()


_NAMES = {
    "failed_active_health_check": "failed_active_hc",
    "failed_active_degraded_check": "degraded_active_hc",
    "pending_active_hc": "pending_active_hc",
    "excluded_via_immediate_hc_fail": "excluded_via_immediate_hc_fail",
    "active_hc_timeout": "active_hc_timeout",
}


def counts(twin: Twin) -> dict[str, tuple[int, int]]:
    """(Envoy's, the mesh's) statistics of health checks of the cluster "up"."""
    prefix = "cluster.up.health_check."
    ours: dict[str, Any] = twin.mesh.stats()
    theirs = twin.envoy.stats("cluster.up.health_check")
    names = ("attempt", "success", "failure", "passive_failure", "network_failure", "verify_cluster")
    return {name: (theirs[prefix + name], ours[prefix + name]) for name in names}
