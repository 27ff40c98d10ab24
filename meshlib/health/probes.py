"""Which probe makes which check."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.health.grpc_probe import GrpcHealth, GrpcProbe
from meshlib.health.probe import MakeProbe, Place, Probe, Secure, Target
from meshlib.health.tcp_probe import TcpProbe
from meshlib.model.health import GrpcHealthCheck, HealthCheck, TcpHealthCheck


def probes(secure: Secure, grpc: Callable[[], GrpcHealth]) -> MakeProbe:
    """The maker of probes of one mesh; `grpc` makes the client of gRPC's health service when it is first needed."""

    def make(place: Place, config: HealthCheck, target: Target) -> Probe:
        check, reuse = config.check, config.reuse_connection
        if isinstance(check, GrpcHealthCheck):
            return GrpcProbe(config, check, place, target.hostname, grpc())
        if isinstance(check, TcpHealthCheck):
            return TcpProbe(check, target, secure, reuse)
        from meshlib.health.http_probe import HttpProbe

        return HttpProbe(check, target, secure, reuse)

    return make
