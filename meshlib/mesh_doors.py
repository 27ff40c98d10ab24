"""The doors of a mesh: what applications call through. Each is made when first asked for."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING

from meshlib.engine.observing import wants_out_of_band

if TYPE_CHECKING:
    from meshlib.decorators.guard import Guard
    from meshlib.decorators.policy import Classify, Headers
    from meshlib.drivers.mirrors import Mirrors
    from meshlib.engine.global_limit import RateLimitServices
    from meshlib.engine.plan import Plan
    from meshlib.engine.quota import Quotas, Untold
    from meshlib.grpc.factory import GrpcFactory
    from meshlib.grpc.load_report_client import OutOfBandReports
    from meshlib.grpc.quota_client import QuotaClient
    from meshlib.grpc.rate_limit_client import RateLimitClient
    from meshlib.http.factory import HttpFactory
    from meshlib.identity.upstream import Upstreams
    from meshlib.mesh import Mesh

log = logging.getLogger("meshlib")


class Doors:
    """What `Mesh` has of factories."""

    _misses_grpc = False

    @cached_property
    def http(self: Mesh) -> HttpFactory:  # type: ignore[misc]  # only Mesh is made of this class
        """Clients and transports for httpx and httpx2."""
        from meshlib.http.factory import HttpFactory

        return HttpFactory(self)

    @cached_property
    def grpc(self: Mesh) -> GrpcFactory:  # type: ignore[misc]  # only Mesh is made of this class
        """Channels for grpcio and grpc.aio."""
        from meshlib.grpc.factory import GrpcFactory

        return GrpcFactory(self)

    def guard(  # type: ignore[misc]  # only Mesh is made of this class
        self: Mesh,
        service: str,
        *,
        path: str | None = None,
        method: str = "GET",
        headers: Headers | None = None,
        classify: Classify | None = None,
        exclude: type[Exception] | tuple[type[Exception], ...] = (),
        replayable: bool = True,
    ) -> Guard:
        """A decorator that puts a sync or async function under the policies of a service's route, as they are then:
        timeouts, retries, thresholds, circuit breaker, limits.

            @mesh.guard("payments", path="/charge", method="POST", exclude=CardDeclined)
            async def charge(order: Order) -> Receipt: ...

        `service` (a name or a URL), `path`, `method` and `headers` are the request it stands for, which chooses the
        route; `headers` may be a function of the arguments. What the function raises is what its caller sees in the
        end, with a note; what the mesh refuses is a `CallError`. `classify(result, error)` says which HTTP status a
        result or an exception counts as, None for the usual (`meshlib.decorators.outcome`); `exclude`d exceptions are
        answers, not failures. `replayable=False`: the arguments serve for one attempt, so only what never left is
        retried.
        """
        from meshlib.decorators.guard import Guard
        from meshlib.decorators.policy import GuardPolicy, split_service

        scheme, authority, chosen = split_service(service, path)
        excluded = exclude if isinstance(exclude, tuple) else (exclude,)
        return Guard(
            self, GuardPolicy(scheme, authority, chosen, method, headers or {}, classify, excluded, replayable)
        )

    @cached_property
    def mirrors(self: Mesh) -> Mirrors:  # type: ignore[misc]  # only Mesh is made of this class
        """Copies of requests under way."""
        from meshlib.drivers.mirrors import Mirrors

        return Mirrors()

    @cached_property
    def rate_limit_client(self: Mesh) -> RateLimitClient:  # type: ignore[misc]  # only Mesh is made of this class
        """What asks rate limit services."""
        from meshlib.grpc.rate_limit_client import RateLimitClient

        return RateLimitClient(self)

    @cached_property
    def quota_client(self: Mesh) -> QuotaClient:  # type: ignore[misc]  # only Mesh is made of this class
        """What keeps the quotas that services assign."""
        from meshlib.grpc.quota_client import QuotaClient

        return QuotaClient(self)

    def _quotas(self: Mesh) -> Quotas:  # type: ignore[misc]
        """For filters that take from quotas; without grpcio none is ever assigned."""
        try:
            return self.quota_client
        except ImportError as error:
            self._tell_of_grpc(error)
            return self._untold

    @cached_property
    def _untold(self: Mesh) -> Untold:  # type: ignore[misc]
        from meshlib.engine.quota import Untold

        return Untold()

    def _tell_of_grpc(self, error: ImportError) -> None:
        if not self._misses_grpc:
            self._misses_grpc = True
            log.error("rate limit services are spoken to by grpcio, which is not there: %s", error)

    def _rate_limit_services(self: Mesh) -> RateLimitServices:  # type: ignore[misc]
        """For filters that ask; without grpcio nobody is asked, and they do as they were told for that."""
        try:
            return self.rate_limit_client
        except ImportError as error:
            self._tell_of_grpc(error)
            from meshlib.engine.global_limit import Unreachable

            return Unreachable()

    @cached_property
    def load_reports(self: Mesh) -> OutOfBandReports:  # type: ignore[misc]  # only Mesh is made of this class
        """The streams of load reports that clusters ask for."""
        from meshlib.grpc.load_report_client import OutOfBandReports

        return OutOfBandReports(self)

    def _follow_load_reports(self: Mesh, plan: Plan) -> None:  # type: ignore[misc]
        """Let the streams be those a plan in force asks for; without any, grpcio is not even imported."""
        if "load_reports" not in self.__dict__ and not wants_out_of_band(plan.clusters.values()):
            return
        try:
            self.load_reports.follow(plan)
        except ImportError as error:
            log.error("load reports out of band need grpcio, so none are asked for: %s", error)

    @cached_property
    def upstreams(self: Mesh) -> Upstreams:  # type: ignore[misc]
        """TLS contexts of the clusters, made of the mesh's identity, of files, or of the bootstrap's providers."""
        from meshlib.identity.providers import ProviderInstances
        from meshlib.identity.upstream import Upstreams, named_identities

        instances = getattr(self.source, "certificate_providers", tuple)
        return Upstreams(ProviderInstances(named_identities(self.identity), instances))
