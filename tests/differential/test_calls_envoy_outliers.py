"""Outlier detection, whole calls beside a running Envoy: what is detected, who is ejected, and by which figures."""

import random
import re
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from differential.calls_twin import Call, Twin, cluster, virtual_host
from meshlib.engine.events import EndpointEjected
from parts.fast_backend import FastBackend, Reply, Request

Json = dict[str, Any]
Make = Callable[..., Twin]
Backends = Callable[..., FastBackend]

NO_PANIC = {"update_merge_window": "0s", "healthy_panic_threshold": {"value": 0}}
ALL: Json = {"match": {"prefix": "/"}, "route": {"cluster": "up", "timeout": "0.1s"}}
NOBODY = {
    "enforcing_consecutive_5xx": 0,
    "enforcing_consecutive_gateway_failure": 0,
    "enforcing_consecutive_local_origin_failure": 0,
    "enforcing_success_rate": 0,
    "enforcing_local_origin_success_rate": 0,
    "max_ejection_percent": 100,
}
SPLIT = {"split_external_local_origin_errors": True}
PREFIX = "cluster.up.outlier_detection.ejections_"
WORDS = ("200", "200", "404", "500", "500", "501", "502", "503", "503", "504", "reset", "close")


def theirs(twin: Twin) -> dict[str, int]:
    """Envoy's counters that are not 0; of those that it calls deprecated none."""
    found = {name.removeprefix(PREFIX): value for name, value in twin.envoy.stats(re.escape(PREFIX)).items() if value}
    return {name: value for name, value in found.items() if name.startswith(("detected", "enforced", "overflow"))}


def ours(twin: Twin) -> dict[str, int]:
    found = {name.removeprefix(PREFIX): value for name, value in twin.mesh.stats().items() if name.startswith(PREFIX)}
    return {name: value for name, value in found.items() if value and name != "active"}


def as_asked(request: Request) -> Reply:
    """What the call's path says."""
    word = request.target.strip("/")
    if word.isdigit():
        return Reply(int(word))
    return Reply() if word == "good" else Reply(fault=word)


def one_host(make_twin: Make, fast_backend: Backends, detection: Json, port: int | None = None, **more: Any) -> Twin:
    ports = [fast_backend("up", as_asked).port if port is None else port]
    up = cluster("up", ports, outlier_detection=detection, common_lb_config=NO_PANIC, **more)
    return make_twin([virtual_host([ALL])], [up])


def play(twin: Twin, words: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Both sides' counters after calls that are answered so. In Envoy a worker counts and the main thread detects, and
    what the worker counts in between is lost: each call waits until the main thread has had its turn.
    """
    for number, word in enumerate(words):
        call = Call(str(number), f"/{word}")
        twin.theirs(call)
        twin.envoy.admin("/ready")
        twin.ours(call)
    return theirs(twin), ours(twin)


# ---------------------------------------------------------------------- streaks


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_any_sequence_of_answers_is_detected_alike(
    make_twin: Make, fast_backend: Backends, seed: int, split: bool
) -> None:
    detection = {
        **NOBODY,
        "split_external_local_origin_errors": split,
        "consecutive_5xx": 3,
        "consecutive_gateway_failure": 2,
        "consecutive_local_origin_failure": 1 + seed % 2,
    }
    twin = one_host(make_twin, fast_backend, detection)
    rng = random.Random(seed)
    envoy, mesh = play(twin, [rng.choice(WORDS) for _ in range(150)])
    assert envoy == mesh
    assert mesh["detected_consecutive_5xx"] > 3
    assert mesh["detected_consecutive_gateway_failure"] > 3
    assert mesh.get("detected_consecutive_local_origin_failure", 0) > 3 or not split or seed % 2


@pytest.mark.parametrize("split", [False, True])
def test_timeouts_are_detected_alike(make_twin: Make, fast_backend: Backends, split: bool) -> None:
    detection = {**NOBODY, "split_external_local_origin_errors": split, "consecutive_5xx": 2}
    twin = one_host(make_twin, fast_backend, {**detection, "consecutive_local_origin_failure": 2})
    envoy, mesh = play(twin, ["hang"] * 5)
    assert envoy == mesh
    assert mesh == ({} if split else {"detected_consecutive_5xx": 2, "detected_consecutive_gateway_failure": 1})


def test_a_timeout_that_is_answered_with_204_is_a_timeout_all_the_same(make_twin: Make, fast_backend: Backends) -> None:
    """A known difference: Envoy tells its detectors of a 204."""
    up = cluster("up", [fast_backend("up", as_asked).port], outlier_detection={**NOBODY, "consecutive_5xx": 2})
    internal = {"cidr_ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}
    twin = make_twin([virtual_host([ALL])], [up], use_remote_address=True, internal_address_config=internal)
    asks = (("x-envoy-upstream-rq-timeout-alt-response", "1"),)
    for number in range(4):
        theirs_and_ours = twin.both([Call(str(number), "/hang", asks)])[0]
        assert [answer.status for answer in theirs_and_ours] == [204, 204]
        twin.envoy.admin("/ready")
    assert ours(twin)["detected_consecutive_5xx"] == 2
    assert theirs(twin) == {}


@pytest.mark.parametrize("split", [False, True])
def test_refused_connections_are_detected_alike(
    make_twin: Make, fast_backend: Backends, free_port: Callable[[], int], split: bool
) -> None:
    detection = {**NOBODY, "split_external_local_origin_errors": split, "consecutive_5xx": 3}
    twin = one_host(make_twin, fast_backend, {**detection, "consecutive_local_origin_failure": 2}, free_port())
    envoy, mesh = play(twin, ["200"] * 12)
    assert envoy == mesh
    only = {"detected_consecutive_local_origin_failure": 6}
    assert mesh == (only if split else {"detected_consecutive_5xx": 4, "detected_consecutive_gateway_failure": 2})


@pytest.mark.parametrize(
    "detection,word,expected",
    [
        ({"consecutive_5xx": 0, "consecutive_gateway_failure": 0}, "503", {}),
        ({"consecutive_gateway_failure": 2, "enforcing_consecutive_gateway_failure": 100}, "503", "gateway_failure"),
        ({"consecutive_gateway_failure": 5, "enforcing_consecutive_gateway_failure": 100}, "503", "gateway_failure"),
        ({"consecutive_5xx": 4}, "504", "5xx"),
        ({**SPLIT, "consecutive_local_origin_failure": 1}, "reset", "local_origin_failure"),
    ],
)
def test_the_first_streak_that_is_enforced_ejects(
    make_twin: Make, fast_backend: Backends, detection: Json, word: str, expected: str
) -> None:
    twin = one_host(make_twin, fast_backend, {**detection, "max_ejection_percent": 100, "base_ejection_time": "60s"})
    envoy, mesh = play(twin, [word] * 8)
    assert envoy == mesh
    assert {name for name in mesh if name.startswith("enforced_c")} == (
        {f"enforced_consecutive_{expected}"} if expected else set()
    )


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("status", ["404", "503"])
def test_errors_by_a_matcher_are_detected_alike(
    make_twin: Make, fast_backend: Backends, status: str, split: bool
) -> None:
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    headers = {"headers": [{"name": ":status", "string_match": {"exact": status}}]}
    options = {
        "@type": f"type.googleapis.com/{kind}",
        "explicit_http_config": {"http_protocol_options": {}},
        "outlier_detection": {"error_matcher": {"http_response_headers_match": headers}},
    }
    detection = {
        **NOBODY,
        "consecutive_5xx": 3,
        "consecutive_gateway_failure": 2,
        "split_external_local_origin_errors": split,
    }
    twin = one_host(make_twin, fast_backend, detection, typed_extension_protocol_options={kind: options})
    rng = random.Random(7)
    envoy, mesh = play(twin, [rng.choice((*WORDS, status, status, status, status)) for _ in range(120)])
    assert envoy == mesh
    assert mesh["detected_consecutive_5xx"] > 0


# ---------------------------------------------------------------------- shares of failures

INTERVAL = 1.5
EACH = 20  # requests of one host
STATISTICS = {
    "interval": f"{INTERVAL}s",
    "base_ejection_time": "60s",
    "consecutive_5xx": 0,
    "consecutive_gateway_failure": 0,
    "consecutive_local_origin_failure": 0,
    "success_rate_request_volume": EACH,
    "failure_percentage_request_volume": EACH,
    "max_ejection_percent": 100,
}
HALF, MORE, LESS = (10, "500"), (14, "500"), (8, "500")
GOOD = (0, "500")
BY_PERCENTAGE = {"enforcing_success_rate": 0, "enforcing_failure_percentage": 100, "failure_percentage_threshold": 40}
LOCAL = {**SPLIT, "enforcing_failure_percentage_local_origin": 100, "failure_percentage_threshold": 40}
LOCAL |= {"enforcing_local_origin_success_rate": 0}
CASES: dict[str, tuple[list[tuple[int, str]], Json]] = {
    "one of five": ([HALF, GOOD, GOOD, GOOD, GOOD], {}),
    "two of five share the average": ([HALF, HALF, GOOD, GOOD, GOOD], {}),
    "a smaller factor finds both": ([HALF, HALF, GOOD, GOOD, GOOD], {"success_rate_stdev_factor": 1000}),
    "one too many": (
        [HALF, HALF, GOOD, GOOD, GOOD],
        {"success_rate_stdev_factor": 1000, "max_ejection_percent": 20},
    ),
    "no room": ([HALF, GOOD, GOOD, GOOD, GOOD], {"max_ejection_percent": 10}),
    "no room but for one": ([HALF, *[GOOD] * 4], {"max_ejection_percent": 10, "always_eject_one_host": True}),
    "not enforced": ([HALF, GOOD, GOOD, GOOD, GOOD], {"enforcing_success_rate": 0}),
    "too little volume": ([HALF, GOOD, GOOD, GOOD, GOOD], {"success_rate_request_volume": EACH + 1}),
    "too few hosts": ([HALF, GOOD, GOOD, GOOD, GOOD], {"success_rate_minimum_hosts": 6}),
    "by percentage": ([MORE, LESS, (7, "503"), GOOD, GOOD], BY_PERCENTAGE),
    "percentage not enforced": ([MORE, GOOD, GOOD, GOOD, GOOD], {"failure_percentage_threshold": 40}),
    "percentage of few": ([MORE, GOOD, GOOD], {**BY_PERCENTAGE, "failure_percentage_minimum_hosts": 3}),
    "resets are failures": ([(10, "reset"), GOOD, GOOD, GOOD, GOOD], {}),
    "split: resets are of local origin": ([(20, "reset"), GOOD, GOOD, GOOD, GOOD], LOCAL),
    "split: 5xx are not": ([(20, "503"), GOOD, GOOD, GOOD, GOOD], LOCAL),
    "split: both": ([(10, "503"), (16, "reset"), GOOD, GOOD, GOOD, GOOD], LOCAL),
}


def failing(share: tuple[int, str]) -> Callable[[Request], Reply]:
    """Of twenty requests so many fail, once the test says so."""
    bad, how = share
    numbers: dict[str, Iterator[int]] = {}

    def reply(request: Request) -> Reply:
        word = request.target.strip("/")
        number = next(numbers.setdefault(word, count()))
        if word.startswith("warm") or (number + 1) * bad // EACH == number * bad // EACH:
            return Reply()
        return Reply(int(how)) if how.isdigit() else Reply(fault=how)

    return reply


def post(number: str, path: str) -> Call:
    """What a mesh does not send again over another connection when the one that it had kept is reset."""
    return Call(number, path, (("content-length", "0"),), "POST")


def until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


class Envoy:
    """Envoy's intervals, seen by the success rates that the admin page has from the end of one to that of the next."""

    def __init__(self, twin: Twin, hosts: int) -> None:
        self.twin = twin
        self.hosts = hosts
        self.threshold: float | None = None

    def begin(self) -> None:
        """Until an interval has just begun."""
        for number in range(self.hosts * (EACH + 2)):
            self.twin.theirs(post(f"e-warm-{number}", "/warm-e"))
        self.twin.envoy.wait_for(lambda: self._rates() == {100.0}, "success rates")
        self.began = time.monotonic()

    def send(self) -> None:
        for number in range(self.hosts * EACH):
            self.twin.theirs(post(f"e-{number}", "/e"))

    def end(self) -> tuple[dict[str, int], set[str]]:
        assert time.monotonic() - self.began < INTERVAL, "the machine is too slow for this test"
        until(self.began + INTERVAL + 0.2)
        self.threshold = self._status().get("success_rate_ejection_threshold", {}).get("value")
        return theirs(self.twin), self._ejected()

    def _rates(self) -> set[float]:
        return {host.get("success_rate", {}).get("value", 0.0) for host in self._status()["host_statuses"]}

    def _status(self) -> Json:
        found: Json = next(each for each in self.twin.envoy.clusters()["cluster_statuses"] if each["name"] == "up")
        return found

    def _ejected(self) -> set[str]:
        return {
            f"127.0.0.1:{host['address']['socket_address']['port_value']}"
            for host in self._status()["host_statuses"]
            if host["health_status"].get("failed_outlier_check")
        }


class Ours:
    """The mesh's intervals: the state says when one ends, and the first call after that ends it."""

    def __init__(self, twin: Twin, hosts: int) -> None:
        self.twin = twin
        self.hosts = hosts
        self.told: list[EndpointEjected] = []
        twin.mesh.on_event(lambda event: self.told.append(event) if isinstance(event, EndpointEjected) else None)
        self._numbers = count()

    def begin(self) -> None:
        self._ask("/warm-m")
        self._next()

    def send(self) -> None:
        for _ in range(self.hosts * EACH - 1):  # of which `_next` has sent one
            self._ask("/m")

    def end(self) -> tuple[dict[str, int], set[str]]:
        assert time.monotonic() < self._state.window.ends, "the machine is too slow for this test"
        self._next()
        return ours(self.twin), {cell.address for cell in self._state.ejected}

    def _next(self) -> None:
        until(self._state.window.ends + 0.01)
        self._ask("/m")

    def _ask(self, path: str) -> None:
        self.twin.ours(post(f"m-{next(self._numbers)}", path))

    @property
    def _state(self) -> Any:
        return self.twin.mesh.runtime.state.clusters["up"]


@pytest.mark.parametrize("name", CASES)
def test_shares_of_failures_eject_alike(make_twin: Make, fast_backend: Backends, name: str) -> None:
    shares, detection = CASES[name]
    backends = [fast_backend(f"b{number}", failing(share)) for number, share in enumerate(shares)]
    up = cluster(
        "up",
        [backend.port for backend in backends],
        outlier_detection={**STATISTICS, **detection},
        common_lb_config=NO_PANIC,
    )
    twin = make_twin([virtual_host([ALL])], [up])
    envoy, mesh = Envoy(twin, len(shares)), Ours(twin, len(shares))
    envoy.begin()
    envoy.send()
    counters, out = envoy.end()
    mesh.begin()
    mesh.send()
    mine, mine_out = mesh.end()
    assert mine == counters
    assert len(mine_out) == len(out) == mine.get("enforced_total", 0)
    if "overflow" not in mine:  # who comes first is chance
        assert mine_out == out
    by_rate = [event.details for event in mesh.told if event.reason == "success_rate"]
    assert len(by_rate) == mine.get("enforced_success_rate", 0)
    for details in by_rate:
        assert envoy.threshold is not None
        assert f"threshold {envoy.threshold:.1f} %" in details


def test_envoy_counts_an_ejection_twice_where_two_detectors_find_one_host(
    make_twin: Make, fast_backend: Backends
) -> None:
    """A known difference: its gauge of ejected hosts is 2 then, and so fewer others may be ejected."""
    backends = [fast_backend(f"b{n}", failing(share)) for n, share in enumerate([MORE, GOOD, GOOD, GOOD, GOOD])]
    detection = {**STATISTICS, "enforcing_failure_percentage": 100, "failure_percentage_threshold": 40}
    ports = [backend.port for backend in backends]
    up = cluster("up", ports, outlier_detection=detection, common_lb_config=NO_PANIC)
    twin = make_twin([virtual_host([ALL])], [up])
    for side, active in ((Envoy(twin, 5), 2), (Ours(twin, 5), 1)):
        side.begin()
        side.send()
        counters, out = side.end()
        detected = {"detected_success_rate": 1, "detected_failure_percentage": 1}
        assert {name: value for name, value in counters.items() if "detected" in name} == detected
        assert (len(out), counters["enforced_total"]) == (1, active)
    stat = f"{PREFIX}active"
    assert (twin.envoy.stats(stat)[stat], len(twin.mesh.runtime.state.clusters["up"].ejected)) == (2, 1)
