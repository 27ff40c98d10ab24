"""Propagation: which trace headers a mesh understands and writes, and which baggage it lets pass.

The names are those of `OTEL_PROPAGATORS`: `tracecontext` (W3C), `b3` (one header), `b3multi`. What a request brings is
read in the order of the names, the first that is well-formed counts; every format named is written.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from meshlib.errors import ConfigurationError
from meshlib.model.request import RequestHead
from meshlib.telemetry import b3, propagation, trace_parent
from meshlib.telemetry.baggage import BaggagePolicy
from meshlib.telemetry.trace_parent import Ids, TraceParent

Headers = list[tuple[bytes, bytes]]
log = logging.getLogger("meshlib")


class Format:
    """One way to write a trace parent into headers."""

    __slots__ = ("extract", "fields", "render")

    def __init__(
        self,
        fields: tuple[bytes, ...],
        extract: Callable[[RequestHead], TraceParent | None],
        render: Callable[[Ids], Headers],
    ) -> None:
        self.fields = fields
        self.extract = extract
        self.render = render


def _extract_w3c(head: RequestHead) -> TraceParent | None:
    value = head.get("traceparent")
    return None if value is None else trace_parent.parse(value, head.get("tracestate"))


def _extract_b3(head: RequestHead) -> TraceParent | None:
    return b3.parse_single(head.get("b3"))


def _extract_b3_multi(head: RequestHead) -> TraceParent | None:
    trace_id = head.get("x-b3-traceid")
    if trace_id is None:
        return None
    return b3.parse_multi(trace_id, head.get("x-b3-spanid"), head.get("x-b3-sampled"), head.get("x-b3-flags"))


FORMATS = {
    "tracecontext": Format((b"traceparent", b"tracestate"), _extract_w3c, trace_parent.render),
    "b3": Format((b"b3",), _extract_b3, b3.render_single),
    "b3multi": Format(
        (b"x-b3-traceid", b"x-b3-spanid", b"x-b3-sampled", b"x-b3-flags", b"x-b3-parentspanid"),
        _extract_b3_multi,
        b3.render_multi,
    ),
}


class Propagation:
    """`formats` are names of `FORMATS`; `baggage` the keys that may pass (`"*"`: all; default none)."""

    __slots__ = ("_formats", "_sizes", "allows_baggage", "baggage", "fields", "names", "render")

    def __init__(self, formats: Sequence[str] = ("tracecontext",), baggage: Collection[str] = ()) -> None:
        unknown = [name for name in formats if name not in FORMATS]
        if unknown:
            raise ConfigurationError(f"unknown propagators {unknown}; known are {sorted(FORMATS)}")
        self.names = tuple(dict.fromkeys(formats))
        self._formats = tuple(FORMATS[name] for name in self.names)
        self.baggage = BaggagePolicy(baggage)
        self.allows_baggage = bool(self.baggage)
        self.render = self._formats[0].render if len(self._formats) == 1 else self._render_all
        """The trace headers of a span, in every format."""
        self.fields = frozenset(field for item in self._formats for field in item.fields)
        self._sizes = frozenset(map(len, self.fields))

    @classmethod
    def from_environment(
        cls, formats: Sequence[str] | None, baggage: Collection[str], environ: Mapping[str, str]
    ) -> Propagation:
        """`formats` None: those of `OTEL_PROPAGATORS` that are known here, `tracecontext` when it is not set. (Its
        `baggage` says nothing about whose baggage to let pass, so `baggage` does.)
        """
        if formats is not None:
            return cls(formats, baggage)
        named = [name.strip().lower() for name in environ.get("OTEL_PROPAGATORS", "tracecontext").split(",")]
        strange = [name for name in named if name and name not in FORMATS and name not in {"baggage", "none"}]
        if strange:
            log.warning("OTEL_PROPAGATORS names %s, which meshlib does not write", ", ".join(strange))
        return cls([name for name in named if name in FORMATS], baggage)

    def extract(self, head: RequestHead) -> TraceParent | None:
        """The caller's span, by the first format that has a well-formed one."""
        for item in self._formats:
            found = item.extract(head)
            if found is not None:
                return found
        return None

    def named_in(self, headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether any of these headers is one of these formats'."""
        sizes, fields = self._sizes, self.fields  # sizes tell nearly all names apart, for less than lower-casing them
        for name, _ in headers:  # noqa: SIM110  a generator expression costs as much again
            if len(name) in sizes and name.lower() in fields:
                return True
        return False

    def injected(self, headers: Sequence[tuple[bytes, bytes]], parent: Ids) -> Headers:
        """The headers with those of a span, in every format, in place of the trace headers they had."""
        sizes, fields = self._sizes, self.fields
        kept = [pair for pair in headers if len(pair[0]) not in sizes or pair[0].lower() not in fields]
        kept += self.render(parent)
        return kept

    def handed_on(self, head: RequestHead) -> tuple[tuple[bytes, bytes], ...]:
        """What a request's trace headers and baggage become on the calls made while it is served, with no span between:
        the caller's span goes on unchanged, in every format. A request without one has none to go on.
        """
        passed = self.baggage.filtered(head.get("baggage")) if self.allows_baggage else ""
        baggage = ((b"baggage", passed.encode("ascii")),) if passed else ()
        if self.names == ("tracecontext",):
            return (*propagation.trace_headers(head.get("traceparent"), head.get("tracestate")), *baggage)
        parent = self.extract(head)
        return (*self.render(parent), *baggage) if parent is not None else baggage

    def _render_all(self, parent: Ids) -> Headers:
        return [pair for item in self._formats for pair in item.render(parent)]


DEFAULT = Propagation()
