"""What the engine tells whoever traces its calls: pure protocols, implemented by `meshlib.telemetry.otel`.

A mesh without tracing has no `Tracing` (`Runtime.tracing` is None), and a call that is not to be traced no `CallTrace`:
neither costs more than that question. Times are monotonic seconds.
"""

from __future__ import annotations

from typing import Protocol

from meshlib.flags import ResponseFlag
from meshlib.model.outcome import Outcome
from meshlib.model.request import RequestHead


class CallFacts(Protocol):
    """What the mesh decided about a call (`meshlib.engine.commands.CallInfo`); filled while the call goes on."""

    route: str
    cluster: str
    endpoint: str
    attempts: int
    flag: ResponseFlag | None
    why_not_retried: str
    grpc_status: int | None


class Address(Protocol):
    """Where an endpoint listens; `port` is 0 where `host` is no network address."""

    @property
    def host(self) -> str:
        """An IP address, a name or a path."""

    @property
    def port(self) -> int:
        """The port."""


class Endpoint(Protocol):
    """One endpoint of a cluster."""

    @property
    def address(self) -> Address:
        """Where it listens."""


class Target(Protocol):
    """Where an attempt goes; `address` is `host:port`, empty where there is no endpoint (a guarded function)."""

    @property
    def address(self) -> str:
        """In one word."""

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint."""


class Healing(Protocol):
    """What became of an endpoint or a cluster (`meshlib.engine.events.HealingChanged`)."""

    @property
    def cluster(self) -> str:
        """Whose."""

    @property
    def endpoint(self) -> str:
        """Which, empty for the cluster as a whole."""

    @property
    def old(self) -> str:
        """Its state before."""

    @property
    def new(self) -> str:
        """Its state now."""

    @property
    def by(self) -> str:
        """Which protection did it."""

    @property
    def reason(self) -> str:
        """Why."""


class CallTrace(Protocol):
    """One client call: a logical span, and one below it for each attempt."""

    def attempt(self, number: int, cluster: str, target: Target, head: RequestHead, now: float) -> RequestHead:
        """Attempt `number` (from 1) begins: the request to send, with this attempt's own trace headers."""

    def attempted(self, outcome: Outcome) -> None:
        """The attempt has response headers, or has failed."""

    def beside(
        self, number: int, cluster: str, target: Target, head: RequestHead, now: float
    ) -> tuple[RequestHead, object]:
        """`attempt` for one of several that overlap, and what `beside_ended` is to be told of it."""

    def beside_ended(self, attempt: object, outcome: Outcome | None, now: float) -> None:
        """One of several has response headers, or has failed, or (None) was given up."""

    def retrying(self, delay: float, now: float) -> None:
        """Another attempt follows after `delay` seconds."""

    def refused(self, reason: str) -> None:
        """The call failed, for a reason in words; `ended` follows."""

    def forget(self) -> None:
        """The call is none of the mesh's: nothing is to be told of it."""

    def ended(self, now: float, facts: CallFacts | None, status: int | None) -> None:
        """The call is over, its body included; said once, and last. `facts` are None when it was left before anything
        was decided; `status` is what the caller saw, None without a response.
        """


class ServerTrace(Protocol):
    """One request being served: one SERVER span."""

    def enter(self) -> None:
        """From here on the current thread or task serves the request: calls it makes are children."""

    def leave(self) -> None:
        """It does so no longer. Harmless from elsewhere, as when an abandoned coroutine is closed."""

    def ended(
        self, now: float, status: int | None, grpc_status: int | None, route: str, flag: ResponseFlag | None
    ) -> None:
        """The response is complete (no status: there was none). `route` is the application's template, or empty."""


class Tracing(Protocol):
    """Makes traces."""

    def call(self, head: RequestHead, now: float, *, on_wire: bool = True) -> tuple[RequestHead, CallTrace | None]:
        """A call begins on the current thread or task: the request to go on with, and who is to be told of the call;
        nobody when it leaves no spans. `on_wire`: its attempts are requests to endpoints, not calls of a guarded
        function.
        """

    def request(self, head: RequestHead, now: float) -> ServerTrace | None:
        """A request has arrived; None when it is traced by somebody else already, or not to be."""

    def enter(self, head: RequestHead) -> object:
        """What runs from here on, on the current thread or task, is the attempt that `head` was made for (a guarded
        function): its own calls are children. Gives what `leave` wants.
        """

    def leave(self, entered: object) -> None:
        """It does so no longer."""

    def happened(self, change: Healing) -> None:
        """Something was isolated or restored while the current thread or task made a call: an event of its span."""
