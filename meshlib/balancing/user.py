"""Balancers of the application (`meshlib.plugins`), watched: one that fails is told about, and takes no call down."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from meshlib.balancing.base import Balancer, Host, Rng
from meshlib.balancing.round_robin import round_robin
from meshlib.model.lb import ROUND_ROBIN, UserLbPolicy
from meshlib.model.metadata import Struct, Value
from meshlib.plugins import UserBalancer, find_balancer

log = logging.getLogger("meshlib")

INSTEAD = "balanced round robin instead"


class WatchedBalancer:
    """Asks the application's balancer, and goes round robin for a request for which it has no host of its own."""

    __slots__ = ("_inner", "_instead", "_members", "_name", "_told")

    def __init__(self, name: str, inner: UserBalancer, hosts: Sequence[Host]) -> None:
        self._name = name
        self._inner = inner
        self._members = frozenset(hosts)
        self._instead = round_robin(ROUND_ROBIN, hosts)
        self._told = False

    def pick(self, request_hash: int | None, rng: Rng, attempt: int = 0) -> Host | None:
        """What the application's balancer says, if it is one of its hosts."""
        try:
            host = self._inner.pick(request_hash, rng, attempt)
            if host in self._members:
                found: Host = host
                return found
            if not self._told:
                self._told = True
                log.error("balancer %r picked %r, none of its hosts: %s", self._name, host, INSTEAD)
        except Exception:  # code of the application's, of which nothing is known
            if not self._told:
                self._told = True
                log.exception("balancer %r raised: %s", self._name, INSTEAD)
        return self._instead.pick(request_hash, rng, attempt)


def user_balancer(policy: UserLbPolicy, hosts: Sequence[Host]) -> Balancer:
    """The application's balancer for these hosts, or round robin when it cannot be built."""
    try:
        factory = find_balancer(policy.name)
        if factory is not None:
            return WatchedBalancer(policy.name, factory(plain(policy.config), tuple(hosts)), hosts)
        log.error("no balancer %r is registered: %s", policy.name, INSTEAD)
    except Exception:  # code of the application's, of which nothing is known
        log.exception("balancer %r cannot be built: %s", policy.name, INSTEAD)
    return round_robin(ROUND_ROBIN, hosts)


def plain(struct: Struct) -> Mapping[str, Any]:
    """A frozen JSON object as the plain one it was made from."""
    return {key: _plain(value) for key, value in struct.items}


def _plain(value: Value) -> Any:
    match value:
        case Struct():
            return plain(value)
        case tuple():
            return [_plain(item) for item in value]
    return value
