"""What calls notice of health checks, through a real Envoy and through a mesh: priorities, panic, degraded endpoints,
endpoints that take themselves out, and ejected ones that checks bring back.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from differential.calls_twin import Call, Twin, cluster, endpoint, virtual_host
from differential.health_gate import flags_of_envoy, flags_of_mesh
from e2e.wire.raw_server import Peer, RawServer
from parts.fast_backend import FastBackend, Reply, Request
from parts.xds import eventually

ALL: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
AT_ONCE = {"update_merge_window": "0s"}
FAILED, DEGRADED = {"failed_active_hc"}, {"degraded_active_hc"}
WELL, SICK = Reply(), Reply(503)
SPARED = Reply(200, headers=(("x-envoy-degraded", "1"),))
Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]


def check(**more: Any) -> dict[str, Any]:
    return {
        "timeout": "2s",
        "interval": "0.05s",
        "no_traffic_interval": "0.05s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        **(more or {"http_health_check": {"path": "/healthz"}}),
    }


def answering(health: Reply, calls: Reply = WELL) -> Callable[[Request], Reply]:
    return lambda request: health if request.target == "/healthz" else calls


def settled(twin: Twin, expected: dict[int, set[str]]) -> None:
    """Wait until both say so of the endpoints, by port. Envoy's workers hear of it a moment later."""
    eventually(lambda: flags_of_mesh(twin) == expected, f"the mesh says {expected}, not {flags_of_mesh(twin)}")
    eventually(lambda: flags_of_envoy(twin) == expected, f"Envoy says {expected}, not {flags_of_envoy(twin)}")
    for _ in range(3):
        twin.theirs(Call("settling"))


def shares(twin: Twin, calls: int = 400) -> list[Counter[str]]:
    """Of Envoy and of the mesh: how many calls got to which backend, or failed with which flag."""
    answers = [
        [twin.theirs(Call(f"envoy-{number}")) for number in range(calls)],
        [twin.ours(Call(f"mesh-{number}")) for number in range(calls)],
    ]
    return [Counter(answer.backend or str(answer.status) for answer in side) for side in answers]


def groups(*priorities: list[FastBackend]) -> dict[str, Any]:
    members = [
        {"priority": number, "lb_endpoints": [endpoint(each.port) for each in backends]}
        for number, backends in enumerate(priorities)
    ]
    return {"load_assignment": {"cluster_name": "up", "endpoints": members}}


@pytest.mark.parametrize(
    ("sick", "expected"),
    [
        (0, {"a": 1.0}),
        (1, {"a": 1.0}),  # 3 of 4 times 1.4 is more than all
        (2, {"a": 0.7, "b": 0.3}),
        (3, {"a": 0.35, "b": 0.65}),
        (4, {"b": 1.0}),
    ],
)
def test_priorities_go_by_the_checks(
    make_twin: Make, fast_backend: Backends, sick: int, expected: dict[str, float]
) -> None:
    first = [fast_backend("a", answering(SICK if number < sick else Reply())) for number in range(4)]
    second = [fast_backend("b") for _ in range(2)]
    twin = make_twin(
        [virtual_host([ALL])],
        [cluster("up", [], common_lb_config=AT_ONCE, health_checks=[check()], **groups(first, second))],
    )
    settled(twin, {each.port: FAILED if number < sick else set() for number, each in enumerate([*first, *second])})
    for side in shares(twin, 1000):
        assert set(side) == set(expected)
        for name, share in expected.items():
            assert abs(side[name] / 1000 - share) < 0.07, side


@pytest.mark.parametrize(("threshold", "sick"), [(50, 1), (50, 2), (50, 3), (0, 2), (0, 3), (80, 1)])
def test_panic_goes_by_the_checks(make_twin: Make, fast_backend: Backends, threshold: int, sick: int) -> None:
    backends = [fast_backend(f"b{number}", answering(SICK if number < sick else Reply())) for number in range(3)]
    common = {**AT_ONCE, "healthy_panic_threshold": {"value": threshold}}
    twin = make_twin(
        [virtual_host([ALL])],
        [cluster("up", [each.port for each in backends], common_lb_config=common, health_checks=[check()])],
    )
    settled(twin, {each.port: FAILED if number < sick else set() for number, each in enumerate(backends)})
    theirs, ours = shares(twin, 60)
    assert set(ours) == set(theirs)
    names = {backend.name for backend in backends}
    panic = 100 * (3 - sick) / 3 < threshold
    well = {backend.name for backend in backends[sick:]}
    assert set(theirs) == (names if panic else well or {"503"})


@pytest.mark.parametrize("said", ["UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"])
@pytest.mark.parametrize("found", [WELL, SPARED, SICK], ids=["passes", "degraded", "fails"])
def test_the_worst_of_what_is_said_and_what_is_found_counts(
    make_twin: Make, fast_backend: Backends, said: str, found: Reply
) -> None:
    """Told by how much is left for the second priority: two of three are in order."""
    first = [fast_backend("a", answering(found)), fast_backend("a"), fast_backend("a")]
    second = fast_backend("b")
    assignment = groups(first, [second])
    assignment["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["health_status"] = said
    twin = make_twin(
        [virtual_host([ALL])], [cluster("up", [], common_lb_config=AT_ONCE, health_checks=[check()], **assignment)]
    )
    flags = FAILED if found is SICK else DEGRADED if found is SPARED else set()
    settled(twin, {first[0].port: flags, first[1].port: set(), first[2].port: set(), second.port: set()})
    for each in first:
        each.requests.clear()
    theirs, ours = shares(twin, 300)
    assert abs(theirs["b"] - ours["b"]) < 50
    asked = [{"envoy", "mesh"} & {who(request) for request in each.requests} for each in first]
    assert asked[0] in (set(), {"envoy", "mesh"})


def who(request: Request) -> str:
    """Whose call it is; empty for a check."""
    return request.header("x-call-id", "").partition("-")[0]  # type: ignore[union-attr]


def test_a_degraded_endpoint_gets_what_the_others_leave(make_twin: Make, fast_backend: Backends) -> None:
    backends = [fast_backend(f"b{number}") for number in range(4)]
    backends[0].behave(answering(SPARED))
    common = {"common_lb_config": AT_ONCE, "health_checks": [check()]}
    twin = make_twin([virtual_host([ALL])], [cluster("up", [each.port for each in backends], **common)])
    settled(twin, {each.port: DEGRADED if each is backends[0] else set() for each in backends})
    assert [set(side) for side in shares(twin, 100)] == [{"b1", "b2", "b3"}] * 2
    for each in backends[1:3]:
        each.behave(answering(SICK))
    expected = {each.port: state for each, state in zip(backends, (DEGRADED, FAILED, FAILED, set()), strict=True)}
    settled(twin, expected)
    theirs, ours = shares(twin, 1000)
    assert set(theirs) == set(ours) == {"b0", "b3"}  # 1 of 4 times 1.4 is healthy and as much degraded: half each
    assert abs(theirs["b0"] - ours["b0"]) < 120


def test_a_response_takes_its_endpoint_out_until_a_check_passes(make_twin: Make, fast_backend: Backends) -> None:
    leaving = Reply(200, headers=(("x-envoy-immediate-health-check-fail", "true"),))
    passes = {"value": True}

    def reply(request: Request) -> Reply:
        if request.target == "/healthz":
            return Reply() if passes["value"] else Reply(429)
        return leaving

    backends = [fast_backend("a", reply), fast_backend("b")]
    http = {"path": "/healthz", "retriable_statuses": [{"start": 429, "end": 430}]}
    often = check(http_health_check=http, healthy_threshold=3, unhealthy_threshold=100)
    twin = make_twin(
        [virtual_host([ALL])],
        [cluster("up", [each.port for each in backends], common_lb_config=AT_ONCE, health_checks=[often])],
    )
    settled_port = backends[1].port
    passes["value"] = False
    for side in ("envoy", "mesh"):
        send = twin.theirs if side == "envoy" else twin.ours
        eventually(lambda send=send, side=side: send(Call(side)).backend == "a", "a call gets to it")
    out = {"failed_active_hc", "excluded_via_immediate_hc_fail"}
    expected = {backends[0].port: out, settled_port: set()}
    eventually(lambda: flags_of_envoy(twin) == expected, f"Envoy: {flags_of_envoy(twin)}")
    eventually(lambda: flags_of_mesh(twin) == expected, f"mesh: {flags_of_mesh(twin)}")
    assert [set(side) for side in shares(twin, 30)] == [{"b"}, {"b"}]
    passive = "cluster.up.health_check.passive_failure"
    assert twin.envoy.stats(passive)[passive] >= 1
    assert twin.mesh.stats()[passive] >= 1
    backends[0].behave()
    settled(twin, {each.port: set() for each in backends})


@pytest.mark.parametrize("uneject", [True, False])
def test_a_passed_check_brings_an_ejected_endpoint_back(make_twin: Make, fast_backend: Backends, uneject: bool) -> None:
    broken = fast_backend("a", answering(Reply(), Reply(500)))
    other = fast_backend("b")
    detection = {
        "consecutive_5xx": 2,
        "max_ejection_percent": 100,
        "base_ejection_time": "60s",
        "enforcing_success_rate": 0,
        "successful_active_health_check_uneject_host": uneject,
    }
    slow = check(http_health_check={"path": "/healthz"}, interval="0.3s", no_traffic_interval="0.3s")
    twin = make_twin(
        [virtual_host([ALL])],
        [
            cluster(
                "up",
                [broken.port, other.port],
                common_lb_config=AT_ONCE,
                health_checks=[slow],
                outlier_detection=detection,
            )
        ],
    )
    ejected = "cluster.up.outlier_detection.ejections_enforced_total"
    active = "cluster.up.outlier_detection.ejections_active"
    for number in range(12):
        twin.theirs(Call(f"envoy-{number}"))
        twin.ours(Call(f"mesh-{number}"))
    eventually(lambda: twin.envoy.stats(ejected)[ejected] >= 1, "Envoy has ejected it")
    assert twin.mesh.stats()[ejected] >= 1
    checks = broken.count + 8
    eventually(lambda: broken.count >= checks, "both have checked it more than once since")
    theirs, ours = twin.envoy.stats(active)[active], len(twin.mesh.runtime.state.clusters["up"].ejected)
    assert (theirs, ours) == ((0, 0) if uneject else (1, 1))


def test_the_schedule(make_twin: Make, fast_backend: Backends) -> None:
    """How often each asks, before the first call and after it, while the endpoint is well and while it is not."""
    backend = fast_backend("a")
    times = {
        "interval": "0.25s",
        "unhealthy_interval": "0.1s",
        "no_traffic_interval": "0.16s",
        "no_traffic_healthy_interval": "0.4s",
    }
    config = check(http_health_check={"path": "/healthz"}, **times)
    twin = make_twin([virtual_host([ALL])], [cluster("up", [backend.port], health_checks=[config])])

    def rates(reply: Reply, seconds: float = 2.0) -> list[float]:
        backend.behave(answering(reply))
        time.sleep(0.8)  # until what was scheduled before has been
        backend.requests.clear()
        time.sleep(seconds)
        agents = Counter(request.header("user-agent") for request in list(backend.requests))
        return [agents[side] / seconds for side in ("Envoy/HC", "meshlib/HC")]

    found = [rates(WELL), rates(SICK)]
    twin.theirs(Call("envoy"))
    twin.ours(Call("mesh"))
    found += [rates(SICK), rates(WELL)]
    for (theirs, ours), interval in zip(found, (0.4, 0.16, 0.1, 0.25), strict=True):
        assert ours == pytest.approx(theirs, rel=0.25, abs=0.6), found
        assert ours == pytest.approx(1 / interval, rel=0.35), found


# TCP: what a server does, and whether that is enough ----------------------------------------------------------------


def says(text: bytes, *, first: bool = False, then_close: bool = False) -> Callable[[Peer], None]:
    """A server that answers PING with this, or begins with it."""

    def script(peer: Peer) -> None:
        if first:
            peer.send(text)
        while b"PING" in peer.sock.recv(100):
            if not first:
                peer.send(text)
            if then_close:
                return

    return script


PING, PONG = {"text": b"PING".hex()}, {"text": b"PONG".hex()}


@pytest.mark.parametrize(
    ("script", "tcp", "well"),
    [
        (says(b"PONG"), {"send": PING, "receive": [PONG]}, True),
        (says(b"..PONG..PONG"), {"send": PING, "receive": [PONG, PONG]}, True),
        (says(b"..PONG.."), {"send": PING, "receive": [PONG, PONG]}, False),
        (says(b"PANG"), {"send": PING, "receive": [PONG]}, False),
        (says(b"PONG", first=True), {"receive": [PONG]}, True),
        (says(b"PONG"), {"receive": [PONG]}, False),  # nobody says PING
        (lambda peer: None, {}, True),  # closed at once, and that it was there is enough
        (lambda peer: None, {"send": PING, "receive": [PONG]}, False),
        (lambda peer: peer.reset(), {"receive": [PONG]}, False),
    ],
)
def test_tcp(make_twin: Make, script: Callable[[Peer], None], tcp: dict[str, Any], well: bool) -> None:
    server = RawServer(script)
    try:
        config = check(tcp_health_check=tcp, timeout="0.5s", reuse_connection=False)
        twin = make_twin([virtual_host([ALL])], [cluster("up", [server.port], health_checks=[config])])
        eventually(lambda: bool(flags_of_envoy(twin)[server.port] & FAILED) is not well, "Envoy")
        eventually(lambda: bool(flags_of_mesh(twin)[server.port] & FAILED) is not well, "mesh")
        assert flags_of_envoy(twin) == flags_of_mesh(twin)
    finally:
        server.stop()


def test_where_the_two_differ(make_twin: Make) -> None:
    """See `health_differences`, 3 and 4."""
    closing = RawServer(says(b"PONG", then_close=True))
    binary = RawServer(says(b"PONG"))
    try:
        kept = check(tcp_health_check={"send": PING, "receive": [PONG]}, unhealthy_threshold=100)
        sends = check(tcp_health_check={"send": {"binary": "UElORw=="}, "receive": [PONG]}, timeout="0.3s")
        clusters = [
            cluster("closing", [closing.port], health_checks=[kept]),
            cluster("binary", [binary.port], health_checks=[sends]),
        ]
        twin = make_twin([virtual_host([ALL])], [cluster("up", [1]), *clusters])
        failures = "cluster.closing.health_check.network_failure"
        eventually(lambda: twin.envoy.stats(failures)[failures] > 1, "closed between two checks")
        assert closing.connections > 3
        assert twin.mesh.stats()[failures] == 0
        assert "failed_active_hc" in flags_of_envoy(twin, "binary")[binary.port]
        assert flags_of_mesh(twin, "binary") == {binary.port: set()}
    finally:
        closing.stop()
        binary.stop()


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_the_proxy_protocol(make_twin: Make, version: str) -> None:
    heard: list[bytes] = []

    def script(peer: Peer) -> None:
        said = peer.until(b"PING")
        heard.append(said.replace(str(peer.sock.getpeername()[1]).encode(), b"<port>"))
        peer.send(b"PONG")
        peer.wait()

    server = RawServer(script)
    try:
        tcp = {"send": PING, "receive": [PONG], "proxy_protocol_config": {"version": version}}
        config = check(tcp_health_check=tcp, reuse_connection=False)
        twin = make_twin([virtual_host([ALL])], [cluster("up", [server.port], health_checks=[config])])
        assert flags_of_envoy(twin) == flags_of_mesh(twin) == {server.port: set()}
        assert len(heard) >= 2
        assert len(set(heard)) == 1
        assert heard[0] != b"PING"
    finally:
        server.stop()


def test_nobody_listens(make_twin: Make, free_port: Callable[[], int]) -> None:
    port = free_port()
    twin = make_twin([virtual_host([ALL])], [cluster("up", [port], health_checks=[check(tcp_health_check={})])])
    assert flags_of_envoy(twin) == flags_of_mesh(twin) == {port: FAILED}


@pytest.mark.parametrize(
    ("config", "cluster_fields"),
    [
        ({"port_value": 0}, {}),
        ({"hostname": "own.test"}, {}),
        ({"disable_active_health_check": True}, {}),
        ({}, {"alt_port": True}),
    ],
)
def test_where_an_endpoint_is_checked(
    make_twin: Make, fast_backend: Backends, config: dict[str, Any], cluster_fields: dict[str, Any]
) -> None:
    traffic, health = fast_backend("traffic", SICK), fast_backend("health")
    if "port_value" in config:
        config = {"port_value": health.port}
    probe = check(http_health_check={"path": "/healthz", "host": "check.test"})
    if cluster_fields:
        probe["alt_port"] = health.port
    place = endpoint(traffic.port)
    place["endpoint"]["health_check_config"] = config
    assignment = {"cluster_name": "up", "endpoints": [{"lb_endpoints": [place]}]}
    twin = make_twin([virtual_host([ALL])], [cluster("up", [], load_assignment=assignment, health_checks=[probe])])
    well = "port_value" in config or "disable_active_health_check" in config
    settled(twin, {traffic.port: set() if well else FAILED})
    agents = {
        (backend.name, request.header("user-agent"), request.header("host"))
        for backend in (traffic, health)
        for request in backend.requests
        if request.target == "/healthz"
    }
    asked = "health" if "port_value" in config else "traffic"
    host = config.get("hostname", "check.test")
    checked = set() if "disable_active_health_check" in config else {"Envoy/HC", "meshlib/HC"}
    assert agents == {(asked, agent, host) for agent in checked}
