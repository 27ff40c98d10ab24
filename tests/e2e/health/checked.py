"""What the tests of health checks ask a mesh."""

from __future__ import annotations

from typing import Any

from meshlib import Mesh
from meshlib.model.health import GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from parts.xds import eventually

HTTP = HttpHealthCheck("/healthz")


def often(check: HttpHealthCheck | TcpHealthCheck | GrpcHealthCheck = HTTP, **more: Any) -> HealthCheck:
    """Twenty times a second, and one result decides."""
    given: dict[str, Any] = {
        "timeout": 2.0,
        "interval": 0.05,
        "no_traffic_interval": 0.05,
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
    }
    return HealthCheck(check, **given | more)


def health(mesh: Mesh, cluster: str = "up") -> dict[int, str]:
    """Availability by port."""
    hosts = mesh.plan.clusters[cluster].balancer.hosts
    return {host.endpoint.address.port: host.availability for host in hosts}


def becomes(mesh: Mesh, expected: dict[int, str], cluster: str = "up") -> None:
    eventually(lambda: health(mesh, cluster) == expected, f"{expected}, not {health(mesh, cluster)}")


def attempts(mesh: Mesh, cluster: str = "up") -> int:
    return mesh.stats()[f"cluster.{cluster}.health_check.attempt"]
