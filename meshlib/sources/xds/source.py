"""XdsSource: an xDS control plane as a source of configuration.

The client's thread brings resources; `Dependencies` says when they are consistent; a snapshot goes to the sink. A
control plane that is gone changes nothing: the last snapshot stays in force.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from meshlib.model.endpoint import Locality
from meshlib.model.report import Issue, ResourceError
from meshlib.model.runtime import RuntimeLayer
from meshlib.model.snapshot import Snapshot
from meshlib.model.zones import Local
from meshlib.sources.base import Sink
from meshlib.sources.xds.bootstrap import Bootstrap, CertificateProvider, load_bootstrap
from meshlib.sources.xds.dependencies import Dependencies
from meshlib.sources.xds.events import (
    Event,
    ResourceAliased,
    ResourceDoesNotExist,
    ResourceFailed,
    ResourceRemoved,
    ResourceUpdate,
    ResponseProcessed,
)
from meshlib.sources.xds.last_good import with_last_good
from meshlib.sources.xds.listener_names import ListenerNames
from meshlib.sources.xds.runtime_layers import RuntimeLayers
from meshlib.sources.xds.sniffed import SniffedServices
from meshlib.sources.xds.types import LISTENER, MAKE_BEFORE_BREAK, RUNTIME, short_type

if TYPE_CHECKING:
    from meshlib.sources.xds.decode import Decoded
    from meshlib.sources.xds.node import Node
    from meshlib.sources.xds.stats import SessionStats
    from meshlib.sources.xds.transport import XdsClient

__all__ = ["XdsSource"]

Mode = Literal["auto", "proxyless", "sidecar"]
_BURST = 0.010  # seconds; a change that comes alone is published at once, the rest of a burst once in this time
_MAX_ABSENT = 1024  # authorities remembered to be unknown; one that was forgotten is asked for again when called
_log = logging.getLogger(__name__)


def _is_sidecar(node: Node) -> bool:
    """Whether a control plane answers this node as a full sidecar: an Istio id, and not asking for gRPC's dialect."""
    return node.id.startswith("sidecar~") and node.metadata.get("GENERATOR") != "grpc"


class XdsSource:
    """Configuration from the control planes of a bootstrap, on one ADS stream.

    `bootstrap`: None reads `GRPC_XDS_BOOTSTRAP` or `GRPC_XDS_BOOTSTRAP_CONFIG` at `start`.
    `mode`: "proxyless" asks for listeners by the name a call uses, host and port exactly as in its URL (`payments:8080`
    for `http://payments:8080/`, `payments` for `http://payments/`), put into the bootstrap's listener template; a node
    of Istio's, whose listeners all have a port, asks for `payments:80` and `payments:443` instead of `payments`;
    "sidecar" asks for all listeners and clusters, as an Envoy does. "auto" is sidecar for a node whose id begins with
    `sidecar~`, unless its metadata has `GENERATOR=grpc`.
    `delta`: True, False, or "auto" (delta where the server has it).
    `declared`: authorities to ask for at start-up; others are asked for on first use.
    `runtime`: the names of runtime layers to subscribe to (RTDS), a later one wins; calls wait for them as for routes.

    Raises BootstrapError at `start` when there is no usable bootstrap. What goes wrong later is reported to the sink.
    """

    def __init__(
        self,
        bootstrap: Bootstrap | None = None,
        *,
        mode: Mode = "auto",
        delta: bool | Literal["auto"] = "auto",
        declared: Iterable[str] = (),
        runtime: Iterable[str] = (),
    ) -> None:
        self._bootstrap = bootstrap
        self._runtime_names = tuple(runtime)
        self._mode = mode
        self._delta: bool | Literal["auto"] = delta
        self._declared = tuple(declared)
        self._reset()

    def _reset(self) -> None:
        self._sink: Sink | None = None
        self._client: XdsClient | None = None
        self._is_by_name = True
        self._asked: set[str] = set()
        self._requests: deque[str] = deque()  # from calls to the client's thread
        self._host_requests: deque[str] = deque()
        # Only the client's thread touches the rest, so that nothing here needs a lock a call could wait for.
        self._layers = RuntimeLayers(self._runtime_names)
        self._decoded: dict[tuple[str, str], Decoded] = {}
        self._subscribed: Mapping[str, frozenset[str]] = {}
        self._is_refusal_told = False  # of the response at hand
        self._published: Snapshot | None = None
        self._unpublished: Snapshot | None = None
        self._last_publish = float("-inf")
        self._timer: threading.Timer | None = None

    # The life of a source ------------------------------------------------------------------------------------------

    def start(self, sink: Sink) -> None:
        """Subscribe and deliver to `sink`. In a forked child goes on from what the parent knew."""
        self._sink = sink
        client = self._client or self._new_client()
        client.ensure_running()
        client.call_soon(self._begin)

    def _new_client(self) -> XdsClient:
        from meshlib.sources.xds.transport import XdsClient

        bootstrap = self._bootstrap or load_bootstrap()
        sidecar = self._mode == "sidecar" or (self._mode == "auto" and _is_sidecar(bootstrap.node))
        self._is_by_name = not sidecar
        self._dependencies = Dependencies(wildcard=sidecar)
        template = bootstrap.client_default_listener_resource_name_template
        self._names = ListenerNames(template, with_port=bootstrap.node.id.startswith("sidecar~"))
        self._sniffed = SniffedServices.of_node(bootstrap.node.id)
        place = bootstrap.node.locality
        self._local = Local(Locality(place.region, place.zone, place.sub_zone), service=bootstrap.node.cluster)
        self._client = XdsClient(bootstrap, self._accept, self._on_events, delta=self._delta)
        for layer in self._layers.names:
            self._client.subscribe(RUNTIME, layer)
        for authority in self._declared:
            self.request(authority)
        return self._client

    def _begin(self) -> None:
        if self._published is not None:
            self._publish(self._published)
        elif not self._layers.awaited:
            first = self._on_demand()
            if first is not None:
                self._publish(first)
        self._settle()

    def _on_demand(self) -> Snapshot | None:
        """What is in force before the first call, where there is nothing else to wait for."""
        if not self._is_by_name or self._declared:
            return None
        return Snapshot(on_demand=True, version="0", runtime=self._layers.values)

    def request(self, authority: str) -> None:
        """Ask for the listener of an authority, or for a virtual host by `<route configuration>/<authority>`. From any
        thread; returns at once.
        """
        client = self._client
        if client is None:
            return
        if "/" in authority:
            if authority not in self._asked:
                self._asked.add(authority)
                self._host_requests.append(authority)
                client.call_soon(self._settle)
            return
        if not self._is_by_name:
            return
        for spelled in self._names.spelled(authority):
            if spelled not in self._asked:
                self._asked.add(spelled)
                name = self._names.add(spelled)
                self._requests.append(name)
                client.subscribe(LISTENER, name)

    def certificate_providers(self) -> tuple[CertificateProvider, ...]:
        """What the bootstrap names for the certificates of clusters (gRFC A29). Raises BootstrapError."""
        return (self._bootstrap or load_bootstrap()).certificate_providers

    def close(self) -> None:
        """Stop; nothing is delivered any more. Idempotent."""
        self._sink = None
        client, timer = self._client, self._timer
        if timer is not None:
            timer.cancel()
        if client is not None:
            client.close(1.0)
        self._reset()

    def forget(self) -> None:
        """In a forked child: the parent's stream, threads and timers are not ours; what is known stays."""
        self._sink = None
        self._timer = None
        # A thread that was amid `request` is not here to finish it, and none asks twice for the same authority.
        self._host_requests.extend(asked for asked in self._asked if "/" in asked)
        self._requests.extend(self._names.add(asked) for asked in self._asked if "/" not in asked)

    def stats(self) -> SessionStats | None:
        """The client's picture of its streams and resources; None before `start`."""
        return self._client.stats() if self._client is not None else None

    # The client's thread -------------------------------------------------------------------------------------------

    def _accept(self, type_url: str, name: str, body: bytes) -> str | None:
        """Decode a resource; the reason to refuse it, or None."""
        from meshlib.sources.xds.decode import decode

        sink = self._sink
        try:
            found = decode(type_url, body)
        except ResourceError as error:
            if sink is not None:
                sink.report((Issue("error", error.resource, error.path, error.reason),))
            self._is_refusal_told = True
            return f"{error.path}: {error.reason}" if error.path else error.reason
        if found.issues and sink is not None:
            sink.report(found.issues)
        self._decoded[type_url, name] = found
        return None

    def _on_events(self, events: Sequence[Event]) -> None:
        for event in events:
            self._take(event)
        self._settle()

    def _take(self, event: Event) -> None:
        match event:
            case ResourceUpdate(type_url, name, _, body):
                found = self._decoded.pop((type_url, name), None) or self._decode_again(type_url, body)
                if isinstance(found.resource, RuntimeLayer):
                    self._take_layer(name, found.resource)
                else:
                    self._dependencies.update(type_url, name, found.resource, found.references)
            case ResourceRemoved(type_url, name) | ResourceDoesNotExist(type_url, name) if type_url == RUNTIME:
                self._take_layer(name, None)
            case ResourceAliased(_, name, alias):
                self._dependencies.found_host(alias, name)
            case ResourceRemoved(type_url, name) | ResourceDoesNotExist(type_url, name):
                self._dependencies.remove(type_url, name)
            case ResponseProcessed(type_url, _, error):
                self._dependencies.answered(type_url)
                self._tell_refusal(type_url, error)
            case ResourceFailed(type_url, name, reason) if self._sink is not None:
                self._sink.report((Issue("error", f"{short_type(type_url)} {name}", "", reason),))

    def _take_layer(self, name: str, layer: RuntimeLayer | None) -> None:
        if not self._layers.put(name, layer):
            return
        snapshot = self._unpublished or self._published or self._on_demand()
        if snapshot is not None:
            self._unpublished = replace(snapshot, runtime=self._layers.values)

    def _tell_refusal(self, type_url: str, error: str | None) -> None:
        """Report a NACK whose reason is not a resource's but the response's own, such as bytes without a name."""
        is_told, self._is_refusal_told = self._is_refusal_told, False
        if error is not None and not is_told and self._sink is not None:
            self._sink.report((Issue("error", short_type(type_url), "", error),))

    def _decode_again(self, type_url: str, body: bytes) -> Decoded:
        from meshlib.sources.xds.decode import decode

        return decode(type_url, body)  # accepted before: the same bytes under another name

    # Settling ------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._forget_absent()
        while self._requests:
            self._dependencies.want(self._requests.popleft())
        while self._host_requests:
            self._dependencies.want_host(self._host_requests.popleft())
        now = time.monotonic()
        snapshot = self._dependencies.settle(now)
        self._subscribe()
        issues = self._dependencies.take_issues()
        if issues and self._sink is not None:
            self._sink.report(issues)
        if snapshot is not None:
            named = self._sniffed.by_host(self._names.by_authority(snapshot))
            self._unpublished = replace(named, local=self._local, runtime=self._layers.values)
        due = self._last_publish + _BURST
        if self._unpublished is not None and now >= due and not self._layers.awaited:
            self._publish(self._unpublished)
        waits = self._unpublished is not None and not self._layers.awaited
        self._set_timer(due if waits else None, now)

    def _forget_absent(self) -> None:
        """Calls to ever new unknown hosts must not add up. What a call may wait to hear is published first."""
        if self._unpublished is not None:
            return
        for name in self._dependencies.forget_absent(_MAX_ABSENT):
            self._asked -= self._names.discard(name)
        self._asked.difference_update(self._dependencies.forget_absent_hosts(_MAX_ABSENT))

    def _subscribe(self) -> None:
        """Bring the client's subscriptions in line: new ones make-before-break, old ones after."""
        client = self._client
        wanted = self._dependencies.subscriptions()
        if client is None or wanted == self._subscribed:
            return
        for type_url in MAKE_BEFORE_BREAK:
            for name in sorted(wanted[type_url] - self._subscribed.get(type_url, frozenset())):
                client.subscribe(type_url, name)
        for type_url in reversed(MAKE_BEFORE_BREAK):
            for name in sorted(self._subscribed.get(type_url, frozenset()) - wanted[type_url]):
                client.unsubscribe(type_url, name)
        self._subscribed = wanted

    def _publish(self, snapshot: Snapshot) -> None:
        sink, self._unpublished = self._sink, None
        if sink is None:
            return
        good: Snapshot | None = snapshot
        while good is not None:  # each round takes out or puts back one resource that no later round takes again
            good = self._try(sink, good)
        self._last_publish = time.monotonic()

    def _try(self, sink: Sink, snapshot: Snapshot) -> Snapshot | None:
        """Publish; what to publish instead, when it is refused for one resource."""
        try:
            sink.publish(snapshot)
        except ResourceError as error:
            sink.report((Issue("error", error.resource, error.path, error.reason),))
            instead = with_last_good(snapshot, error.resource, self._published)
            if instead is None:
                _log.error("snapshot %s is not used, the last good one stays: %s", snapshot.version, error)
            return instead
        self._published = snapshot
        return None

    def _set_timer(self, due: float | None, now: float) -> None:
        """Settle again when a burst is over, or a cluster need not be waited for any longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        client, moments = self._client, [moment for moment in (due, self._dependencies.deadline) if moment is not None]
        if not moments or client is None or self._sink is None:
            return
        self._timer = threading.Timer(max(0.0, min(moments) - now), client.call_soon, (self._settle,))
        self._timer.name, self._timer.daemon = "meshlib-xds-timer", True
        self._timer.start()
