"""What a server says of its load, for balancers of its callers that go by it (ORCA; gRFC A51): `LoadRecorder`.

recorder = LoadRecorder()
app = meshlib.http.load_reports.LoadReportASGI(app, recorder)
server = grpc.server(pool, interceptors=[meshlib.grpc.load_report_server.LoadReportInterceptor(recorder)])
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from meshlib.model.orca import LoadReport
from meshlib.state.counter import Counter

__all__ = ["LoadRecorder"]

INTERVAL = 1.0  # seconds over which rates are measured; a report is made once in that time


class LoadRecorder:
    """Counts what is served and makes the report of it: requests and errors a second, the share of the processors this
    process uses, and what the application sets. Safe under threads; one for a process.

    `application_utilization`, when above 0, is what balancers go by instead of the processors': say 0.0 to 1.0, of
    whatever the service runs out of first (workers, connections, a queue). `clock` and `cpu_clock` are in seconds.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.process_time
    ) -> None:
        self.application_utilization = 0.0
        self._clock, self._cpu_clock = clock, cpu_clock
        self._processors = _processors()
        self._served, self._failed = Counter(), Counter()
        self._named: dict[str, float] = {}
        self._utilization: dict[str, float] = {}
        self._since = (clock(), cpu_clock(), 0, 0)
        self._made: tuple[float, LoadReport] | None = None

    def served(self, *, failed: bool = False) -> None:
        """A request has been answered. The middlewares and the interceptor call this; `failed` counts as an error."""
        self._served.add()
        if failed:
            self._failed.add()

    def set_named_metric(self, name: str, value: float) -> None:
        """Report `named_metrics.<name>`."""
        self._named[name] = value

    def set_utilization(self, name: str, value: float) -> None:
        """Report `utilization.<name>`, a share of 0.0 to 1.0."""
        self._utilization[name] = value

    def report(self) -> LoadReport:
        """The report of now; rates are those of the last second or more."""
        now, made = self._clock(), self._made
        if made is not None and now - made[0] < INTERVAL:
            return made[1]
        report = self._measure(now)
        self._made = now, report
        return report

    def _measure(self, now: float) -> LoadReport:
        cpu, served, failed = self._cpu_clock(), self._served.value, self._failed.value
        before, cpu_before, served_before, failed_before = self._since
        self._since = now, cpu, served, failed
        seconds = max(now - before, 1e-9)
        return LoadReport(
            cpu_utilization=(cpu - cpu_before) / seconds / self._processors,
            application_utilization=self.application_utilization,
            rps_fractional=(served - served_before) / seconds,
            eps=(failed - failed_before) / seconds,
            utilization=dict(self._utilization),
            named_metrics=dict(self._named),
        )


def _processors() -> int:
    """Those this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
