"""What a mesh has of active health checks: begun with the first plan that asks for any, ended with the mesh."""

from __future__ import annotations

import random
import time
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshlib.balancing.base import Host
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.engine.plan import Plan
    from meshlib.grpc.health_client import HealthClient
    from meshlib.health.checks import HealthChecks
    from meshlib.mesh import Mesh

_OWN = ("health_checks", "grpc_health")  # in this order they are closed


class Checked:
    """The mesh's part in them."""

    @cached_property
    def health_checks(self: Mesh) -> HealthChecks:  # type: ignore[misc]  # only Mesh is made of this class
        """Those that clusters ask for."""
        from meshlib.health.checks import HealthChecks
        from meshlib.health.probes import probes

        rng = random.Random(self._seed)  # noqa: S311  for jitter; calls have another, or a seed would not repeat them
        make = probes(self.upstreams.secure, lambda: self.grpc_health)
        return HealthChecks(self.runtime, rng, make, lambda: self.runtime.background(self._compile_again))

    @cached_property
    def grpc_health(self: Mesh) -> HealthClient:  # type: ignore[misc]  # only Mesh is made of this class
        """The client of gRPC's health service. Raises ImportError without grpcio."""
        try:
            from meshlib.grpc.health_client import HealthClient
        except ImportError as error:
            raise ImportError(f"checks by grpc.health.v1 need grpcio: {error}") from error
        return HealthClient(self)

    def _follow_health_checks(self: Mesh, plan: Plan) -> None:  # type: ignore[misc]
        """Let the checks be those a plan in force asks for; without any, nothing of them is even imported."""
        if not self._started:  # closed meanwhile
            return
        asked = any(cluster.config.health_checks for cluster in plan.clusters.values())
        if asked or "health_checks" in self.__dict__:
            self.health_checks.follow(plan)

    def _compile_again(self: Mesh) -> None:  # type: ignore[misc]
        """Put the same snapshot into force once more: an endpoint that it does not name has failed its checks."""
        with self._publishing:
            before = self.runtime.plan
            plan = self.runtime.compile(before.snapshot, before)
            self.runtime.install(plan, time.monotonic())
            self._follow_health_checks(plan)

    def _take_out(self, cluster: ClusterPlan, host: Host) -> None:
        """A response said that its endpoint is to be taken out at once."""
        checks: HealthChecks | None = self.__dict__.get("health_checks")
        if checks is not None:
            checks.take_out(cluster, host)

    def _wait_first_checks(self, seconds: float) -> None:
        """Block until every endpoint has been checked once, or the time is over."""
        checks: HealthChecks | None = self.__dict__.get("health_checks")
        if checks is not None:
            checks.wait_first(seconds)

    def _close_health_checks(self) -> None:
        for name in _OWN:
            own: HealthChecks | HealthClient | None = self.__dict__.pop(name, None)
            if own is not None:
                own.close()

    def _keep_health_checks(self) -> None:
        """In a forked child: what is there is the parent's."""
        for name in _OWN:
            parents: HealthChecks | HealthClient | None = self.__dict__.pop(name, None)
            if parents is not None:
                parents.keep()
