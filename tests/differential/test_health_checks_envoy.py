"""Active health checks of a real Envoy and of a mesh: the same answers, check by check, and what each makes of them."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from differential.calls_twin import Twin, cluster, virtual_host
from differential.health_gate import Answer, Gate, counts, flags_of_envoy, flags_of_mesh, response

ALL: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
SOON = {"interval": "0.02s", "no_traffic_interval": "0.02s"}
Make = Callable[..., Twin]
Gates = Callable[[Answer], Gate]

OK, NO, BUSY = response(), response(503), response(429)
ANSWERS: dict[str, Answer] = {
    "ok": OK,
    "degraded": response(200, b"", "x-envoy-degraded: true"),
    "503": NO,
    "429": BUSY,
    "503 out": response(503, b"", "x-envoy-immediate-health-check-fail: true"),
    "302": response(302),
    "reset": "reset",
    "close": "close",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n\r\n",
}


@pytest.fixture
def gate() -> Iterator[Gates]:
    made: list[Gate] = []

    def make(first: Answer) -> Gate:
        made.append(Gate(first))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def checked(gate: Gate, make_twin: Make, unhealthy: int = 2, healthy: int = 2, reuse: bool = True, **http: Any) -> Twin:
    check = {
        "reuse_connection": reuse,
        "timeout": "2s",
        "unhealthy_threshold": unhealthy,
        "healthy_threshold": healthy,
        "http_health_check": {"path": "/healthz", **http},
        **SOON,
    }
    return make_twin([virtual_host([ALL])], [cluster("up", [gate.port], health_checks=[check])])


def told(twin: Twin, gate: Gate, answers: list[Answer]) -> list[tuple[set[str], set[str]]]:
    """(Envoy's flags, the mesh's) after each answer."""
    gate.ready()
    found = [(flags_of_envoy(twin)[gate.port], flags_of_mesh(twin)[gate.port])]
    for answer in answers:
        gate.step(answer)
        found.append((flags_of_envoy(twin)[gate.port], flags_of_mesh(twin)[gate.port]))
    return found


# On a connection that was kept, a request that gets no response because the connection is closed is sent again on a new
# one; Envoy calls that a failure. So where connections are kept, no check is answered that way.
UNSAID = ("reset", "close")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize(("unhealthy", "healthy"), [(1, 1), (2, 3), (3, 2)])
def test_the_same_answers_make_the_same_of_an_endpoint(
    make_twin: Make, gate: Gates, unhealthy: int, healthy: int, reuse: bool, seed: int
) -> None:
    rng = random.Random(100 * unhealthy + 10 * healthy + seed)
    weights = [0 if reuse and name in UNSAID else 2 for name in ANSWERS]
    names = rng.choices(list(ANSWERS), [20, *weights[1:]], k=40)
    backend = gate(ANSWERS[names[0]])
    retriable = [{"start": 429, "end": 430}, {"start": 302, "end": 303}]
    twin = checked(backend, make_twin, unhealthy, healthy, reuse, retriable_statuses=retriable)
    found = told(twin, backend, [ANSWERS[name] for name in names[1:]])
    for number, (theirs, ours) in enumerate(found):
        assert ours == theirs, (names[: number + 1], found[: number + 1])
    assert any("failed_active_hc" in theirs for theirs, _ in found)
    assert any("failed_active_hc" not in theirs for theirs, _ in found)
    for name, (theirs, ours) in counts(twin).items():
        assert ours == theirs, name


def test_silence_is_a_failure_of_its_own(make_twin: Make, gate: Gates) -> None:
    backend = gate(OK)
    twin = checked(backend, make_twin, 2, 1)
    found = told(twin, backend, ["hang", "hang", NO, "hang", OK])
    assert all(theirs == ours for theirs, ours in found), found
    assert found[2][1] == {"failed_active_hc", "active_hc_timeout"}
    assert counts(twin)["network_failure"] == (3, 3)


def test_bodies(make_twin: Make, gate: Gates) -> None:
    good, far = response(200, b"..OK..yes"), response(200, b"." * 1020 + b"OK yes")
    backend = gate(good)
    receive = [{"text": b"OK".hex()}, {"text": b"yes".hex()}]
    twin = checked(backend, make_twin, 1, 1, receive=receive)
    answers = [OK, good, response(200, b"yes OK"), good, far, response(200, b"." * 1019 + b"OKyes"), good, far]
    found = told(twin, backend, [*answers, response(503, b"OK yes")])
    assert [bool(ours) for _, ours in found] == [False, True, False, True, False, True, False, False, True, True]
    assert all(theirs == ours for theirs, ours in found), found


def test_the_name_of_the_service(make_twin: Make, gate: Gates) -> None:
    def named(name: str) -> bytes:
        return response(200, b"", f"x-envoy-upstream-healthchecked-cluster: {name}")

    backend = gate(named("pay-1"))
    twin = checked(backend, make_twin, 1, 1, service_name_matcher={"prefix": "pay"})
    found = told(twin, backend, [named("ship"), named("pay"), OK, NO, named("pay")])
    assert [bool(ours) for _, ours in found] == [False, True, False, True, True, False]
    assert all(theirs == ours for theirs, ours in found), found
    assert counts(twin)["verify_cluster"][0] == counts(twin)["verify_cluster"][1] == 5


def test_the_request(make_twin: Make, gate: Gates) -> None:
    backend = gate(OK)
    added = [{"header": {"key": "x-a", "value": "1"}}, {"header": {"key": "x-b", "value": "2"}}]
    request = {"path": "/ready?now", "method": "POST", "host": "ready.test", "send": {"text": b"hello".hex()}}
    twin = checked(backend, make_twin, **request, request_headers_to_add=added)
    told(twin, backend, [OK])
    assert lines(backend.heads["envoy"]) == lines(backend.heads["mesh"])
    assert backend.bodies == {"envoy": b"hello", "mesh": b"hello"}


def lines(head: bytes) -> tuple[bytes, set[bytes]]:
    """The request line, and the headers but the one that says who checks."""
    first, *headers = head.split(b"\r\n")
    return first, {line.lower() for line in headers if not line.lower().startswith(b"user-agent")}
