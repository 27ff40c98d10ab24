"""OtelTracing: the engine's `Tracing` by OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry import baggage
from opentelemetry.context import (
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,
    _SUPPRESS_INSTRUMENTATION_KEY,
    Context,
    attach,
    get_current,
)
from opentelemetry.trace import (
    INVALID_SPAN,
    NonRecordingSpan,
    ProxyTracer,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    TracerProvider,
    TraceState,
    get_current_span,
    get_tracer_provider,
    set_span_in_context,
)

from meshlib.model.request import RequestHead
from meshlib.telemetry.grpc_names import is_grpc, rpc_name, service_and_method
from meshlib.telemetry.methods import KNOWN, OTHER
from meshlib.telemetry.otel.adopted import AdoptedSpan, serves_the_request, stands_for_the_call
from meshlib.telemetry.otel.call import OtelCall, state_of
from meshlib.telemetry.otel.clock import EpochClock
from meshlib.telemetry.otel.request import OtelRequest
from meshlib.telemetry.otel.spans import ApiSpans, SpanMaker, started
from meshlib.telemetry.propagators import Propagation
from meshlib.telemetry.trace_parent import Ids, TraceParent
from meshlib.telemetry.tracing import Healing
from meshlib.telemetry.urls import QueryPolicy, full_url, shown_query, split_authority

if TYPE_CHECKING:
    from meshlib.telemetry.otel.direct import DirectGate

SCOPE = "meshlib"
SCHEMA = "https://opentelemetry.io/schemas/1.37.0"
_INTERNAL = SpanKind.INTERNAL  # looking up a member of an enum costs as much as a call
_UNASKED: dict[str, Any] = {}
_MAX_SERVERS = 1000
_MAX_METHOD = 64
_MAX_PATH = 1024
_SUPPRESSED = (_SUPPRESS_INSTRUMENTATION_KEY, _SUPPRESS_HTTP_INSTRUMENTATION_KEY)


class OtelTracing:
    """Spans of one mesh. `provider` None: OpenTelemetry's global one, whenever it is set.

    `query`: what becomes of query values in `url.full` (`meshlib.telemetry.urls.QueryPolicy`).
    """

    def __init__(
        self,
        propagation: Propagation,
        provider: TracerProvider | None = None,
        *,
        version: str = "",
        query: QueryPolicy = "sensitive",
    ) -> None:
        self.propagation = propagation
        self.clock = EpochClock()
        self.query: QueryPolicy = query
        self._servers: dict[tuple[str, str], tuple[str, int | None]] = {}
        self._provider = provider
        self._version = version
        self._take(provider or get_tracer_provider())

    # ------------------------------------------------------------------ meshlib.telemetry.tracing.Tracing

    def call(self, head: RequestHead, now: float, *, on_wire: bool = True) -> tuple[RequestHead, OtelCall | None]:
        """A call below the current span, else below the span in its own trace headers, else one that begins a trace.

        It is left alone where instrumentation is suppressed (an exporter's own calls must not make spans), and where
        there is no SDK to make any. One that is not sampled carries that on, and its trace.
        """
        context = get_current()
        current: Span = INVALID_SPAN
        parent: SpanContext | None = None
        if context:
            if any(map(context.get, _SUPPRESSED)):
                return head, None
            current = get_current_span(context)
            parent = current.get_span_context()
        grpc = head.method == "POST" and is_grpc(head)
        offset = self.clock.offset(now)
        maker = self.spans()
        if parent is None or not parent[5]:  # is_valid
            parent = None
            if self.propagation.named_in(head.headers):
                context, parent = self.incoming(head, context)
        elif stands_for_the_call(current):
            attributes = self.attributes(head, grpc)
            return head, OtelCall(self, head, AdoptedSpan(current, maker), offset, attributes, grpc, on_wire)
        attributes = _UNASKED if maker.decides_blindly else self.attributes(head, grpc)
        span = maker.open(head.method, parent, context, _INTERNAL, attributes, int(now * 1e9) + offset)
        if span.recording:
            attributes = attributes or self.attributes(head, grpc)
            return head, OtelCall(self, head, span, offset, attributes, grpc, on_wire)
        return self._unsampled(head, span.context), None

    def happened(self, change: Healing) -> None:
        """An event of the current span: that of the request being served, or of whatever makes calls here."""
        span = get_current_span()
        if span.is_recording():
            told = {name: getattr(change, name) for name in ("cluster", "endpoint", "old", "new", "by", "reason")}
            span.add_event(f"meshlib.{change.new}", {f"meshlib.{name}": value for name, value in told.items()})

    def request(self, head: RequestHead, now: float) -> OtelRequest | None:
        """A request below the span in its trace headers. None where an instrumentation has made its span already."""
        context = get_current()
        if context and any(map(context.get, _SUPPRESSED)):
            return None
        found = self.propagation.extract(head)
        if serves_the_request(get_current_span(context), found):
            return None
        if self._unsettled:
            self._take(self._provider or get_tracer_provider())
        grpc = is_grpc(head)
        parent = set_span_in_context(INVALID_SPAN if found is None else NonRecordingSpan(_span_context(found)), context)
        name = rpc_name(head) if grpc else head.method if head.method in KNOWN else "HTTP"
        start = int(now * 1e9) + self.clock.offset(now)
        attributes = self._served(head, grpc)
        span = started(self.tracer, name, parent, SpanKind.SERVER, attributes, start)
        if not span.get_span_context().is_valid:
            return None
        served = set_span_in_context(span, context)
        if self.propagation.allows_baggage:
            for key, value in self.propagation.baggage.values(head.get("baggage")).items():
                served = baggage.set_baggage(key, value, served)
        return OtelRequest(self, head, span, served, grpc)

    def enter(self, head: RequestHead) -> tuple[Context, Context]:
        """The span that the attempt's own headers name is the current one."""
        before = get_current()
        inside, _ = self.incoming(head, before)
        attach(inside)
        return before, inside

    def leave(self, entered: object) -> None:
        """What was current before is so again, unless something else is current by now, or this is another context."""
        match entered:
            case (Context() as before, Context() as inside) if get_current() is inside:
                attach(before)

    # ------------------------------------------------------------------ for the traces

    def spans(self) -> SpanMaker:
        """The quickest way to make spans that nobody can tell from the SDK's own."""
        if self._unsettled:
            self._take(self._provider or get_tracer_provider())
        if self._gate is not None and (direct := self._gate.spans()) is not None:
            return direct
        return self._api

    def incoming(self, head: RequestHead, context: Context) -> tuple[Context, SpanContext | None]:
        """The context with the span that the request's own headers name, if they name one."""
        found = self.propagation.extract(head)
        if found is None:
            return context, None
        parent = _span_context(found)
        return set_span_in_context(NonRecordingSpan(parent), context), parent

    def attributes(self, head: RequestHead, grpc: bool) -> dict[str, Any]:
        """What spans say of a request, before anything has come of it."""
        scheme, authority = head.scheme, head.authority
        server = self._servers.get((scheme, authority)) or self._server(scheme, authority)
        if grpc:
            service, method = service_and_method(head.path_only)
            return {
                "rpc.system": "grpc",
                "rpc.service": service,
                "rpc.method": method,
                "server.address": server[0],
                "server.port": server[1],
            }
        attributes = {
            "http.request.method": head.method,
            "server.address": server[0],
            "server.port": server[1],
            "url.full": full_url(scheme, authority, head.path, self.query),
        }
        if head.method not in KNOWN:
            attributes["http.request.method"] = OTHER
            attributes["http.request.method_original"] = head.method[:_MAX_METHOD]
        return attributes

    def with_headers(self, head: RequestHead, parent: Ids) -> RequestHead:
        """The request of an attempt, whose span is `parent`, with its own trace headers and the allowed baggage."""
        policy = self.propagation
        headers = policy.injected(head.headers, parent)
        if policy.allows_baggage and (written := self._baggage(head)):
            headers.append((b"baggage", written))
        return head.like(head.path, headers)

    def _unsampled(self, head: RequestHead, context: SpanContext) -> RequestHead:
        """The request of a call that leaves no span here; whether it is sampled elsewhere is left as it is."""
        if not context.is_valid:  # a provider that makes none, and no caller's either
            return head
        return self.with_headers(head, (context[0], context[1], bool(context[3] & 1), state_of(context), context[3]))

    def _served(self, head: RequestHead, grpc: bool) -> dict[str, Any]:
        """What a server's span says of a request."""
        attributes = self.attributes(head, grpc)
        if not head.authority:
            del attributes["server.address"], attributes["server.port"]
        if attributes.pop("url.full", None) is not None:
            attributes["url.scheme"] = head.scheme
            attributes["url.path"] = head.path_only[:_MAX_PATH]
            if head.query and (query := shown_query(head.query, self.query)):
                attributes["url.query"] = query[:_MAX_PATH]
        agent = head.get("user-agent")
        if agent:
            attributes["user_agent.original"] = agent[:_MAX_PATH]
        return attributes

    def _baggage(self, head: RequestHead) -> bytes:
        """The allowed part of the current baggage, unless the request brings its own."""
        if any(name.lower() == b"baggage" for name, _ in head.headers):
            return b""
        return self.propagation.baggage.render(baggage.get_all().items()).encode("ascii")

    def _server(self, scheme: str, authority: str) -> tuple[str, int | None]:
        """`server.address` and `server.port`, remembered for the first thousand."""
        found = split_authority(scheme, authority)
        if len(self._servers) < _MAX_SERVERS:
            self._servers[scheme, authority] = found
        return found

    def _take(self, provider: TracerProvider) -> None:
        tracer = provider.get_tracer(SCOPE, self._version, SCHEMA)
        self._unsettled = isinstance(tracer, ProxyTracer)
        self.tracer = tracer
        self._api = ApiSpans(tracer)
        self._gate = None if self._unsettled else _gate(tracer)


def _gate(tracer: object) -> DirectGate | None:
    """Direct spans, where the SDK is installed and of the kind that is known."""
    try:
        from meshlib.telemetry.otel.direct import direct_gate
    except ImportError:
        return None
    return direct_gate(tracer)


def _span_context(found: TraceParent) -> SpanContext:
    state = TraceState.from_header([found.state]) if found.state else TraceState()
    flags = (TraceFlags.SAMPLED if found.sampled else 0) | found.flags
    return SpanContext(found.trace_id, found.span_id, True, TraceFlags(flags), state)
