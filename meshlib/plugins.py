"""What an application adds to the mesh: load balancers of its own, by name.

A configuration names one where it says how to balance: `load_balancing_policy` holds an `xds.type.v3.TypedStruct` whose
type URL ends in the name (`type.googleapis.com/acme.LeastQueued`) and whose value is the balancer's configuration. From
code it is `meshlib.model.lb.UserLbPolicy("acme.LeastQueued", Struct.of({...}))`.

The name leads to a factory by `register_balancer`, else by an entry point of the group `meshlib.balancers` of any
installed distribution:

    [project.entry-points."meshlib.balancers"]
    "acme.LeastQueued" = "acme.mesh:least_queued"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

__all__ = ["BalancerFactory", "BalancerImportError", "UserBalancer", "find_balancer", "register_balancer"]

GROUP = "meshlib.balancers"


class UserBalancer(Protocol):
    """One policy over one set of hosts. Picks come from any thread, and from the event loop: no lock, no waiting."""

    def pick(self, request_hash: int | None, rng: Any, attempt: int = 0) -> Any:
        """One of the hosts it was built with.

        `request_hash` is that of the route's hash policies (64 bits), `rng.random()` gives floats in [0, 1), `attempt`
        counts the picks turned down before for the same request. Anything else than one of the hosts, or an exception,
        is logged once, and the request goes round robin.
        """


class BalancerFactory(Protocol):
    """Builds a balancer. Called again when the hosts change; never for less than two."""

    def __call__(self, config: Mapping[str, Any], hosts: Sequence[Any]) -> UserBalancer:
        """`config` is the value of the TypedStruct. `hosts` can all be used now; each has `address` ("10.0.0.1:80"),
        `weight`, `locality`, `priority`, `metadata` (the items of `envoy.lb`) and `cell.active` (requests in flight).
        """


class BalancerImportError(ImportError):
    """The entry point of a balancer could not be imported; the reason is its cause."""


_registered: dict[str, BalancerFactory] = {}


def register_balancer(name: str, factory: BalancerFactory) -> None:
    """Let configurations name a balancer. Register it before the mesh starts; a second factory replaces the first in
    configurations that come later.
    """
    _registered[name] = factory


def find_balancer(name: str) -> BalancerFactory | None:
    """The factory of that name, None when nobody has one. `BalancerImportError` when its entry point fails."""
    found = _registered.get(name)
    if found is not None:
        return found
    for entry in entry_points(group=GROUP, name=name):
        factory = _loaded(entry)
        register_balancer(name, factory)
        return factory
    return None


def _loaded(entry: EntryPoint) -> BalancerFactory:
    try:
        factory: BalancerFactory = entry.load()
    except Exception as error:
        raise BalancerImportError(f"entry point {entry.value} raised {type(error).__name__}: {error}") from error
    return factory
