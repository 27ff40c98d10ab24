"""What the recorder of load reports counts: by threads, over a fork, and from every kind of WSGI application."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from meshlib.http.load_reports import LoadReportWSGI
from meshlib.load_reports import LoadRecorder
from meshlib.model.orca import LoadReport


class Time:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def listed(environ: Any, start_response: Any) -> list[bytes]:
    start_response(environ["status"], [])
    return [b"x"]


def generated(environ: Any, start_response: Any) -> Iterator[bytes]:
    start_response(environ["status"], [])
    yield b"x"


def raising(environ: Any, start_response: Any) -> list[bytes]:
    raise LookupError("on purpose")


def raising_late(environ: Any, start_response: Any) -> Iterator[bytes]:
    yield from raising(environ, start_response)


@pytest.mark.parametrize("app", [listed, generated])
@pytest.mark.parametrize("status,errors", [("200 OK", 0.0), ("404 Not Found", 0.0), ("503 Unavailable", 1.0)])
def test_a_wsgi_response_is_an_error_by_its_status(app: Callable[..., Any], status: str, errors: float) -> None:
    clock = Time()
    recorder = LoadRecorder(clock=clock, cpu_clock=lambda: 0.0)
    assert list(LoadReportWSGI(app, recorder)({"status": status}, lambda *given: None)) == [b"x"]
    clock.now += 1.0
    report = recorder.report()
    assert (report.rps_fractional, report.eps) == (1.0, errors)


@pytest.mark.parametrize("app", [raising, raising_late])
def test_a_wsgi_application_that_raises_is_an_error(app: Callable[..., Any]) -> None:
    clock = Time()
    recorder = LoadRecorder(clock=clock, cpu_clock=lambda: 0.0)
    with pytest.raises(LookupError):
        list(LoadReportWSGI(app, recorder)({}, lambda *given: None))
    clock.now += 1.0
    assert recorder.report().eps == 1.0


def test_a_generated_body_is_closed_and_counted_when_its_server_gives_it_up() -> None:
    clock, closed = Time(), []
    recorder = LoadRecorder(clock=clock, cpu_clock=lambda: 0.0)

    def endless(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    body: Any = LoadReportWSGI(endless, recorder)({}, lambda *given: None)
    assert next(body) == b"x"
    body.close()
    assert closed == [True]
    clock.now += 1.0
    assert recorder.report() == LoadReport(rps_fractional=1.0)


def test_there_are_no_rates_before_a_second_is_over() -> None:
    clock = Time()
    recorder = LoadRecorder(clock=clock, cpu_clock=lambda: 0.0)
    recorder.application_utilization = 0.5
    recorder.served()
    clock.now += 0.001
    assert recorder.report() == LoadReport(application_utilization=0.5)
    clock.now += 1.999
    assert recorder.report().rps_fractional == 0.5


def test_two_threads_at_once_measure_once() -> None:
    """The one that comes second has the report there is; its own would be of no time at all."""
    inside, going_on = threading.Event(), threading.Event()
    clock = Time()

    def cpu() -> float:
        if threading.current_thread().name == "first":
            inside.set()
            assert going_on.wait(10)
        return 0.0

    recorder = LoadRecorder(clock=clock, cpu_clock=cpu)
    for _ in range(10):
        recorder.served()
    clock.now += 1.0
    first = threading.Thread(target=recorder.report, name="first")
    first.start()
    assert inside.wait(10)
    recorder.served()
    assert recorder.report() == LoadReport()
    going_on.set()
    first.join()
    assert recorder.report().rps_fractional == 11.0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_measures_from_its_own_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cpu = Time(), [50.0]
    recorder = LoadRecorder(clock=clock, cpu_clock=lambda: cpu[0])
    recorder._measuring.acquire()  # by a thread of the parent's
    monkeypatch.setattr(os, "getpid", lambda: -1)
    clock.now, cpu[0] = 200.0, 0.1  # the processor time of a child begins at 0
    assert recorder.report() == LoadReport()
    recorder.served()
    clock.now, cpu[0] = 201.0, 0.6
    report = recorder.report()
    assert report.rps_fractional == 1.0
    assert report.cpu_utilization == pytest.approx(0.5 / recorder._processors)


def test_what_is_no_number_is_refused_where_it_is_said() -> None:
    recorder = LoadRecorder()
    with pytest.raises(TypeError):
        recorder.set_named_metric("queue", None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="deep"):
        recorder.set_utilization("disk", "deep")  # type: ignore[arg-type]
    recorder.report().to_bytes()
