"""The circuit breakers a call meets: its route's, its cluster's, and one for each endpoint; who asks and tells them.

A call whose route and cluster have none never comes here. The breaker of an endpoint that would refuse takes it out of
balancing, as an ejection does; when it lets probes through the endpoint is back until as many calls as may probe have
found it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from meshlib.balancing.base import Host
from meshlib.flags import ResponseFlag
from meshlib.model.circuit_breaker import CircuitBreaker, FallbackResponse
from meshlib.policy.breaker import STATE_CLOSED, Breaker, Listener, Permit
from meshlib.state.cells import ClusterState, EndpointState

if TYPE_CHECKING:
    from meshlib.engine.attempt import Attempts
    from meshlib.engine.cluster import ClusterPlan
    from meshlib.engine.commands import Start
    from meshlib.engine.ending import Refused
    from meshlib.model.outcome import Outcome
    from meshlib.policy.classify import Classification

LOOK_AGAIN = 1.0  # seconds until endpoints that are out are looked at again, whatever their breakers have said
_MOST_PICKS = 64  # of endpoints that refuse, which a cluster in panic still has among those it balances over
_BEFORE = float("-inf")


class BreakerLike(Protocol):
    """A circuit breaker as calls use it: our own, or the bridge to a user's pybreaker object."""

    @property
    def fallback(self) -> FallbackResponse | None:
        """What is answered while it refuses; None: the call fails."""

    @property
    def current_state(self) -> str:
        """`closed`, `open` or `half-open`."""

    def permit(self, now: float) -> Permit | None:
        """Leave to send one attempt, or None while open."""

    def record(self, permit: Permit, success: bool, now: float, error: BaseException | None = None) -> None:
        """How the attempt ended; `error` for breakers that exclude some exceptions."""

    def release(self, permit: Permit) -> None:
        """The attempt ended in a way that says nothing about the upstream."""

    def refuses_until(self, now: float) -> float | None:
        """Until when the next call would be refused; None: it would not be."""


@dataclass(frozen=True, slots=True)
class PerEndpoint:
    """From code: `make` is given the endpoint's address, and gives its breaker."""

    make: Callable[[str], BreakerLike]


class RouteCircuit:
    """The breaker of one route, kept from plan to plan while the route says the same of it. Ours begins with the first
    call.
    """

    __slots__ = ("__weakref__", "_breakers", "_config", "name")

    def __init__(self, name: str, config: CircuitBreaker | None, breaker: BreakerLike | None = None) -> None:
        self.name = name
        self._config = config
        self._breakers: dict[None, BreakerLike] = {} if breaker is None else {None: breaker}

    def breaker(self, listener: Listener | None) -> BreakerLike:
        """It; `listener` hears of its changes."""
        found = self._breakers.get(None)
        if found is None:
            made = Breaker(self._config or CircuitBreaker(), self.name, (listener,) if listener else ())
            found = self._breakers.setdefault(None, made)
        return found


def given_circuits(
    breakers: Mapping[str, BreakerLike | PerEndpoint], states: MutableMapping[Any, Any]
) -> Iterator[RouteCircuit]:
    """The breakers that code gives to routes: those whose names are a virtual host's and a route's, with a slash."""
    for name, given in breakers.items():
        if "/" in name and not isinstance(given, PerEndpoint):
            states["circuit_breaker", name] = circuit = RouteCircuit(name, None, given)
            yield circuit


def compile_circuit(
    name: str, scope: str, config: CircuitBreaker | None, states: MutableMapping[Any, Any]
) -> RouteCircuit | None:
    """The breaker of the route `name` of a route configuration: the one from code, else as the route has it."""
    given: RouteCircuit | None = states.get(("circuit_breaker", name))
    if given is not None or config is None:
        return given
    known: RouteCircuit = states.setdefault(("circuit_breaker", scope, name, config), RouteCircuit(name, config))
    return known


class EndpointCircuits:
    """The breakers of one cluster's endpoints, made as they are first called. They live in the cluster's state."""

    __slots__ = ("make", "state")

    def __init__(self, make: Callable[[str], BreakerLike], state: ClusterState) -> None:
        self.make = make
        self.state = state

    def of(self, cell: EndpointState) -> BreakerLike:
        """The breaker of an endpoint."""
        circuits: dict[EndpointState, BreakerLike] = self.state.circuits
        found = circuits.get(cell)
        return found if found is not None else circuits.setdefault(cell, self.make(cell.address))

    def follow(self, cell: EndpointState, breaker: BreakerLike, now: float, cluster: ClusterPlan | None = None) -> None:
        """Have balancing do as the breaker says. Whoever changes a breaker comes here afterwards, and looks again after
        having written what was seen, so that the last word is about how things are.
        """
        state = self.state
        if state.endpoints.get(cell.address) is not cell:  # gone, or a stand-in: not balanced to
            return
        while True:
            until = breaker.refuses_until(now)
            if until is not None:
                state.tripped[cell] = until
                if cluster is not None:
                    cluster.next_sweep = min(cluster.next_sweep, until)
            else:
                state.tripped.pop(cell, None)
            if cell.tripped is not (until is not None):
                cell.tripped = until is not None
                state.availability_changed()
            if (breaker.refuses_until(now) is None) is (until is None):
                return

    def sweep(self, now: float) -> float:
        """Let those back whose breakers would let a call through; when to look again."""
        for cell in list(self.state.tripped):
            self.follow(cell, self.of(cell), now)
        return min(now + LOOK_AGAIN, *self.state.tripped.values(), _FOR_EVER)


_FOR_EVER = float("inf")


def compile_circuits(
    given: BreakerLike | PerEndpoint | None, config: CircuitBreaker | None, name: str, state: ClusterState, heard: Any
) -> tuple[BreakerLike | None, EndpointCircuits | None]:
    """(The cluster's breaker, those of its endpoints): what code gives, else what the configuration says. States are
    kept across plans; a new policy counts from the next decision.
    """
    listeners: tuple[Listener, ...] = (heard,) if heard else ()
    if isinstance(given, PerEndpoint):
        return None, EndpointCircuits(given.make, state)
    if given is not None or config is None:
        return given, None
    if config.scope == "endpoint":
        return None, EndpointCircuits(lambda address: endpoint_breaker(config, name, address, listeners), state)
    known: BreakerLike | None = state.breaker
    return known if known is not None else Breaker(config, name, listeners), None


def endpoint_breaker(config: CircuitBreaker, cluster: str, address: str, listeners: tuple[Listener, ...]) -> Breaker:
    """The breaker of one endpoint, called after both."""
    return Breaker(config, f"{config.name or cluster}@{address}", listeners, subject=(cluster, address))


def adopt(state: ClusterState, config: CircuitBreaker | None, circuits: EndpointCircuits | None, own: bool) -> None:
    """The state follows a plan that is in force: breakers of endpoints that nobody asks for are gone."""
    if circuits is None:
        state.circuits.clear()
        if state.tripped:
            for cell in list(state.tripped):
                cell.tripped = False
                state.tripped.pop(cell, None)
            state.availability_changed()
    elif own and config is not None:
        for breaker in list(state.circuits.values()):
            breaker.policy = config


# ---------------------------------------------------------------------- by the attempts of a call


def permitted(call: Attempts, host: Host | None, now: float) -> tuple[Host | None, Refused]:
    """The endpoint that was picked, if its breaker permits the attempt, else another one whose breaker does, or why
    there is none. The permit is kept in `call.held` for the attempt.
    """
    picks = min(len(call.cluster.balancer.hosts) + 1, _MOST_PICKS)
    if host is None:
        return None, _nobody(call, refused=False)
    for _ in range(picks):
        circuits = call.cluster.circuits  # asked each time: an attempt to an aggregate chooses its cluster anew
        if circuits is None or _hold(call, circuits, host, now):
            return host, _NOT_REFUSED
        other = call.pick(now)
        if other is None:
            break
        host = other
    return None, _nobody(call, refused=True)


def _hold(call: Attempts, circuits: EndpointCircuits, host: Host, now: float) -> bool:
    breaker = circuits.of(host.cell)
    permit = breaker.permit(now)
    if permit is not None:
        call.held = ((breaker, permit),)
    if permit is None or breaker.current_state != STATE_CLOSED:
        circuits.follow(host.cell, breaker, now, call.cluster)
    return permit is not None


def _nobody(call: Attempts, *, refused: bool) -> Refused:
    """There is no endpoint for an attempt: none is healthy, or their breakers refuse."""
    cluster = call.cluster
    circuits, state = cluster.circuits, cluster.state
    if circuits is None or not (refused or state.tripped):
        return ResponseFlag.UH, f"no healthy endpoint in cluster {cluster.name!r}", False
    fallbacks = (breaker.fallback for breaker in list(state.circuits.values()))
    reason = f"the circuit breakers of the endpoints of cluster {cluster.name!r} are open"
    return ResponseFlag.UO, reason, next(fallbacks, None) or True


_NOT_REFUSED: Refused = (ResponseFlag.UO, "", False)


def take(call: Attempts, start: Start, now: float) -> Refused | None:
    """Permits of the route's breaker and the cluster's, for one attempt. (`Attempts.admit` asks a closed breaker of the
    cluster's by itself, where there is no other.)
    """
    extras, cluster = call.extras, call.cluster
    if extras is not None and extras.circuit is not None:
        circuit = extras.circuit
        route = circuit.breaker(call.runtime.attached.on_transition)
        permit = route.permit(now)
        if permit is None:
            return ResponseFlag.UO, f"the circuit breaker of route {circuit.name!r} is open", route.fallback or True
        start.permits = (*start.permits, (route, permit))
    breaker = cluster.breaker
    if breaker is not None:
        permit = breaker.permit(now)
        if permit is None:
            reason = f"the circuit breaker of cluster {cluster.name!r} is open"
            return ResponseFlag.UO, reason, breaker.fallback or True
        start.permits = (*start.permits, (breaker, permit))
    return None


def settle(start: Start, outcome: Outcome, verdict: Classification) -> None:
    """Tell the breakers how the attempt ended."""
    permits, start.permits = start.permits, ()
    for breaker, permit in permits:
        if verdict.neutral:
            breaker.release(permit)
        else:
            breaker.record(permit, not verdict.counts_as_5xx, outcome.at, outcome.error)
    if start.cluster.circuits is not None:
        _followed(start, start.cluster.circuits, outcome.at)


def give_back(start: Start) -> None:
    """The attempt says nothing: its permits go back."""
    permits, start.permits = start.permits, ()
    for breaker, permit in permits:
        breaker.release(permit)
    if start.cluster.circuits is not None:
        _followed(start, start.cluster.circuits, _BEFORE)


def _followed(start: Start, circuits: EndpointCircuits, now: float) -> None:
    cell = start.host.cell
    breaker = circuits.of(cell)
    if cell.tripped or breaker.current_state != STATE_CLOSED:
        circuits.follow(cell, breaker, now, start.cluster)
