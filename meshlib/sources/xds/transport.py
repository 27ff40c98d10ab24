"""Drives the xDS session: one daemon thread a process, grpcio underneath, every callback on that thread.

Nothing starts before the first subscription. A fork closes the stream, which the parent opens again at once and a
child the next time it subscribes or calls ``ensure_running``; both keep what was known.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from meshlib.model.backoff import BackoffPolicy, Rng
from meshlib.sources.xds import messages
from meshlib.sources.xds.bootstrap import Bootstrap
from meshlib.sources.xds.events import Event, StreamConnected, StreamEnded
from meshlib.sources.xds.grpc_stream import ChannelOptions, Ended, GrpcStream, Received, Sent, StreamReport
from meshlib.sources.xds.reception import Accept
from meshlib.sources.xds.request_rate import RequestRate
from meshlib.sources.xds.session import AdsSession, CloseStream, Delta, OpenStream, SendRequest
from meshlib.sources.xds.stats import SessionStats

__all__ = ["ChannelOptions", "XdsClient"]

_log = logging.getLogger(__name__)
_LONGEST_STEP = 5.0  # seconds a fork waits for a step; longer ones are an owner that hangs
_SETTLE = 0.1  # seconds for gRPC to take down a closed channel: 0.05 failed in 0 of 257 forks, 0 in 2 of 59
_LONGEST_CLOSE = 1.0  # seconds a fork waits for a stream's thread to leave gRPC
_clients: weakref.WeakSet[XdsClient] = weakref.WeakSet()


class XdsClient:
    """A client of the control planes a bootstrap names, on exactly one ADS stream.

    ``accept(type_url, name, body)`` decodes a resource and returns None or the reason to refuse it; ``on_events`` gets
    the events of each step. Both run on the source thread. ``delta`` is True, False or "auto" (delta where the server
    has it). ``rate`` limits requests (Envoy: 100 at once, 10 a second, off by default).

    ``subscribe`` and ``unsubscribe`` may be called from any thread and never wait. ``close`` returns within its
    timeout, whatever the network does. Raises nothing after construction: failures are events and ``stats``.
    """

    def __init__(
        self,
        bootstrap: Bootstrap,
        accept: Accept,
        on_events: Callable[[Sequence[Event]], None],
        *,
        delta: Delta = "auto",
        clock: Callable[[], float] = time.monotonic,
        rng: Rng | None = None,
        wall_clock: Callable[[], float] = time.time,
        backoff: BackoffPolicy | None = None,
        does_not_exist_after: float = 15.0,
        options: ChannelOptions | None = None,
        rate: RequestRate | None = None,
    ) -> None:
        self._bootstrap = bootstrap
        self._accept = accept
        self._on_events = on_events
        self._clock = clock
        self._wall_clock = wall_clock
        self._options = options or ChannelOptions()
        self._rate = rate
        self._session = AdsSession(
            [server.server_uri for server in bootstrap.servers],
            self._accept_or_reason,
            rng or random.Random(),  # noqa: S311 - jitter, no secret
            delta=delta,
            backoff=backoff,
            does_not_exist_after=does_not_exist_after,
        )
        self._node: Any = None
        self._stats = self._session.stats()
        self._is_closed = False
        self._inbox: deque[Callable[[], None]] = deque()
        self._streams: dict[int, GrpcStream] = {}
        self._thread: threading.Thread | None = None
        self._wake = threading.Condition()
        self._stepping = threading.RLock()
        self._holds_step = False
        _clients.add(self)

    def subscribe(self, type_url: str, name: str) -> None:
        """Ask for a resource, or for all of a type by the name ``*``. Starts the client if need be."""
        self._put(lambda: self._session.subscribe(type_url, name))
        self.ensure_running()

    def unsubscribe(self, type_url: str, name: str) -> None:
        """Ask no more for it."""
        self._put(lambda: self._session.unsubscribe(type_url, name))

    def ensure_running(self) -> None:
        """Start the thread, if it is not running and the client is not closed."""
        with self._wake:
            if self._thread is None and not self._is_closed:
                self._inbox.appendleft(self._session.streams_lost)
                self._thread = threading.Thread(target=self._run, name="meshlib-xds", daemon=True)
                self._thread.start()

    def call_soon(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` on the source thread, between two events; from any thread. What it raises is logged."""
        self._put(lambda: self._call(callback))

    def stats(self) -> SessionStats:
        """A recent consistent picture; never waits for the source thread."""
        return self._stats

    def close(self, timeout: float = 2.0) -> None:
        """End the stream and the thread; waits at most ``timeout`` seconds."""
        with self._wake:
            self._is_closed = True
            thread = self._thread
            self._wake.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    # The source thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        with self._stepping:  # it imports, and a child forked amid an import would wait for its end for ever
            self._node = messages.node_message(self._bootstrap.node)
        while not self._is_closed:
            self._wait_for_items(self._session.deadline())
            with self._stepping:  # taken in here too: what is taken at a fork and not carried out, a child never would
                self._step(self._taken_items())
        for stream in self._streams.values():
            stream.close()
        for stream in self._streams.values():
            stream.join(1.0)

    def _step(self, commands: list[Callable[[], None]]) -> None:
        for command in commands:
            command()
        now = self._clock()
        self._tell(self._session.tick(now))
        self._carry_out(now)
        self._stats = self._session.stats()

    def _carry_out(self, now: float) -> None:
        if self._rate is not None and not self._rate.allows(now):
            return
        for action in self._session.poll(now):
            match action:
                case OpenStream(link, delta):
                    self._open(link, delta=delta)
                case CloseStream(link):
                    self._streams.pop(link).close()
                case SendRequest(link, request):
                    if self._rate is not None:
                        self._rate.spend(now)
                    self._streams[link].send(request)

    def _open(self, link: int, *, delta: bool) -> None:
        stream = GrpcStream(
            self._bootstrap.servers[link],
            self._node,
            delta=delta,
            options=self._options,
            wall_clock=self._wall_clock,
            report=lambda stream, report: self._put(lambda: self._handle(link, stream, report)),
        )
        self._streams[link] = stream
        stream.start()

    def _handle(self, link: int, stream: GrpcStream, report: StreamReport) -> None:
        if self._streams.get(link) is not stream:  # what a closed stream still had to say
            return
        now = self._clock()
        match report:
            case Sent(request):
                self._session.request_sent(link, request, now)
            case Received(response):
                stream.taken()
                self._tell(self._session.received(link, response, now))
            case Ended(code, reason, is_fault):
                del self._streams[link]
                self._tell(self._session.stream_ended(link, code, reason, now, is_fault=is_fault))

    def _tell(self, events: list[Event]) -> None:
        if not events:
            return
        _log_streams(events)
        try:
            self._on_events(events)
        except Exception:  # noqa: BLE001 - the owner's bug must not end the process's only source of configuration
            _log.exception("the owner of the xDS client failed on %d events", len(events))

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:  # noqa: BLE001 - as above
            _log.exception("the owner of the xDS client failed in a callback")

    def _accept_or_reason(self, type_url: str, name: str, body: bytes) -> str | None:
        try:
            return self._accept(type_url, name, body)
        except Exception as error:  # noqa: BLE001 - as above; the control plane learns of it as of any resource that is no good
            _log.exception("decoding %s %r failed", type_url, name)
            return f"internal error: {error!r}"

    # The inbox ---------------------------------------------------------------------------------------------------

    def _put(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(command)
            self._wake.notify()

    def _wait_for_items(self, deadline: float | None) -> None:
        with self._wake:
            if not self._inbox and not self._is_closed:
                self._wake.wait(self._wait_time(deadline))

    def _taken_items(self) -> list[Callable[[], None]]:
        with self._wake:
            items = list(self._inbox)
            self._inbox.clear()
            return items

    def _wait_time(self, deadline: float | None) -> float | None:
        now = self._clock()
        waits = [] if deadline is None else [deadline - now]
        if self._rate is not None and not self._rate.allows(now):
            waits = [self._rate.wait(now)]
        return max(min(waits), 0.0) if waits else None

    # Forks -------------------------------------------------------------------------------------------------------

    def before_fork(self) -> None:
        """Leave gRPC, and wait for the end of a step.

        gRPC skips its own fork handlers while any thread is inside it, and then aborts a child now and then; so the
        streams are closed first and opened again after. A child forked while gRPC still takes a channel down may find
        one of its locks taken for ever, and gRPC tells nobody when it is done: hence the pause. Between steps, session
        and owner agree on what is known.
        """
        self._holds_step = self._stepping.acquire(timeout=_LONGEST_STEP)
        for stream in self._streams.values():
            stream.close()
        for stream in self._streams.values():
            stream.join(_LONGEST_CLOSE)
        if self._streams:
            time.sleep(_SETTLE)
        self._streams = {}
        self._session.streams_lost()

    def after_fork_in_parent(self) -> None:
        """Go on, with a new stream."""
        if self._holds_step:
            self._stepping.release()
        with self._wake:
            self._inbox.append(_nothing)
            self._wake.notify()

    def after_fork_in_child(self) -> None:
        """Make anew what a thread of the parent could hold; keep what is known and what was asked for."""
        self._wake = threading.Condition()
        self._stepping = threading.RLock()
        self._thread = None


def _nothing() -> None:
    """A command that only makes the source thread look for what to do."""


def _log_streams(events: list[Event]) -> None:
    for event in events:
        if isinstance(event, StreamConnected):
            _log.info("xDS: connected to %s%s", event.server, " (fallback)" if event.fallback else "")
        elif isinstance(event, StreamEnded):
            level = logging.WARNING if event.is_failure else logging.INFO
            _log.log(level, "xDS: stream to %s: %s; next in %.1f s", event.server, event.reason, event.retry_in)


def _before_fork() -> None:
    for client in list(_clients):
        client.before_fork()


def _after_fork_in_parent() -> None:
    for client in list(_clients):
        client.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client.after_fork_in_child()


def _exit() -> None:
    # A thread inside grpcio while the interpreter goes down may crash it.
    for client in list(_clients):
        client.close(0.5)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_exit)
