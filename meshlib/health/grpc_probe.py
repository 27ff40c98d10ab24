"""Checks by `grpc.health.v1.Health/Check`, with grpcio on connections as calls have them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from meshlib.balancing.base import Host
from meshlib.engine.cluster import ClusterPlan
from meshlib.health.probe import Place, checked_endpoint
from meshlib.model.health import GrpcHealthCheck, HealthCheck
from meshlib.model.request import RequestHead
from meshlib.policy.health import Finding
from meshlib.routing.headers import compile_mutations

PATH = "/grpc.health.v1.Health/Check"
Metadata = tuple[tuple[str, str], ...]


class GrpcHealth(Protocol):
    """Who asks (`meshlib.grpc.health_client`)."""

    def ask(
        self,
        cluster: ClusterPlan,
        host: Host,
        head: RequestHead,
        service: str,
        timeout: float,
        done: Callable[[Finding], None],
    ) -> Callable[[], None]:
        """Begin to ask; `done` is called once, on any thread. Returns what gives the question up."""

    def let_go(self, cluster: ClusterPlan, host: Host, head: RequestHead) -> None:
        """Close the connection it asked over."""


class GrpcProbe:
    """Of one endpoint."""

    def __init__(
        self, config: HealthCheck, check: GrpcHealthCheck, place: Place, hostname: str, health: GrpcHealth
    ) -> None:
        self._service = check.service_name
        self._reuse = config.reuse_connection
        self._timeout = config.timeout
        self._health = health
        self._place = place
        self._head = head_of(check, hostname)

    async def check(self) -> Finding:
        """Ask, and wait for the answer without taking part in grpcio's own loops."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Finding] = loop.create_future()

        def done(finding: Finding) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(_answer, answer, finding)

        give_up = self._health.ask(*self._dialled(), self._head, self._service, self._timeout, done)
        try:
            return await answer
        except asyncio.CancelledError:
            give_up()
            raise
        finally:
            if not self._reuse:
                await self.aclose()

    async def aclose(self) -> None:
        """Let go of the connection."""
        self._health.let_go(*self._dialled(), self._head)

    def _dialled(self) -> tuple[ClusterPlan, Host]:
        """The cluster, and the endpoint as checks dial it."""
        cluster, host = self._place()
        endpoint = checked_endpoint(host.endpoint)
        if endpoint is host.endpoint:
            return cluster, host
        return cluster, Host(endpoint, host.cell, str(endpoint.address), host.locality, host.priority)


def head_of(check: GrpcHealthCheck, authority: str) -> RequestHead:
    """What every question is asked with."""
    headers: list[tuple[bytes, bytes]] = []
    mutate = compile_mutations(check.initial_metadata)
    head = RequestHead("POST", "http", authority, PATH, headers)
    return head if mutate is None else RequestHead("POST", "http", authority, PATH, mutate(headers, head))


def _answer(waiting: asyncio.Future[Finding], finding: Finding) -> None:
    if not waiting.done():
        waiting.set_result(finding)
