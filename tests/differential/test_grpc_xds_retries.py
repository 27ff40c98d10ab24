"""Attempts, statuses and times: grpcio's `xds:///` and the mesh's channels on one control plane."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest

from differential.grpc_xds_twin import World, attempts, endpoints_of, keyed, route
from parts import xds_resources
from parts.grpc_backend import GrpcBackend
from parts.grpc_calls import Ended, GrpcCall
from parts.ports import free_port
from parts.xds import eventually

Backends = Callable[[int], list[GrpcBackend]]
Json = dict[str, Any]
CODES = {code.name: code.value[0] for code in grpc.StatusCode}
# A back-off that comes out below a millisecond makes grpcio 1.85 wait for the call's deadline instead.
FAST = {"base_interval": "0.005s", "max_interval": "0.01s"}
ALL_WORDS = "cancelled,deadline-exceeded,internal,resource-exhausted,unavailable"


@pytest.fixture
def world(xds_world: Callable[[], World]) -> World:
    return xds_world()


def by_case(world: World, cases: dict[str, Json]) -> list[Json]:
    """One route a case, chosen by `x-case`; a case is what its route has beside the cluster."""
    asked = [{"headers": [{"name": "x-case", "exact_match": case}]} for case in cases]
    table = [
        route(world.cluster("a"), match=match, **given) for match, given in zip(asked, cases.values(), strict=True)
    ]
    return [*table, route(world.cluster("a"))]


def said(ended: Ended) -> tuple[Any, ...]:
    """What a caller can tell of an end. A failure of the mesh's own is worded its own way: there the code must do."""
    trailing = tuple(pair for pair in ended.trailing if pair[0].startswith(("x-", "grpc-")))
    details = "" if "Deadline Exceeded" in ended.details else ended.details
    return ended.code, details, ended.answers, ended.arrival, trailing


def assert_alike(world: World, backends: list[GrpcBackend], calls: dict[str, GrpcCall]) -> None:
    """The same ends, after the same number of attempts."""
    keys = {name: replace(call, key=name) for name, call in calls.items()}
    pairs = world.both(*keys.values())
    state = [backend.state.arrivals for backend in backends]
    differ = {}
    for name, (theirs, ours) in zip(keys, pairs, strict=True):
        tried = [sum(arrivals.get(f"{who}-{name}", 0) for arrivals in state) for who in ("xds", "mesh")]
        if said(theirs) != said(ours) or tried[0] != tried[1]:
            differ[name] = (tried[0], said(theirs), tried[1], said(ours))
    assert not differ, "\n".join(f"{name}: xds {a} {b}\n    mesh {c} {d}" for name, (a, b, c, d) in differ.items())


# ---------------------------------------------------------------------- statuses


@pytest.mark.parametrize("kind", ["Unary", "ServerStream", "ClientStream", "Both"])
def test_every_status(world: World, echo_backends: Backends, kind: str) -> None:
    backends = echo_backends(1)
    world.put(by_case(world, {}), {"a": backends})
    world.follow()
    words = {
        "INTERNAL": "50 % of \u00e9t\u00e9 \u2603",
        "ABORTED": "",
        "NOT_FOUND": "a" * 500,
        "DATA_LOSS": "tab\there",
    }
    calls = {
        name: GrpcCall(
            kind,
            script={
                "statuses": [number],
                "details": words.get(name, name.lower()),
                "trailing": [["x-why", base64.b64encode(b"1").decode()]],
            },
        )
        for name, number in CODES.items()
        if number
    }
    assert_alike(world, backends, {**calls, "OK": GrpcCall(kind)})


def test_metadata_goes_there_and_back(world: World, echo_backends: Backends) -> None:
    world.put(by_case(world, {}), {"a": echo_backends(1)})
    world.follow()
    raw = base64.b64encode(b"\x00\xff\x80").decode()
    sent = (("x-text", "text"), ("x-text", "twice"), ("x-empty", ""), ("x-raw-bin", raw), ("x-spaced", "a b"))
    back = {"initial": [["x-early", "MQ=="]], "trailing": [["x-late", "Mg=="], ["x-late-bin", "AP8="]]}
    for kind in ("Unary", "ServerStream", "ClientStream", "Both"):
        ((theirs, ours),) = world.both(GrpcCall(kind, metadata=sent, script=back))
        got = [{pair for pair in ended.metadata if pair[0].startswith("x-")} for ended in (theirs, ours)]
        got[1] = {pair for pair in got[1] if not pair[0].startswith("x-envoy-")}
        assert got[0] == got[1] >= {("x-text", "text"), ("x-text", "twice"), ("x-raw-bin", "\x00\xff\x80")}
        for which in ("initial", "trailing"):
            assert sorted(getattr(theirs, which)) == sorted(getattr(ours, which)), which
        assert ("x-late-bin", "\x00\xff") in ours.trailing


def test_what_nobody_serves(world: World, echo_backends: Backends) -> None:
    world.put(by_case(world, {}), {"a": echo_backends(1)})
    world.follow()
    ((theirs, ours),) = world.both(GrpcCall("Missing"))
    assert (theirs.code, theirs.details) == (ours.code, ours.details) == ("UNIMPLEMENTED", "Method not found!")


def test_nobody_listens(world: World) -> None:
    nobody = {"endpoints": [{"lb_endpoints": [xds_resources.endpoint("127.0.0.1", free_port())]}]}
    world.put(by_case(world, {}), {"a": {"endpoints": nobody}})
    ((theirs, ours),) = world.both(GrpcCall())
    assert (theirs.code, ours.code) == ("UNAVAILABLE", "UNAVAILABLE")
    assert ours.flag == "UF"


# ---------------------------------------------------------------------- retries

POLICIES = {
    "unavailable": {"retry_on": "unavailable"},
    "two": {"retry_on": "unavailable", "num_retries": 2},
    "four": {"retry_on": "unavailable", "num_retries": 4},
    "cancelled": {"retry_on": "cancelled"},
    "deadline-exceeded": {"retry_on": "deadline-exceeded"},
    "internal": {"retry_on": "internal"},
    "resource-exhausted": {"retry_on": "resource-exhausted"},
    "all": {"retry_on": ALL_WORDS, "num_retries": 3},
    "not for grpc": {"retry_on": "5xx,connect-failure", "num_retries": 3},
    "some for grpc": {"retry_on": "retriable-4xx,unavailable", "num_retries": 3},
}
SCRIPTS: dict[str, Json] = {
    "good": {},
    "bad once": {"statuses": [14, 0]},
    "bad twice": {"statuses": [14, 14, 0]},
    "bad": {"statuses": [14]},
    "worse": {"statuses": [14, 13, 8, 0]},
    "cancelled": {"statuses": [1, 0]},
    "late": {"statuses": [4, 0]},
    "internal": {"statuses": [13, 0]},
    "exhausted": {"statuses": [8, 0]},
    "unknown": {"statuses": [2, 0]},
    "aborted": {"statuses": [10, 0]},
    # The pause because grpcio's own retries when headers and status are read at once, and the mesh does not.
    "headers first": {"statuses": [14, 0], "headers_first": True, "delay": 0.02},
}


@pytest.mark.parametrize("kind", ["Unary", "ServerStream"])
def test_every_policy_and_every_script(world: World, echo_backends: Backends, kind: str) -> None:
    backends = echo_backends(1)
    cases = {name: {"retry_policy": {**policy, "retry_back_off": FAST}} for name, policy in POLICIES.items()}
    world.put(by_case(world, cases), {"a": backends})
    world.follow()
    calls = {
        f"{policy} / {script}": GrpcCall(kind, script={"details": "as asked", **given}, metadata=(("x-case", policy),))
        for policy in POLICIES
        for script, given in SCRIPTS.items()
    }
    assert_alike(world, backends, calls)


def test_client_streams_are_replayed(world: World, echo_backends: Backends) -> None:
    backends = echo_backends(1)
    policy = {"retry_policy": {"retry_on": "unavailable", "num_retries": 2, "retry_back_off": FAST}}
    world.put(by_case(world, {"retried": policy}), {"a": backends})
    world.follow()
    assert_alike(
        world,
        backends,
        {
            f"{kind} {name}": GrpcCall(kind, script=script, metadata=(("x-case", "retried"),))
            for kind in ("ClientStream", "Both")
            for name, script in {"bad once": {"statuses": [14, 0]}, "bad": {"statuses": [14]}}.items()
        },
    )


def test_a_stream_that_has_begun_is_not_retried(world: World, echo_backends: Backends) -> None:
    backends = echo_backends(1)
    policy = {"retry_policy": {"retry_on": ALL_WORDS, "num_retries": 3, "retry_back_off": FAST}}
    world.put(by_case(world, {"retried": policy}), {"a": backends})
    world.follow()
    begun = GrpcCall(
        "ServerStream", script={"answers": 2, "statuses": [14], "details": "late"}, metadata=(("x-case", "retried"),)
    )
    assert_alike(world, backends, {"begun": begun})
    assert [(one.code, one.answers) for one in world.ours(begun)] == [("UNAVAILABLE", 2)]


def test_the_server_asks_for_patience(world: World, echo_backends: Backends) -> None:
    """`grpc-retry-pushback-ms`: a number is the back-off, anything else means never (gRFC A6)."""
    backends = echo_backends(1)
    policy = {"retry_policy": {"retry_on": "unavailable", "num_retries": 2, "retry_back_off": FAST}}
    world.put(by_case(world, {"retried": policy}), {"a": backends})
    world.follow()
    calls = {}
    for value in ("5", "20", "-1", "soon", ""):
        pushback = [["grpc-retry-pushback-ms", base64.b64encode(value.encode()).decode()]]
        script = {"statuses": [14, 0], "trailing": pushback}
        calls[f"pushback {value!r}"] = GrpcCall(script=script, metadata=(("x-case", "retried"),))
    assert_alike(world, backends, calls)


def test_previous_attempts_are_told(world: World, echo_backends: Backends) -> None:
    policy = {"retry_policy": {"retry_on": "unavailable", "num_retries": 3, "retry_back_off": FAST}}
    world.put(by_case(world, {"retried": policy}), {"a": echo_backends(1)})
    world.follow()
    call = GrpcCall(key="told", script={"statuses": [14, 14, 0]}, metadata=(("x-case", "retried"),))
    ((theirs, ours),) = world.both(call)
    for ended in (theirs, ours):
        assert dict(ended.metadata)["grpc-previous-rpc-attempts"] == "2"


# ---------------------------------------------------------------------- time


def test_max_stream_duration(world: World, echo_backends: Backends) -> None:
    """Only that it ends the call: grpcio measures it from the processor's cycle counter, and on a virtual machine is
    a second or two early (1.4 to 1.8 s on one here).
    """
    backends = echo_backends(1)
    cases = {
        "short": {"max_stream_duration": {"max_stream_duration": "0.3s"}},
        "long": {"max_stream_duration": {"max_stream_duration": "30s"}},
        "none": {"max_stream_duration": {"max_stream_duration": "0s"}},
        "callers": {"max_stream_duration": {"max_stream_duration": "30s", "grpc_timeout_header_max": "0s"}},
        "same": {"max_stream_duration": {"max_stream_duration": "0.3s", "grpc_timeout_header_max": "0.3s"}},
    }
    world.put(by_case(world, cases), {"a": backends})
    world.follow()
    names = [(kind, case, timeout) for kind in ("Unary", "ServerStream") for case in cases for timeout in (0.2, 6.0)]
    calls = [
        GrpcCall(kind, script={"delay": 0.4}, timeout=timeout, metadata=(("x-case", case),))
        for kind, case, timeout in names
    ]
    pairs = zip(world.theirs(*calls, together=True), world.ours(*calls, together=True), strict=True)
    for name, (theirs, ours) in zip(names, pairs, strict=True):
        assert (theirs.code, theirs.answers) == (ours.code, ours.answers), name
        late = name[2] == 0.2 or name[1] in ("short", "same")
        assert ours.code == ("DEADLINE_EXCEEDED" if late else "OK"), name


def test_the_callers_deadline_comes_first(world: World, echo_backends: Backends) -> None:
    backends = echo_backends(1)
    policy = {"retry_policy": {"retry_on": ALL_WORDS, "num_retries": 3, "retry_back_off": {"base_interval": "5s"}}}
    world.put(by_case(world, {"patient": policy}), {"a": backends})
    world.follow()
    calls = {
        "hangs": GrpcCall(script={"hang": True}, timeout=0.3),
        "hangs in a stream": GrpcCall("ServerStream", script={"answers": 3, "pause": 5.0}, timeout=0.3),
    }
    assert_alike(world, backends, calls)
    for backend in backends:
        eventually(lambda one=backend: one.state.active == 0, "the backend is let go")


# ---------------------------------------------------------------------- protection


def test_max_requests(world: World, echo_backends: Backends) -> None:
    """The overflow is refused, and not retried."""
    backends = echo_backends(1)
    retried = {"retry_policy": {"retry_on": ALL_WORDS, "num_retries": 3, "retry_back_off": FAST}}
    one = {"endpoints": endpoints_of(backends), "circuit_breakers": {"thresholds": [{"max_requests": 1}]}}
    world.put([route(world.cluster("a"), **retried)], {"a": one})
    world.follow()
    slow = GrpcCall(script={"delay": 0.4})
    for who, ask in (("xds", world.theirs), ("mesh", world.ours)):
        ended = ask(*[keyed(who, replace(slow, key="slow"))] * 6, together=True)
        assert sorted(one.code for one in ended) == ["OK", *["UNAVAILABLE"] * 5], who
        assert attempts(backends, f"{who}-slow") == 1, who
        assert ask(GrpcCall())[0].code == "OK", "the place is given back"


def test_the_server_dies_in_mid_stream(world: World, grpc_backend: Callable[..., GrpcBackend]) -> None:
    backend = grpc_backend("mortal")
    policy = {"retry_policy": {"retry_on": ALL_WORDS, "num_retries": 3, "retry_back_off": FAST}}
    world.put([route(world.cluster("a"), **policy)], {"a": [backend]})
    world.follow()
    ends = []
    for ask in (world.theirs, world.ours):
        (ended,) = ask(GrpcCall("ServerStream", script={"answers": 3, "pause": 0.05, "die": True}))
        ends.append((ended.code, ended.answers))
        backend.restart()
        eventually(lambda ask=ask: ask(GrpcCall())[0].code == "OK", "the backend is back")
    assert ends == [("UNAVAILABLE", 3)] * 2
