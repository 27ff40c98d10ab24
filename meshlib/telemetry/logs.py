"""Log records that say which trace they belong to, and which attempt, cluster and endpoint.

    logging.getLogger().handlers[0].addFilter(TraceFields())
    logging.basicConfig(format="%(asctime)s %(trace_id)s %(span_id)s %(mesh_cluster)s %(message)s")

The names are OpenTelemetry's for logs outside OTLP (`trace_id`, `span_id`, `trace_flags`). A handler that sends records
by OTLP reads the current span by itself, and takes `mesh_*` as attributes.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

from meshlib.context import current
from meshlib.telemetry import in_progress, trace_parent

__all__ = ["TraceFields", "install"]

FIELDS = ("trace_id", "span_id", "trace_flags", "mesh_cluster", "mesh_route", "mesh_endpoint", "mesh_flag")


class TraceFields(logging.Filter):
    """A filter that lets every record pass and adds `FIELDS` to it, empty where there is nothing to say.

    The trace is that of the attempt in progress, else of OpenTelemetry's current span, else of the request being served
    by its `traceparent`. `mesh_cluster` and `mesh_endpoint` are the attempt's; a record with an exception of a meshed
    call (`log.exception(...)`) has its cluster, route, endpoint and response flag.
    """

    def __init__(self) -> None:
        super().__init__()
        in_progress.Marks.wanted = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        add_fields(record)
        return True


def install() -> Callable[[], None]:
    """Add the fields to every record of the process, by the record factory. Returns what takes it back."""
    in_progress.Marks.wanted = True
    before = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        add_fields(record)
        return record

    logging.setLogRecordFactory(make)

    def uninstall() -> None:
        if logging.getLogRecordFactory() is make:
            logging.setLogRecordFactory(before)

    return uninstall


def add_fields(record: logging.LogRecord) -> None:
    """The fields of a record made here and now."""
    attempt = in_progress.attempt.get()
    ids = attempt.ids() if attempt is not None else _current_span() or _request()
    fields = record.__dict__
    if ids is None:
        fields["trace_id"] = fields["span_id"] = fields["trace_flags"] = ""
    else:
        trace_id, span_id, sampled = ids
        fields["trace_id"] = f"{trace_id:032x}"
        fields["span_id"] = f"{span_id:016x}"
        fields["trace_flags"] = "01" if sampled else "00"
    failure = _failure(record)
    fields["mesh_cluster"] = attempt.cluster if attempt is not None else getattr(failure, "cluster", "")
    fields["mesh_endpoint"] = attempt.endpoint if attempt is not None else getattr(failure, "endpoint", "")
    fields["mesh_route"] = getattr(failure, "route", "")
    fields["mesh_flag"] = str(getattr(failure, "flag", ""))


def _current_span() -> tuple[int, int, bool] | None:
    trace = sys.modules.get("opentelemetry.trace")  # whoever has a span has imported it
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    return (context.trace_id, context.span_id, context.trace_flags.sampled) if context.is_valid else None


def _request() -> tuple[int, int, bool] | None:
    value = dict(current.get().headers).get(b"traceparent")
    found = trace_parent.parse(value.decode("latin-1"), None) if value is not None else None
    return None if found is None else (found.trace_id, found.span_id, bool(found.sampled))


def _failure(record: logging.LogRecord) -> object:
    error = record.exc_info[1] if record.exc_info else None
    return getattr(error, "failure", None)
