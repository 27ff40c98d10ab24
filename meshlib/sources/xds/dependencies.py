"""What to subscribe to, and when what came makes a consistent snapshot (gRFC A74; Envoy calls it warming).

Resources point at each other: LDS → RDS → CDS → EDS. Of each resource there may be two versions: the **latest** one
that was accepted, and the **active** one that is in the snapshot. The latest becomes active when everything it points
at is active, or known not to exist. Until then the older version stays, with all that it points at: no snapshot ever
sends a request along a new route to a cluster that is still on its way.

Two ways to ask. By name (proxyless): listeners are asked for one by one, and what they lead to by name; what nothing
leads to any more is dropped. By wildcard (full sidecar): all listeners and clusters come unasked. There a route to a
cluster that nobody sent waits `grace` seconds for it, since no timer of the protocol will say that it does not exist.

What the control plane removes stays as long as something active points at it (gRFC A88: last good data is kept, and a
make-before-break in the wrong order breaks nothing); only a listener goes at once. Pure: no thread, clock or I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshlib.model.report import Issue
from meshlib.model.snapshot import Snapshot
from meshlib.sources.xds.collections import ALL_SCOPES, HostsAdded, Key, hosts_of, is_collection, members
from meshlib.sources.xds.decode.references import References, Resource
from meshlib.sources.xds.types import (
    CLUSTER,
    CLUSTER_LOAD_ASSIGNMENT,
    LISTENER,
    MAKE_BEFORE_BREAK,
    ROUTE_CONFIGURATION,
    SCOPED_ROUTE_CONFIGURATION,
    VIRTUAL_HOST,
    WILDCARD,
)

_BOTTOM_UP = (
    CLUSTER_LOAD_ASSIGNMENT,
    CLUSTER,
    VIRTUAL_HOST,
    ROUTE_CONFIGURATION,
    SCOPED_ROUTE_CONFIGURATION,
    LISTENER,
)
DEFAULT_GRACE = 2.0
"""Seconds. Servers send clusters before the routes to them, so that waiting is for those that do not."""
FIRST_GRACE = 0.1


@dataclass(frozen=True, slots=True, eq=False)
class _Version:
    """One version of a resource, compared by identity: comparing ten thousand endpoints would not be free."""

    resource: Resource | None  # None: a collection
    children: tuple[Key, ...]


def _children(references: References) -> tuple[Key, ...]:
    return (
        *((ROUTE_CONFIGURATION, name) for name in sorted(references.routes)),
        *((CLUSTER, name) for name in sorted(references.clusters)),
        *((CLUSTER_LOAD_ASSIGNMENT, name) for name in sorted(references.endpoints)),
        *((ALL_SCOPES,) if references.scopes else ()),
        *((hosts_of(references.hosts),) if references.hosts else ()),
    )


class Dependencies:
    """Feed it what arrives, call `settle`, and read `subscriptions`, `snapshot` and `deadline`."""

    def __init__(self, *, wildcard: bool, grace: float = DEFAULT_GRACE, first_grace: float = FIRST_GRACE) -> None:
        self._wildcard = wildcard
        self._later_grace = grace
        self._first_grace = first_grace
        self._roots: dict[str, None] = {}  # in the order they were asked for
        self._latest: dict[Key, _Version] = {}
        self._active: dict[Key, _Version] = {}
        self._absent: set[Key] = set()
        self._answered: set[str] = set()
        # Virtual hosts by the names they were asked for, in that order: "" before the answer, None where there is none.
        self._hosts: dict[str, str | None] = {}
        self._hosts_added = HostsAdded()
        self._awaited: dict[str, float] = {}  # clusters of the wildcard mode, by when the first route named them
        self._settled: tuple[tuple[str, ...], dict[Key, _Version]] | None = None
        self._is_first = True
        self._number = 0
        # What the edges between resources decide, kept while only contents change: most updates are endpoints.
        self._edges_changed = True
        self._wanted: set[Key] = set()
        self._live: tuple[Key, ...] = ()

    # What arrives --------------------------------------------------------------------------------------------------

    def want(self, listener: str) -> None:
        """Follow a listener by name. The wildcard mode has them all anyway."""
        if not self._wildcard and listener not in self._roots:
            self._roots[listener] = None
            self._edges_changed = True

    def forget_absent(self, keep: int) -> tuple[str, ...]:
        """Follow no more the listeners there are none of, but for the `keep` asked for last; returns their names."""
        if len(self._absent) <= keep:
            return ()
        absent = [name for name in self._roots if (LISTENER, name) in self._absent]
        dropped = tuple(absent[: max(len(absent) - keep, 0)])
        for name in dropped:
            del self._roots[name]
        self._edges_changed = self._edges_changed or bool(dropped)
        return dropped

    def want_host(self, name: str) -> None:
        """Ask for a virtual host, `<route configuration>/<authority>`."""
        if name not in self._hosts:
            self._hosts[name] = ""
            self._edges_changed = True

    def forget_absent_hosts(self, keep: int) -> tuple[str, ...]:
        """Ask no more for the virtual hosts there are none of, but for the `keep` asked for last."""
        absent = [name for name, found in self._hosts.items() if found is None]
        dropped = tuple(absent[: max(len(absent) - keep, 0)])
        for name in dropped:
            del self._hosts[name]
        self._edges_changed = self._edges_changed or bool(dropped)
        return dropped

    def found_host(self, name: str, own: str) -> None:
        """A virtual host that was asked for by this name has come, under its own."""
        if name in self._hosts:
            self._edges_changed = self._edges_changed or self._hosts[name] != own
            self._hosts[name] = own

    def update(self, type_url: str, name: str, resource: Resource, references: References) -> None:
        """A new version was accepted."""
        key, version = (type_url, name), _Version(resource, _children(references))
        active = self._active.get(key)
        if active is not None and active is self._latest.get(key) and active.children == version.children:
            self._active[key] = version
        else:
            self._edges_changed = True
        self._latest[key] = version
        self._absent.discard(key)
        if type_url == VIRTUAL_HOST:
            self.found_host(name, name)

    def remove(self, type_url: str, name: str) -> None:
        """The control plane took a resource away, or said (or let a timer say) that there is none.

        The name `*` means that a wildcard subscription has been answered by silence.
        """
        if name == WILDCARD:
            self.answered(type_url)
            return
        key = (type_url, name)
        self._latest.pop(key, None)
        self._absent.add(key)
        if name in self._hosts and type_url == VIRTUAL_HOST:
            self._hosts[name] = None
        self._edges_changed = True
        if type_url == LISTENER:
            self._active.pop(key, None)

    def answered(self, type_url: str) -> None:
        """A response of the type was processed: of a wildcard type everything there is has now been seen."""
        if type_url not in self._answered:
            self._answered.add(type_url)
            self._edges_changed = True

    # What follows --------------------------------------------------------------------------------------------------

    def settle(self, now: float) -> Snapshot | None:
        """Activate what is complete and drop what nothing leads to. A snapshot, if there is a new one to publish."""
        deadline = self.deadline
        if self._edges_changed or (deadline is not None and now >= deadline):
            self._follow_edges(now)
        if not self._is_complete():
            return None
        state = (
            (*self._absent_listeners(), *self._answered_hosts()),
            {key: self._active[key] for key in self._live},
        )
        if state == self._settled:
            return None
        self._settled, self._is_first = state, False
        self._number += 1
        return self._snapshot()

    def _follow_edges(self, now: float) -> None:
        self._gather()
        self._await_clusters(now)
        for type_url in _BOTTOM_UP:
            self._activate(type_url)
        self._prune()
        self._live = tuple(sorted(self._find_live()))
        self._edges_changed = False

    def subscriptions(self) -> Mapping[str, frozenset[str]]:
        """The names to be subscribed to after the last `settle`, by type; `*` for everything."""
        wanted: dict[str, set[str]] = {type_url: set() for type_url in MAKE_BEFORE_BREAK}
        for type_url, name in self._wanted:
            if not is_collection((type_url, name)):
                wanted[type_url].add(name)
        for type_url in (SCOPED_ROUTE_CONFIGURATION, VIRTUAL_HOST):  # whoever wants a collection gets all its members
            collections = {name for kind, name in self._wanted if kind == type_url and is_collection((kind, name))}
            wanted[type_url] = {WILDCARD} if collections else set()
            if type_url == VIRTUAL_HOST:
                wanted[type_url] |= {name for name in self._hosts if hosts_of(_routes_of(name))[1] in collections}
        if self._wildcard:
            wanted[LISTENER] = {WILDCARD}
            wanted[CLUSTER] = {WILDCARD}
        return {type_url: frozenset(names) for type_url, names in wanted.items()}

    @property
    def deadline(self) -> float | None:
        """When `settle` must be called again though nothing arrived: a cluster is waited for no longer."""
        return min(self._awaited.values()) + self._grace if self._awaited else None

    @property
    def _grace(self) -> float:
        return self._first_grace if self._is_first else self._later_grace

    def take_issues(self) -> tuple[Issue, ...]:
        """What of the last snapshots' resources could not be used together."""
        issues, self._hosts_added.issues = tuple(self._hosts_added.issues), []
        return issues

    # Completeness --------------------------------------------------------------------------------------------------

    def _await_clusters(self, now: float) -> None:
        """Start the clock of clusters that routes name and the wildcard has not brought; stop it for the others."""
        if not self._wildcard or CLUSTER not in self._answered:
            return
        missing = {
            name
            for version in (*self._latest.values(), *self._active.values())
            for type_url, name in version.children
            if type_url == CLUSTER and not self._is_known((CLUSTER, name))
        }
        for name in missing:
            self._awaited.setdefault(name, now)
        for name in self._awaited.keys() - missing:
            del self._awaited[name]
        for name, since in list(self._awaited.items()):
            if now >= since + self._grace:
                self._absent.add((CLUSTER, name))
                del self._awaited[name]

    def _gather(self) -> None:
        """Have the collections that something points at point at what there is now. Of virtual hosts more may come at
        any time, and nothing waits for them; scopes are there once the control plane has answered.
        """
        collections = {
            key
            for version in (*self._latest.values(), *self._active.values())
            for key in version.children
            if is_collection(key)
        }
        for collection in collections:
            if collection != ALL_SCOPES or SCOPED_ROUTE_CONFIGURATION in self._answered:
                found, before = members(collection, self._latest), self._latest.get(collection)
                if before is None or before.children != found:
                    self._latest[collection] = _Version(None, found)

    def _is_known(self, key: Key) -> bool:
        return key in self._latest or key in self._active or key in self._absent

    def _is_pending(self, keys: Iterable[Key]) -> bool:
        """Whether something is unknown that these lead to, before anything active is reached."""
        queue, seen = list(keys), set()
        while queue:
            key = queue.pop()
            if key in seen or key in self._active or key in self._absent:
                continue
            seen.add(key)
            version = self._latest.get(key)
            if version is None:
                return True
            queue.extend(version.children)
        return False

    def _is_ready(self, key: Key) -> bool:
        version = self._latest.get(key)
        return key in self._active or (version is not None and not self._is_pending(version.children))

    def _activate(self, type_url: str) -> None:
        for key, version in self._latest.items():
            if key[0] != type_url or self._active.get(key) is version:
                continue
            if type_url == VIRTUAL_HOST and is_collection(key):  # one that waits for its cluster holds up no other
                ready = tuple(member for member in version.children if self._is_ready(member))
                self._active[key] = _Version(None, ready) if ready != version.children else version
            elif not self._is_pending(version.children):
                self._active[key] = version

    def _is_complete(self) -> bool:
        """Whether there is something to publish: all of the first wildcard answers, or any listener by name."""
        if not self._is_first:
            return True
        listeners = [key for key in self._latest if key[0] == LISTENER]
        if self._wildcard:
            return {LISTENER, CLUSTER} <= self._answered and all(key in self._active for key in listeners)
        return bool(self._absent_listeners()) or any(key in self._active for key in listeners)

    # Reachability --------------------------------------------------------------------------------------------------

    def _reach(self, keys: Iterable[Key], *versions: Mapping[Key, _Version]) -> set[Key]:
        queue, seen = list(keys), set()
        while queue:
            key = queue.pop()
            if key in seen:
                continue
            seen.add(key)
            for known in versions:
                if key in known:
                    queue.extend(known[key].children)
        return seen

    def _unasked(self, versions: Mapping[Key, _Version]) -> Iterator[Key]:
        """What is there without anything leading to it: all listeners and clusters, in the wildcard mode."""
        return (key for key in versions if self._wildcard and key[0] in {LISTENER, CLUSTER})

    def _find_wanted(self) -> set[Key]:
        roots = [(LISTENER, name) for name in self._roots]
        return self._reach([*roots, *self._unasked(self._latest), *self._kept()], self._latest, self._active)

    def _kept(self) -> set[Key]:
        """What the active listeners lead to along active versions: it must not go while they stand."""
        return self._reach([key for key in self._active if key[0] == LISTENER], self._active)

    def _find_live(self) -> set[Key]:
        """What the snapshot holds: as `_kept`, and in the wildcard mode every active cluster with its endpoints."""
        clusters = self._reach(self._unasked(self._active), self._active)
        return {key for key in self._kept() | clusters if key in self._active}

    def _prune(self) -> None:
        wanted = self._wanted = self._find_wanted()
        for known in (self._latest, self._active):
            for key in [key for key in known if key not in wanted]:
                del known[key]
        self._absent &= wanted

    # The snapshot --------------------------------------------------------------------------------------------------

    def _absent_listeners(self) -> tuple[str, ...]:
        return tuple(sorted(name for type_url, name in self._absent if type_url == LISTENER))

    def _answered_hosts(self) -> tuple[str, ...]:
        return tuple(
            sorted(name for name, own in self._hosts.items() if own is None or (VIRTUAL_HOST, own) in self._active)
        )

    def _with_hosts(self, routes: dict[str, Any]) -> dict[str, Any]:
        """The route configurations with the virtual hosts that came for them."""
        for name, config in routes.items():
            collection = self._active.get(hosts_of(name)) if config.vhds else None
            if collection is not None:
                came = (self._active.get(key) for key in collection.children)
                hosts: Any = tuple(version.resource for version in came if version is not None)
                routes[name] = self._hosts_added.to(config, hosts)
        return routes

    def _snapshot(self) -> Snapshot:
        by_type: dict[str, dict[str, Any]] = {type_url: {} for type_url in MAKE_BEFORE_BREAK}
        for key in self._live:
            if not is_collection(key):
                by_type[key[0]][key[1]] = self._active[key].resource
        return Snapshot(
            listeners=by_type[LISTENER],
            routes=self._with_hosts(by_type[ROUTE_CONFIGURATION]),
            clusters=by_type[CLUSTER],
            endpoints=by_type[CLUSTER_LOAD_ASSIGNMENT],
            absent=frozenset(self._absent_listeners()),
            on_demand=not self._wildcard,
            version=str(self._number),
            scopes=by_type[SCOPED_ROUTE_CONFIGURATION],
            answered_hosts=frozenset(self._answered_hosts()),
        )


def _routes_of(host: str) -> str:
    """The route configuration of a virtual host that was asked for: an authority has no slash."""
    return host.rpartition("/")[0]
