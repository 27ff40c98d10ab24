"""Measured: the observer that turns events into measurements. There is none where nobody asked for metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshlib.engine.events import (
    AttemptEnded,
    BreakerChanged,
    CallEnded,
    Event,
    HealingChanged,
    RateLimited,
    RequestServed,
)
from meshlib.telemetry.grpc_names import service_and_method
from meshlib.telemetry.methods import method_name
from meshlib.telemetry.metrics import catalogue
from meshlib.telemetry.metrics.cells import Measurements
from meshlib.telemetry.urls import split_authority

_MAX_NAMES = 1000


class Measured:
    """An `Observer`. Hosts are named as callers name them, but only the first thousand: Cells bound the rest."""

    __slots__ = ("_by_event", "_record", "_servers")

    def __init__(self, measurements: Measurements) -> None:
        self._record = measurements.record
        self._servers: dict[str, str] = {}
        self._by_event: dict[type, Callable[[Any], None]] = {
            AttemptEnded: self._attempt,
            CallEnded: self._call,
            RequestServed: self._served,
            RateLimited: self._limited,
            BreakerChanged: self._breaker,
            HealingChanged: self._healing,
        }

    def __call__(self, event: Event) -> None:
        """Measure one event."""
        measure = self._by_event.get(type(event))
        if measure is not None:
            measure(event)

    def _attempt(self, event: AttemptEnded) -> None:
        self._record(catalogue.UPSTREAM_TIME, (event.cluster,), event.duration * 1000)

    def _call(self, event: CallEnded) -> None:
        info, flag = event.info, event.flag
        server = self._servers.get(event.authority) or self._server(event.authority)
        if info.grpc_status is not None:
            service, method = service_and_method(event.path)
            labels = (service, method, str(info.grpc_status), server, info.cluster)
            self._record(catalogue.RPC_CLIENT_DURATION, labels, event.duration * 1000)
            return
        status = "" if event.status is None else str(event.status)
        error = status if event.status is not None and event.status >= 400 else "" if flag is None else flag.value
        labels = (method_name(event.method), server, status, error, info.cluster)
        self._record(catalogue.CLIENT_DURATION, labels, event.duration)

    def _served(self, event: RequestServed) -> None:
        if event.grpc_status is not None:
            called = (*service_and_method(event.path), str(event.grpc_status))
            self._record(catalogue.RPC_SERVER_DURATION, called, event.duration * 1000)
            return
        status = "" if event.status is None else str(event.status)
        error = status if event.status is None or event.status >= 500 else ""
        route = event.route or ("" if event.flag is None else event.flag.value)
        labels = (
            method_name(event.method),
            route,
            status,
            error,
        )
        self._record(catalogue.SERVER_DURATION, labels, event.duration)

    def _limited(self, event: RateLimited) -> None:
        self._record(catalogue.RATE_LIMITED, (event.name,), 1)

    def _breaker(self, event: BreakerChanged) -> None:
        self._record(catalogue.BREAKER_CHANGES, (event.name, event.new), 1)

    def _healing(self, event: HealingChanged) -> None:
        self._record(catalogue.HEALING, (event.cluster, event.new, event.by), 1)

    def _server(self, authority: str) -> str:
        server = split_authority("", authority)[0]
        if len(self._servers) < _MAX_NAMES:
            self._servers[authority] = server
        return server
