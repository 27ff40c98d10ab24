"""Everything a source knows: what calls asked for, what Consul answered, and the snapshot that comes of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import ClusterLoadAssignment
from meshlib.model.listener import HttpConnectionManager, Listener
from meshlib.model.report import Report, ResourceError
from meshlib.model.route import RouteConfiguration
from meshlib.model.snapshot import Snapshot
from meshlib.sources.consul.blocking import Answered
from meshlib.sources.consul.health import decode_instances
from meshlib.sources.consul.instances import KnownInstances, assignment
from meshlib.sources.consul.names import ServiceName
from meshlib.sources.consul.query import Query, Target
from meshlib.sources.consul.service import ConsulOptions, Service

_MAX_ABSENT = 64  # services that are watched although nobody has registered them; the oldest are given up
_MAX_FOREIGN = 1024  # authorities remembered to be no names of Consul's


class Catalog:
    """One thread writes it. Each change is one store, so that a child forked meanwhile finds it whole."""

    def __init__(self, options: ConsulOptions) -> None:
        self._options = options
        self._authorities: dict[str, ServiceName] = {}
        self._foreign: dict[str, None] = {}
        self._declared: frozenset[ServiceName] = frozenset()
        self._services: dict[ServiceName, Service] = {}
        self._instances: dict[Query, KnownInstances] = {}
        self._local_datacenter = ""
        self._assignments: dict[str, tuple[tuple[int, ...], list[object], ClusterLoadAssignment]] = {}
        self._version = 0

    # What is wanted --------------------------------------------------------------------------------------------------

    def declare(self, name: ServiceName) -> None:
        """A service that is there whatever Consul knows of it."""
        self._declared |= {name}
        self.ask(str(name).lower(), name)

    def ask(self, authority: str, name: ServiceName | None) -> None:
        """An authority that a call wants; None: it is no name of Consul's. Raises `ResourceError` for a service that
        cannot be asked for.
        """
        if name is None:
            self._foreign[authority] = None
            return
        if name not in self._services:
            self._services[name] = Service(name, self._options)
        self._authorities[authority] = name

    def give_up(self) -> list[str]:
        """Forget the authorities beyond what is remembered of unknown ones; each may be asked for again."""
        foreign = list(self._foreign)[: max(0, len(self._foreign) - _MAX_FOREIGN)]
        for authority in foreign:
            del self._foreign[authority]
        absent = [authority for authority in self._authorities if self._is_absent(authority)]
        gone = absent[: max(0, len(absent) - _MAX_ABSENT)]
        for authority in gone:
            name = self._authorities.pop(authority)
            if name not in self._authorities.values():
                del self._services[name]
        return [*foreign, *gone]

    def queries(self) -> set[Query]:
        """Everything to watch."""
        return {query for service in self._services.values() for query in service.queries()}

    @property
    def is_settled(self) -> bool:
        """Whether every declared service is known."""
        return all(self._services[name].active is not None for name in self._declared)

    @property
    def deadline(self) -> float | None:
        """When something kept after a loss of Consul's state is let go (monotonic seconds)."""
        moments = [known.until for known in self._instances.values()]
        moments += [service.deadline for service in self._services.values()]
        return min((moment for moment in moments if moment is not None), default=None)

    # What is told ----------------------------------------------------------------------------------------------------

    def tell(self, query: Query, answer: Any, index: Answered, now: float, report: Report) -> bool:
        """An answer. Whether anything is different now; what cannot be used is reported, and changes nothing."""
        was_away = index.went_back or index.after_failure
        grace = now + self._options.reset_grace if was_away else None
        try:
            changed = self._tell_instances(query, answer, grace, report)
            for service in self._services.values():
                if service.chain_query == query:
                    service.tell_chain(answer, report, hold_until=grace)
        except ResourceError as error:
            report.rejected(error)
            return False
        return self.settle(now) or changed

    def no_chains(self, query: Query, now: float) -> bool:
        """Consul says that it has no discovery chains."""
        for service in self._services.values():
            if service.chain_query == query:
                service.without_chain()
        return self.settle(now)

    def settle(self, now: float) -> bool:
        """Let go of what was kept long enough, and put what waited into force. Whether that changed anything."""
        expired = [known.expire(now) for known in list(self._instances.values())]
        settled = [service.settle(self._instances, now) for service in self._services.values()]
        self._forget_instances()
        for service in self._services.values():
            if service.active and service.active.datacenter and not service.name.datacenter:
                self._local_datacenter = service.active.datacenter
        return any(expired) or any(settled)

    def _tell_instances(self, query: Query, answer: Any, grace: float | None, report: Report) -> bool:
        target = self._target(query)
        if target is None:
            return False
        is_remote = bool(self._local_datacenter) and target.datacenter not in ("", self._local_datacenter)
        instances = decode_instances(answer, target.service, report, is_remote=is_remote)
        known = self._instances.get(query)
        if known is None:
            known = KnownInstances()
            known.tell(instances, keep_until=None)
            self._instances[query] = known
            return True
        return known.tell(instances, keep_until=grace)

    def _target(self, query: Query) -> Target | None:
        """The target a health query is about; None for another query, and for one nobody wants any more."""
        for service in self._services.values():
            if (found := service.target_of(query)) is not None:
                return found
        return None

    def _forget_instances(self) -> None:
        for query in self._instances.keys() - self.queries():
            del self._instances[query]

    # What comes of it ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All of it, consistent in itself."""
        listeners: dict[str, Listener] = {}
        routes: dict[str, RouteConfiguration] = {}
        clusters: dict[str, Cluster] = {}
        endpoints: dict[str, ClusterLoadAssignment] = {}
        absent = set(self._foreign)
        for authority, name in self._authorities.items():
            active = self._services[name].active
            if active is None:
                continue
            if self._is_absent(authority):
                absent.add(authority)
                continue
            listeners[authority] = Listener(authority, (HttpConnectionManager(active.routes.name),), api=True)
            routes[active.routes.name] = active.routes
            for found, queries in zip(active.clusters, active.queries, strict=True):
                clusters.setdefault(found.cluster.name, found.cluster)
                endpoints.setdefault(found.cluster.name, self._assignment(found.cluster.name, queries))
        self._assignments = {name: self._assignments[name] for name in endpoints}
        self._version += 1
        return Snapshot(
            MappingProxyType(listeners),
            MappingProxyType(routes),
            MappingProxyType(clusters),
            MappingProxyType(endpoints),
            frozenset(absent),
            on_demand=True,
            version=str(self._version),
        )

    def _is_absent(self, authority: str) -> bool:
        """Whether Consul has never heard of it: no instance and no config entry, ever. A service that had some and has
        none is another matter: calls to it must fail (UH), not leave the mesh.
        """
        service = self._services[self._authorities[authority]]
        if service.active is None or service.name in self._declared:
            return False
        if not service.was_seen:
            queries = (query for group in service.active.queries for query in group)
            service.was_seen = any(known.current for query in queries if (known := self._instances.get(query)))
        return not service.was_seen

    def _assignment(self, name: str, queries: Iterable[Query]) -> ClusterLoadAssignment:
        """The endpoints of a cluster; the same object again where nothing in them has changed."""
        groups = [known.current if (known := self._instances.get(query)) else () for query in queries]
        identity = tuple(map(id, groups))
        last = self._assignments.get(name)
        if last is not None and last[0] == identity:
            return last[2]
        made = assignment(name, groups, self._options.nearest)
        self._assignments[name] = (identity, list(groups), made)
        return made
