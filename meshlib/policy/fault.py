"""Faults as people write them: `Fault(abort=503, percentage=50)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from meshlib.model.fault import FaultAbort, FaultDelay, FaultRateLimit, HttpFault
from meshlib.model.matchers import FractionalPercent, HeaderMatcher
from meshlib.model.strings import StringMatcher

__all__ = ["Fault"]

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault to inject: a `delay` (seconds, or a timedelta), then an `abort` with an HTTP status or a `grpc_abort`
    with a gRPC status (a number), and a response body of at most `limit_kbps` KiB a second. `percentage` of the
    requests get each of them, drawn one by one.

    `by_header`: what is not given is what the request asks for in Envoy's headers (`x-envoy-fault-delay-request`,
    `x-envoy-fault-abort-request`, `x-envoy-fault-abort-grpc-request`, `x-envoy-fault-throughput-response`, each with
    `...-percentage`), at most for `percentage`.

    Only requests whose path begins with `path`, and whose `headers` have these values, are concerned. `max_active` is
    how many faults of the mesh may be under way at once (None: any number).

    Raises ValueError for what no fault can be.
    """

    abort: int | None = None
    grpc_abort: int | None = None
    delay: float | timedelta | None = None
    limit_kbps: int | None = None
    percentage: float = 100.0
    by_header: bool = False
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    max_active: int | None = None

    def __post_init__(self) -> None:
        for wrong, problem in (
            (self.abort is not None and self.grpc_abort is not None, "abort and grpc_abort are the same thing twice"),
            (self.abort is not None and not 200 <= self.abort < 600, f"abort={self.abort} is no HTTP status to answer"),
            (self.grpc_abort is not None and not 1 <= self.grpc_abort <= 16, "grpc_abort is a gRPC status, 1 to 16"),
            (self.seconds is not None and self.seconds <= 0, "delay is more than 0 seconds"),
            (self.limit_kbps is not None and self.limit_kbps < 1, "limit_kbps is 1 or more"),
            (not 0 <= self.percentage <= 100, "percentage is between 0 and 100"),
            (not self.by_header and self._fixed == (None, None, None, None), "give a delay, an abort or a limit"),
        ):
            if wrong:
                raise ValueError(problem)

    @property
    def seconds(self) -> float | None:
        """The delay in seconds."""
        return self.delay.total_seconds() if isinstance(self.delay, timedelta) else self.delay

    @property
    def _fixed(self) -> tuple[object, ...]:
        return self.abort, self.grpc_abort, self.delay, self.limit_kbps

    def config(self) -> HttpFault:
        """The same as Envoy's filter."""
        share = FractionalPercent(round(self.percentage * _MILLION / 100), _MILLION)
        aborts = self.by_header or self.abort is not None or self.grpc_abort is not None
        return HttpFault(
            delay=FaultDelay(self.seconds, share) if self.by_header or self.delay is not None else None,
            abort=FaultAbort(self.abort, self.grpc_abort, share) if aborts else None,
            response_rate_limit=(
                FaultRateLimit(self.limit_kbps, share) if self.by_header or self.limit_kbps is not None else None
            ),
            headers=tuple(self._matchers()),
            max_active_faults=self.max_active,
        )

    def _matchers(self) -> list[HeaderMatcher]:
        found = [HeaderMatcher(name.lower(), StringMatcher("exact", value)) for name, value in self.headers.items()]
        return [HeaderMatcher(":path", StringMatcher("prefix", self.path)), *found] if self.path else found
