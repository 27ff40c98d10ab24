"""Attempts of requests that say themselves where they want to go. Few clusters ask them; the others never come here."""

from __future__ import annotations

from typing import Any

from meshlib.balancing.base import Host
from meshlib.engine.attempt import Attempts
from meshlib.engine.decision import Forward
from meshlib.engine.judging import sweep


class RequestedAttempts(Attempts):
    """Attempts that go to the endpoints the request asks for, one after the other, whatever their health, then to those
    that the balancer picks; by the balancer's own hash of the request, if it has hash policies.
    """

    __slots__ = ("_asked_for",)

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        asks = self.decision.cluster.by_request
        self._asked_for = iter(()) if asks is None else asks.addresses(self.head, self.upstream)
        if asks is not None and asks.hasher is not None:
            source_ip: str = given[-1]
            found = asks.hasher(self.upstream, source_ip, self.runtime.rng)
            self.request_hash = None if found is None else found.hash
            self.set_cookie = None if found is None else found.set_cookie

    def pick(self, now: float) -> Host | None:
        """The next endpoint that is asked for and there; else the balancer's choice."""
        balancer = self.cluster.balancer
        for address in self._asked_for:
            host = balancer.host_at(address)
            if host is not None:
                if now >= self.cluster.next_sweep:
                    sweep(self.runtime, self.cluster, now)
                return host
        return super().pick(now)


def attempts_for(decision: Forward) -> type[Attempts]:
    """What makes the attempts of a request to a cluster."""
    return Attempts if decision.cluster.by_request is None else RequestedAttempts
