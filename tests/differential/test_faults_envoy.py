"""One fault filter in Envoy and in a mesh: what is aborted, delayed, slowed, by whom and how often."""

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from differential.balancing_envoy import chi_squared, critical_value
from differential.calls_twin import AUTHORITY, EXTENSIONS, Answer, Call, Twin, cluster, marked, virtual_host
from meshlib.engine.call import call_flow
from meshlib.engine.commands import Reply as ReplyCommand
from meshlib.model.request import RequestHead
from parts.fast_backend import FastBackend, Reply

Json = dict[str, Any]
Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]
NAME = "envoy.filters.http.fault"
ALL: Json = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
ALWAYS = {"numerator": 100}
HEADERS = "x-envoy-fault"


def fault(**config: Any) -> Json:
    return {"@type": f"{EXTENSIONS}.filters.http.fault.v3.HTTPFault", **config}


def in_chain(**config: Any) -> list[Json]:
    return [{"name": NAME, "typed_config": fault(**config)}]


def abort(status: int = 503, percentage: Json = ALWAYS) -> Json:
    return {"http_status": status, "percentage": percentage}


def delay(seconds: float, percentage: Json = ALWAYS) -> Json:
    return {"fixed_delay": f"{seconds}s", "percentage": percentage}


BY_HEADER = {
    "abort": {"header_abort": {}, "percentage": ALWAYS},
    "delay": {"header_delay": {}, "percentage": ALWAYS},
    "response_rate_limit": {"header_limit": {}, "percentage": ALWAYS},
}


@pytest.fixture
def twin_of(make_twin: Make, fast_backend: Backends) -> Callable[..., Twin]:
    """``twin_of(routes, filters, **more)``: both in front of a backend `up` (and `other`)."""

    def make(routes: list[Json], filters: list[Json], runtime: Json | None = None, **reply: Any) -> Twin:
        up = fast_backend("up", Reply(**reply))
        other = fast_backend("other", Reply(**reply))
        return make_twin(
            [virtual_host(routes)],
            [cluster("up", [up.port]), cluster("other", [other.port])],
            filters,
            runtime=runtime,
        )

    return make


def told(answer: Answer) -> tuple[int, bytes, str]:
    kind = dict(answer.headers).get("content-type", "")
    return answer.status, answer.body if answer.status != 200 else b"", kind if answer.status != 200 else ""


def check_alike(twin: Twin, calls: list[Call]) -> list[Answer]:
    """Each call is answered alike by both, through every door, and has the same flags; ours."""
    answers = twin.all_doors(calls)
    flags = twin.flags(len(calls))
    for call, (theirs, ours, aio) in zip(calls, answers, strict=True):
        assert told(theirs) == told(ours) == told(aio), call
        assert ",".join(sorted(flags[f"envoy-{call.id}"])) == ours.flag == aio.flag, call
    return [ours for _, ours, _ in answers]


STATS = ("aborts_injected", "delays_injected", "faults_overflow", "response_rl_injected", "active_faults")


def stats_of(twin: Twin) -> tuple[Json, Json]:
    theirs = twin.envoy.stats(r"http\.out\.fault\.")
    theirs = {name.removeprefix("http.out."): value for name, value in theirs.items()}
    ours = twin.mesh.stats()
    return theirs, {name: ours.get(name, 0) for name in theirs}


# ------------------------------------------------------------------------------------------------------------ aborts


@pytest.mark.parametrize(
    "config",
    [
        {"abort": abort(503)},
        {"abort": abort(200)},
        {"abort": abort(404)},
        {"abort": abort(599)},
        {"abort": {"grpc_status": 14, "percentage": ALWAYS}},
        {"abort": {"http_status": 503}},
        {"abort": abort(503, {"numerator": 0})},
        {"abort": abort(503, {"numerator": 1_000_000, "denominator": "MILLION"})},
        {"abort": abort(503), "upstream_cluster": "up"},
        {"abort": abort(503), "upstream_cluster": "other"},
        {"abort": abort(503), "max_active_faults": 0},
        {"abort": abort(503), "max_active_faults": 1},
        {"abort": abort(503), "downstream_nodes": ["a", "b"]},
        {"abort": abort(503), "headers": [{"name": "x-user", "string_match": {"exact": "me"}}]},
        {"abort": abort(503), "headers": [{"name": ":path", "string_match": {"prefix": "/other"}}, {"name": "x-user"}]},
        {"abort": abort(503), "headers": [{"name": "x-user", "present_match": True, "invert_match": True}]},
        {"delay": delay(0.01), "abort": abort(418)},
        {"delay": delay(0.01)},
        {"delay": delay(0.01, {"numerator": 0}), "abort": abort(418)},
        {"delay": delay(0.01), "max_active_faults": 0},
        {},
    ],
)
def test_who_is_aborted_or_delayed(twin_of: Callable[..., Twin], config: Json) -> None:
    routes = [
        {"match": {"prefix": "/other"}, "route": {"cluster": "other"}},
        {"match": {"prefix": "/named"}, "route": {"cluster_header": "x-cluster"}},
        {"match": {"prefix": "/answer"}, "direct_response": {"status": 202}},
        {
            "match": {"prefix": "/weighted"},
            "route": {"weighted_clusters": {"clusters": [{"name": "other", "weight": 1}]}},
        },
        {
            "match": {"prefix": "/headers"},
            "route": {"cluster": "up"},
            "response_headers_to_add": [{"header": {"key": "x-route", "value": "yes"}}],
        },
        ALL,
    ]
    twin = twin_of(routes, in_chain(**config))
    given: list[tuple[str, tuple[tuple[str, str], ...]]] = [
        ("/", ()),
        ("/", (("x-user", "me"),)),
        ("/", (("x-user", "you"),)),
        ("/", (("x-envoy-downstream-service-node", "b"),)),
        ("/", (("x-envoy-downstream-service-node", "c"),)),
        ("/other", (("x-user", "me"),)),
        ("/named", (("x-cluster", "up"),)),
        ("/named", (("x-cluster", "other"),)),
        ("/answer", ()),
        ("/weighted", ()),
        ("/headers", ()),
    ]
    calls = [Call(str(number), path, headers) for number, (path, headers) in enumerate(given)]
    check_alike(twin, calls)
    theirs, ours = stats_of(twin)
    assert ours == {name: value * (1 if "active" in name else 2) for name, value in theirs.items()}  # two doors


ASKED = [
    {},
    {f"{HEADERS}-abort-request": "503"},
    {f"{HEADERS}-abort-request": "200"},
    {f"{HEADERS}-abort-request": "199"},
    {f"{HEADERS}-abort-request": "600"},
    {f"{HEADERS}-abort-request": "+418"},
    {f"{HEADERS}-abort-request": "-418"},
    {f"{HEADERS}-abort-request": "418.0"},
    {f"{HEADERS}-abort-request": "text"},
    {f"{HEADERS}-abort-request": "503", f"{HEADERS}-abort-request-percentage": "0"},
    {f"{HEADERS}-abort-request": "503", f"{HEADERS}-abort-request-percentage": "100"},
    {f"{HEADERS}-abort-request": "503", f"{HEADERS}-abort-request-percentage": "900"},
    {f"{HEADERS}-abort-request": "503", f"{HEADERS}-abort-request-percentage": "no"},
    {f"{HEADERS}-abort-request": "503", f"{HEADERS}-abort-request-percentage": "-1"},
    {f"{HEADERS}-abort-request": "503", f"{HEADERS}-abort-request-percentage": "4294967296"},
    {f"{HEADERS}-abort-grpc-request": "5"},
    {f"{HEADERS}-abort-grpc-request": "5", f"{HEADERS}-abort-request": "404"},
    {f"{HEADERS}-delay-request": "5"},
    {f"{HEADERS}-delay-request": "0"},
    {f"{HEADERS}-delay-request": "-5"},
    {f"{HEADERS}-delay-request": "5", f"{HEADERS}-delay-request-percentage": "0"},
    {f"{HEADERS}-delay-request": "5", f"{HEADERS}-abort-request": "418"},
    {f"{HEADERS}-delay-request": "18446744073709551616"},
    {f"{HEADERS}-throughput-response": "1000"},
    {f"{HEADERS}-throughput-response": "0"},
    {f"{HEADERS}-throughput-response": "1000", f"{HEADERS}-throughput-response-percentage": "0"},
    {f"{HEADERS}-throughput-response": "1000", f"{HEADERS}-delay-request": "5", f"{HEADERS}-abort-request": "418"},
]


@pytest.mark.parametrize(
    "config",
    [
        BY_HEADER,
        {**BY_HEADER, "abort": {"header_abort": {}, "percentage": {"numerator": 0}}},
        {"abort": abort(503), "delay": delay(0.005)},  # which hears nothing of headers
    ],
)
def test_what_a_request_asks_for_in_headers(twin_of: Callable[..., Twin], config: Json) -> None:
    twin = twin_of([ALL], in_chain(**config))
    calls = [Call(str(number), headers=tuple(asked.items())) for number, asked in enumerate(ASKED)]
    check_alike(twin, calls)
    theirs, ours = stats_of(twin)
    assert ours == {name: value * (1 if "active" in name else 2) for name, value in theirs.items()}


def test_what_a_grpc_call_is_told(twin_of: Callable[..., Twin]) -> None:
    """Envoy says it in `grpc-status` and `grpc-message` of a response without a body, a flow to its door."""
    twin = twin_of([ALL], in_chain(**BY_HEADER))
    asked = [{f"{HEADERS}-abort-request": str(status)} for status in (200, 204, 301, 400, 401, 403, 404, 418, 429)]
    asked += [{f"{HEADERS}-abort-request": str(status)} for status in range(500, 506)]
    asked += [{f"{HEADERS}-abort-grpc-request": str(status)} for status in (0, 1, 5, 16)]
    for number, headers in enumerate(asked):
        sent = (("content-type", "application/grpc"), *headers.items())
        theirs = dict(twin.theirs(Call(str(number), "/a.B/C", sent, "POST", body=b"")).headers)
        head = RequestHead("POST", "http", AUTHORITY, "/a.B/C", [(n.encode(), v.encode()) for n, v in sent])
        reply = next(call_flow(twin.mesh.runtime, head, 0.0))
        assert isinstance(reply, ReplyCommand)
        assert (str(reply.info.grpc_status), reply.body.decode()) == (theirs["grpc-status"], theirs["grpc-message"])


def test_the_most_specific_level_wins(twin_of: Callable[..., Twin]) -> None:
    def per(status: int) -> Json:
        return {NAME: fault(abort=abort(status))}

    off = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    shares = {"clusters": [{"name": "up", "weight": 1, "typed_per_filter_config": per(444)}]}
    routes = [
        {"match": {"prefix": "/route"}, "route": {"cluster": "up"}, "typed_per_filter_config": per(433)},
        {"match": {"prefix": "/share"}, "route": {"weighted_clusters": shares}, "typed_per_filter_config": per(433)},
        {"match": {"prefix": "/off"}, "route": {"cluster": "up"}, "typed_per_filter_config": {NAME: off}},
        {"match": {"prefix": "/none"}, "route": {"cluster": "up"}, "typed_per_filter_config": {NAME: fault()}},
        {"match": {"prefix": "/answer"}, "direct_response": {"status": 203}, "typed_per_filter_config": per(455)},
        {"match": {"prefix": "/redirect"}, "redirect": {"path_redirect": "/"}, "typed_per_filter_config": per(456)},
        ALL,
    ]
    twin = twin_of(routes, in_chain(abort=abort(411)))
    paths = ["/", "/route", "/share", "/off", "/none", "/answer", "/redirect"]
    ours = check_alike(twin, [Call(str(number), path) for number, path in enumerate(paths)])
    assert [answer.status for answer in ours] == [411, 433, 444, 200, 200, 455, 456]


def test_what_a_routes_headers_say_of_a_fault(twin_of: Callable[..., Twin]) -> None:
    said = {"x-flags": "%RESPONSE_FLAGS%", "x-long": "%RESPONSE_FLAGS_LONG%", "x-code": "%RESPONSE_CODE%"}
    options = [{"header": {"key": key, "value": value}} for key, value in said.items()]
    twin = twin_of([{**ALL, "response_headers_to_add": options}], in_chain(**BY_HEADER))
    delayed, aborted = (f"{HEADERS}-delay-request", "5"), (f"{HEADERS}-abort-request", "418")
    calls = [
        Call(str(number), "/", sent) for number, sent in enumerate([(), (delayed,), (aborted,), (delayed, aborted)])
    ]
    for call, (theirs, ours, aio) in zip(calls, twin.all_doors(calls), strict=True):
        told = [{key: dict(answer.headers).get(key) for key in said} for answer in (theirs, ours, aio)]
        assert told[0] == told[1] == told[2], call


def test_a_virtual_hosts_fault(make_twin: Make, fast_backend: Backends) -> None:
    up = fast_backend("up")
    host = virtual_host([ALL], typed_per_filter_config={NAME: fault(abort=abort(422))})
    twin = make_twin([host], [cluster("up", [up.port])], in_chain())
    assert [answer.status for answer in check_alike(twin, [Call("0")])] == [422]


RUNTIMES: list[Json] = [
    {"fault.http.abort.abort_percent": 0},
    {"fault.http.abort.abort_percent": {"numerator": 0, "denominator": "MILLION"}},
    {"fault": {"http": {"abort": {"http_status": 418}}}},
    {"fault.http.abort.http_status": "417"},
    {"fault.http.max_active_faults": 0},
    {"fault.http.delay.fixed_delay_percent": 0},
    {"fault.http.delay.fixed_duration_ms": 0},
    {"fault.http.me.abort.abort_percent": 0},
    {"fault.http.me.abort.http_status": 416, "fault.http.abort.http_status": 415},
    {"fault.http.me.delay.fixed_delay_percent": 0, "fault.http.abort.abort_percent": 0},
    {"fault.http.me.delay.fixed_duration_ms": 0},
    {"mine": 0},
]


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
@pytest.mark.parametrize("level", ["chain", "route"])
def test_what_a_runtime_says(twin_of: Callable[..., Twin], runtime: Json, level: str) -> None:
    config = {"abort": abort(503), "delay": delay(0.005)}
    if "mine" in runtime:
        config["abort_percent_runtime"] = "mine"
    chain = in_chain(**config) if level == "chain" else in_chain()
    route = ALL if level == "chain" else {**ALL, "typed_per_filter_config": {NAME: fault(**config)}}
    twin = twin_of([route], chain, runtime)
    caller = "x-envoy-downstream-service-cluster"
    check_alike(twin, [Call("0"), Call("1", headers=((caller, "me"),)), Call("2", headers=((caller, "you"),))])
    theirs, ours = stats_of(twin)
    by_caller = {name: value for name, value in theirs.items() if name.count(".") == 2}
    assert ours == {name: value * (1 if "active" in name else 2) for name, value in theirs.items()}
    assert set(by_caller) <= set(twin.mesh.stats())


def test_counts_by_caller_may_be_off(twin_of: Callable[..., Twin]) -> None:
    twin = twin_of([ALL], in_chain(abort=abort(), disable_downstream_cluster_stats=True))
    check_alike(twin, [Call("0", headers=(("x-envoy-downstream-service-cluster", "me"),))])
    theirs, ours = stats_of(twin)
    assert not any(".me." in name for name in (*theirs, *twin.mesh.stats()))
    assert theirs["fault.aborts_injected"] == 1
    assert ours["fault.aborts_injected"] == 2


@pytest.mark.parametrize(
    "percentage, header",
    [
        ({"numerator": 30}, None),
        ({"numerator": 2500, "denominator": "TEN_THOUSAND"}, None),
        ({"numerator": 80}, "40"),
        ({"numerator": 50_000, "denominator": "MILLION"}, "90000"),
    ],
)
def test_shares_of_aborts(twin_of: Callable[..., Twin], percentage: Json, header: str | None) -> None:
    config = {"header_abort": {}, "percentage": percentage} if header else abort(503, percentage)
    asked = ((f"{HEADERS}-abort-request", "503"), (f"{HEADERS}-abort-request-percentage", header or ""))
    twin = twin_of([ALL], in_chain(abort=config))
    counts = {}
    for side, send in (("envoy", twin.theirs), ("mesh", twin.ours)):
        calls = (Call(f"{side}-{number}", headers=asked if header else ()) for number in range(3000))
        counts[side] = Counter("abort" if send(call).status == 503 else "fine" for call in calls)
    statistic, degrees = chi_squared(counts["envoy"], counts["mesh"])
    assert degrees == 1
    assert statistic < critical_value(degrees), counts


def test_a_delay_and_an_abort_are_drawn_one_by_one(twin_of: Callable[..., Twin]) -> None:
    half = {"numerator": 50}
    twin = twin_of([ALL], in_chain(delay=delay(0.001, half), abort=abort(503, half)))
    for side, send in (("envoy", twin.theirs), ("mesh", twin.ours)):
        for number in range(1000):
            send(Call(f"{side}-{number}"))
    theirs, ours = stats_of(twin)
    for name in ("fault.aborts_injected", "fault.delays_injected"):
        # Five standard deviations of the difference of two binomials of 1000 by halves.
        assert abs(theirs[name] - ours[name]) < 112, (theirs, ours)
        assert abs(ours[name] - 500) < 80


# ------------------------------------------------------------------------------------------------------------ time


def timed(send: Callable[[Call], Answer], call: Call) -> tuple[Answer, float]:
    began = time.monotonic()
    return send(call), time.monotonic() - began


def each_side(twin: Twin) -> list[tuple[str, Callable[[Call], tuple[Answer, float]]]]:
    return [
        ("envoy", lambda call: timed(twin.theirs, call)),
        ("mesh", lambda call: timed(twin.ours, call)),
        ("aio", lambda call: twin.ours_aio([call])[0]),
    ]


def test_a_delay_lasts_as_long(twin_of: Callable[..., Twin]) -> None:
    twin = twin_of([ALL], in_chain(**(BY_HEADER | {"delay": {"header_delay": {}, "percentage": ALWAYS}})))
    for side, send in each_side(twin):
        answer, took = send(Call(side, headers=((f"{HEADERS}-delay-request", "300"),)))
        assert (answer.status, 0.29 < took < 0.6) == (200, True), (side, took)


@pytest.mark.parametrize("timeout, status", [("0.15s", 200), ("0.05s", 504)])
def test_a_delay_is_outside_the_routes_timeout(make_twin: Make, fast_backend: Backends, timeout: str, status: int):
    """The backend takes 100 ms; the route's timeout begins when the delay of 300 ms is over."""
    up = fast_backend("up", Reply(delay=0.1))
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": timeout}}
    twin = make_twin([virtual_host([route])], [cluster("up", [up.port])], in_chain(delay=delay(0.3)))
    for side, send in each_side(twin):
        answer, took = send(Call(side))
        assert answer.status == status, side
        assert 0.29 < took < 0.7, (side, took)
    assert twin.flags(1)["envoy"] == ({"DI"} if status == 200 else {"DI", "UT"})


@pytest.mark.parametrize("kbps, size", [(100, 30_000), (64, 1000), (1, 300), (1000, 300_000)])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_body_takes_as_long(twin_of: Callable[..., Twin], kbps: int, size: int, fixed: bool) -> None:
    limit = {"fixed_limit": {"limit_kbps": kbps}} if fixed else {"header_limit": {}}
    twin = twin_of([ALL], in_chain(response_rate_limit={**limit, "percentage": ALWAYS}), body=b"x" * size)
    headers = () if fixed else ((f"{HEADERS}-throughput-response", str(kbps)),)
    took = {}
    for side, send in each_side(twin):
        send(Call(f"{side}-first"))  # a connection is there
        answer, took[side] = send(Call(side, headers=headers))
        assert (answer.status, answer.body, answer.flag) == (200, b"x" * size, ""), side
    expected = max(0.0, size / (kbps * 1024) - 0.05)
    for side, seconds in took.items():
        assert expected - 0.02 < seconds < expected + 0.2, (side, took, expected)
    stats = stats_of(twin)
    assert stats[0]["fault.active_faults"] == stats[1]["fault.active_faults"] == 0


def test_the_body_of_a_direct_response_takes_as_long(twin_of: Callable[..., Twin]) -> None:
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "x" * 3000}}}
    limit = {"fixed_limit": {"limit_kbps": 10}, "percentage": ALWAYS}
    twin = twin_of([route], in_chain(response_rate_limit=limit))
    for side, send in each_side(twin):
        answer, took = send(Call(side))
        assert (len(answer.body), 0.2 < took < 0.5) == (3000, True), (side, took)


@pytest.mark.parametrize("allowed", [1, 3])
def test_what_is_over_max_active_faults_passes(twin_of: Callable[..., Twin], allowed: int) -> None:
    twin = twin_of([ALL], in_chain(delay=delay(0.6), max_active_faults=allowed))
    for side, send in (("envoy", twin.theirs), ("mesh", twin.ours)):
        calls = [Call(str(number)) for number in range(8)]
        began = time.monotonic()
        ends = twin.at_once(lambda call, send=send: (send(call), time.monotonic())[1], [marked(side, c) for c in calls])  # type: ignore[misc]
        assert Counter(end - began > 0.55 for end in ends) == {True: allowed, False: 8 - allowed}, side
    theirs, ours = stats_of(twin)
    assert ours == theirs
    assert ours["fault.faults_overflow"] == 8 - allowed


@pytest.mark.parametrize("limited", [False, True])
def test_how_long_a_fault_is_active(twin_of: Callable[..., Twin], limited: bool) -> None:
    """With a rate limit for responses, drawn or not, until the request is over; else as long as the delay."""
    config: Json = {"delay": delay(0.1), "max_active_faults": 1}
    if limited:
        config["response_rate_limit"] = {"fixed_limit": {"limit_kbps": 1}, "percentage": {"numerator": 0}}
    twin = twin_of([ALL], in_chain(**config), delay=0.6)
    for side, send in (("envoy", twin.theirs), ("mesh", twin.ours)):

        def paced(call: Call, send: Callable[[Call], Answer] = send) -> float:
            time.sleep(0.35 * int(call.id[-1]))
            return timed(send, call)[1]

        took = twin.at_once(paced, [Call(f"{side}-0"), Call(f"{side}-1")])
        assert [seconds > 0.68 for seconds in took] == [True, not limited], (side, took)
    theirs, ours = stats_of(twin)
    assert ours == theirs
    assert ours["fault.active_faults"] == 0
    assert ours["fault.faults_overflow"] == int(limited)


# ------------------------------------------------------------------------------------------------------ drawn at random


class Drawn:
    """Configurations of faults that leave nothing to chance, at several levels, and requests that meet them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def some(self, **fields: Any) -> Json:
        return {name: value for name, value in fields.items() if self.rng.random() < 0.4}

    def share(self) -> Json:
        whole = {"HUNDRED": 100, "TEN_THOUSAND": 10_000, "MILLION": 1_000_000}
        denominator = self.rng.choice(list(whole))
        return {"numerator": self.rng.choice((0, *[whole[denominator]] * 4)), "denominator": denominator}

    def fault(self) -> Json:
        rng = self.rng
        aborts = ({"http_status": rng.choice((200, 400, 429, 503))}, {"grpc_status": rng.randint(0, 16)})
        headers = (
            {"name": "x-user", "string_match": {"exact": "me"}},
            {"name": "x-user", "present_match": True, "invert_match": True},
            {"name": ":path", "string_match": {"contains": "a"}},
        )
        return fault(
            **self.some(
                abort={**rng.choice((*aborts, {"header_abort": {}})), "percentage": self.share()},
                delay={**rng.choice(({"fixed_delay": "0.004s"}, {"header_delay": {}})), "percentage": self.share()},
                response_rate_limit={
                    **rng.choice(({"fixed_limit": {"limit_kbps": 100}}, {"header_limit": {}})),
                    "percentage": self.share(),
                },
            ),
            **self.some(headers=[rng.choice(headers)], upstream_cluster=rng.choice(("up", "other"))),
            **(self.some(downstream_nodes=["a"]) if rng.random() < 0.3 else {}),
            **(self.some(max_active_faults=rng.choice((0, 5))) if rng.random() < 0.3 else {}),
            **(self.some(abort_percent_runtime="own.abort", delay_percent_runtime="own.delay")),
        )

    def levels(self) -> Json:
        return {"typed_per_filter_config": {NAME: self.fault()}} if self.rng.random() < 0.5 else {}

    def routes(self) -> list[Json]:
        share = {"name": self.rng.choice(("up", "other")), "weight": 1, **self.levels()}
        return [
            {"match": {"prefix": "/a"}, "route": {"cluster": "other"}, **self.levels()},
            {"match": {"prefix": "/b"}, "route": {"weighted_clusters": {"clusters": [share]}}, **self.levels()},
            {"match": {"prefix": "/c"}, "route": {"cluster_header": "x-cluster"}, **self.levels()},
            {"match": {"prefix": "/d"}, "direct_response": {"status": 203}, **self.levels()},
            {**ALL, **self.levels()},
        ]

    def runtime(self) -> Json:
        return self.some(
            **{
                "fault.http.abort.http_status": 417,
                "fault.http.abort.grpc_status": 3,
                "fault.http.abort.abort_percent": self.rng.choice((0, 100)),
                "fault.http.delay.fixed_delay_percent": self.rng.choice((0, 100)),
                "fault.http.delay.fixed_duration_ms": 6,
                "fault.http.me.abort.abort_percent": self.rng.choice((0, 100)),
                "fault.http.me.abort.http_status": 416,
                "fault.http.rate_limit.response_percent": self.rng.choice((0, 100)),
                "own.abort": self.rng.choice((0, 100)),
            }
        )

    def call(self, number: int) -> Call:
        rng = self.rng
        headers = self.some(
            **{
                "x-user": rng.choice(("me", "you")),
                "x-envoy-downstream-service-node": rng.choice(("a", "b")),
                "x-envoy-downstream-service-cluster": rng.choice(("me", "you")),
                f"{HEADERS}-abort-request": rng.choice(("404", "700")),
                f"{HEADERS}-abort-grpc-request": "4",
                f"{HEADERS}-abort-request-percentage": rng.choice(("0", "100", "1000000")),
                f"{HEADERS}-delay-request": "5",
                f"{HEADERS}-throughput-response": "90",
            }
        )
        headers["x-cluster"] = rng.choice(("up", "other"))  # without it: see call_differences
        path = rng.choice(("/", "/a", "/b", "/c", "/d", "/x/a"))
        return Call(str(number), path, tuple(headers.items()))


SEEDS = range(1, 9)
MORE_SEEDS = range(100, 160)


@pytest.mark.parametrize("seed", [*SEEDS, *(pytest.param(seed, marks=pytest.mark.slow) for seed in MORE_SEEDS)])
def test_what_is_drawn_meets_both_alike(twin_of: Callable[..., Twin], seed: int) -> None:
    drawn = Drawn(seed)
    chain = [{"name": NAME, "typed_config": drawn.fault()}]
    twin = twin_of(drawn.routes(), chain, drawn.runtime() or None)
    calls = [drawn.call(number) for number in range(60)]
    answers = twin.both(calls)
    flags = twin.flags(len(calls))
    for call, (theirs, ours) in zip(calls, answers, strict=True):
        assert (theirs.status, ours.backend) == (ours.status, theirs.backend), (seed, call)
        assert ours.backend or theirs.body == ours.body, (seed, call)
        assert ",".join(sorted(flags[f"envoy-{call.id}"])) == ours.flag, (seed, call)
    theirs, ours = stats_of(twin)
    assert ours == theirs, seed
