"""What a server says of its load, for balancers of its callers that go by it (ORCA; gRFC A51): `LoadRecorder`.

recorder = LoadRecorder()
app = meshlib.http.load_reports.LoadReportASGI(app, recorder)
server = grpc.server(pool, interceptors=[meshlib.grpc.load_report_server.LoadReportInterceptor(recorder)])
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from meshlib.model.orca import LoadReport
from meshlib.state.counter import Counter

__all__ = ["LoadRecorder"]

INTERVAL = 1.0  # seconds over which rates are measured; a report is made once in that time


class LoadRecorder:
    """Counts what is served and makes the report of it: requests and errors a second, the share of the processors this
    process uses, and what the application sets. Safe under threads; one for a process, and in a forked child it begins
    anew. Before the first second is over there are no rates to report.

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
        self._made: tuple[float, LoadReport] | None = None
        self._begin()

    def _begin(self) -> None:
        """Measure from now on."""
        self._since = self._clock(), self._cpu_clock(), self._served.value, self._failed.value
        self._measuring = threading.Lock()  # nobody waits for it
        self._process = os.getpid()

    def served(self, *, failed: bool = False) -> None:
        """A request has been answered. The middlewares and the interceptor call this; `failed` counts as an error."""
        self._served.add()
        if failed:
            self._failed.add()

    def set_named_metric(self, name: str, value: float) -> None:
        """Report `named_metrics.<name>`. Raises TypeError or ValueError for what is not a number."""
        self._named[name] = float(value)

    def set_utilization(self, name: str, value: float) -> None:
        """Report `utilization.<name>`, a share of 0.0 to 1.0. Raises TypeError, ValueError for what is not a number."""
        self._utilization[name] = float(value)

    def report(self) -> LoadReport:
        """The report of now; rates are those of the last second or more."""
        now, made = self._clock(), self._made
        if made is not None and now - made[0] < INTERVAL:
            return made[1]
        if self._process != os.getpid():  # the processor time is another, and the lock may be held for ever
            self._begin()
        if not self._measuring.acquire(blocking=False):
            return made[1] if made is not None else self._of()
        try:
            made = self._made
            if made is None or now - made[0] >= INTERVAL:
                made = self._made = now, self._measure(now)
        finally:
            self._measuring.release()
        return made[1]

    def _measure(self, now: float) -> LoadReport:
        cpu, served, failed = self._cpu_clock(), self._served.value, self._failed.value
        before, cpu_before, served_before, failed_before = self._since
        seconds = now - before
        if seconds < INTERVAL:  # two requests in the first millisecond are not 2 000 a second
            return self._of()
        self._since = now, cpu, served, failed
        return replace(
            self._of(),
            cpu_utilization=(cpu - cpu_before) / seconds / self._processors,
            rps_fractional=(served - served_before) / seconds,
            eps=(failed - failed_before) / seconds,
        )

    def _of(self) -> LoadReport:
        """What the application says."""
        return LoadReport(
            application_utilization=self.application_utilization,
            utilization=dict(self._utilization),
            named_metrics=dict(self._named),
        )


def _processors() -> int:
    """Those this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
