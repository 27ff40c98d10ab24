"""Assigned quotas on a server of ours: reports, assignments, their end, streams that end, forks."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from differential.calls_twin import EXTENSIONS, bootstrap, cluster, virtual_host
from e2e.rate_limits.limited import forked
from meshlib import Mesh
from meshlib.grpc import quota_client
from parts.fast_backend import FastBackend
from parts.fixtures import Servers
from parts.quota_server import QuotaServer

QUOTA = f"{EXTENSIONS}.filters.http.rate_limit_quota.v3"


def assigned(**strategy: Any) -> dict[str, Any]:
    return {"quota_assignment_action": {"rate_limit_strategy": strategy}}


PER_DAY = assigned(requests_per_time_unit={"requests_per_time_unit": 3, "time_unit": "DAY"})
DENY, ALLOW = assigned(blanket_rule="DENY_ALL"), assigned(blanket_rule="ALLOW_ALL")
HEADER = {"@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput", "header_name": "x-user"}
ADA = {"name": "users", "user": "ada"}


def settings(**more: Any) -> dict[str, Any]:
    entries = {"name": {"string_value": "users"}, "user": {"custom_value": {"name": "h", "typed_config": HEADER}}}
    return {
        "@type": f"{QUOTA}.RateLimitQuotaBucketSettings",
        "bucket_id_builder": {"bucket_id_builder": entries},
        "reporting_interval": "0.15s",
        **more,
    }


def quotas(folder: Path, backend: int, port: int, action: dict[str, Any], **options: Any) -> Path:
    """A bootstrap whose cluster `up` is behind the filter, and `quotas` the service."""
    config = {
        "@type": f"{QUOTA}.RateLimitQuotaFilterConfig",
        "rlqs_server": {"envoy_grpc": {"cluster_name": "quotas"}},
        "domain": "shop",
        "bucket_matchers": {"matcher_list": {"matchers": [_line(action)]}},
        **options,
    }
    whole = bootstrap(
        [virtual_host([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}])],
        [cluster("up", [backend]), cluster("quotas", [port])],
        filters=[{"name": "envoy.filters.http.rate_limit_quota", "typed_config": config}],
    )
    path = folder / "quota.json"
    path.write_text(json.dumps(whole))
    return path


@pytest.fixture
def make_mesh(servers: Servers) -> Iterator[Callable[..., Mesh]]:
    """``make_mesh(backend port, quota server's port, settings)``."""
    made: list[Mesh] = []

    def make(*given: Any, **options: Any) -> Mesh:
        made.append(Mesh.from_file(quotas(servers.folder("quota"), *given, **options)))
        return made[-1].start().wait_ready()

    yield make
    for mesh in made:
        mesh.close()


def _line(action: dict[str, Any]) -> dict[str, Any]:
    present = {
        "input": {"name": "h", "typed_config": HEADER},
        "value_match": {"safe_regex": {"google_re2": {}, "regex": ".+"}},
    }
    return {"predicate": {"single_predicate": present}, "on_match": {"action": {"name": "b", "typed_config": action}}}


@pytest.fixture
def quota_server(servers: Servers) -> Callable[..., QuotaServer]:
    def start(*given: Any, **more: Any) -> QuotaServer:
        return servers.keep(QuotaServer(*given, **more))

    return start


def statuses(client: httpx.Client, count: int, user: str | None = "ada") -> Counter[int]:
    headers = {} if user is None else {"x-user": user}
    return Counter(client.get("http://up/", headers=headers).status_code for _ in range(count))


def settle(server: QuotaServer, client: httpx.Client, status: int, user: str = "ada") -> None:
    """Call until an assignment shows."""
    server.wait(lambda: status in statuses(client, 1, user))


def test_a_quota_is_assigned_and_its_use_is_told(
    make_mesh: Callable[..., Mesh], quota_server: Callable[..., QuotaServer], fast_backend: Callable[..., FastBackend]
) -> None:
    server, backend = quota_server(lambda bucket: DENY if bucket["user"] == "eve" else PER_DAY), fast_backend("up")
    mesh = make_mesh(backend.port, server.port, settings())
    with mesh.http.client() as client:
        assert statuses(client, 5, None) == {200: 5}  # of no bucket
        assert server.streams == 0  # nobody to tell of yet
        assert statuses(client, 1) == {200: 1}
        server.wait(lambda: server.used(**ADA) == (1, 0))  # told at once, and allowed: nothing was assigned then
        settle(server, client, 429)
        allowed = server.wait(lambda: server.used(**ADA)[1] and server.used(**ADA)[0])
        assert backend.count == 5 + allowed
        assert statuses(client, 4) == {429: 4}
        denied = server.used(**ADA)[1]
        server.wait(lambda: server.used(**ADA)[1] >= denied)
        settle(server, client, 429, "eve")
    assert {report[0] for report in server.reports} == {"shop"}
    assert server.streams == 1


@pytest.mark.parametrize("behaviour,first", [({"blanket_rule": "DENY_ALL"}, 429), ({"blanket_rule": "ALLOW_ALL"}, 200)])
def test_without_a_service_the_fallback_counts(
    make_mesh: Callable[..., Mesh],
    quota_server: Callable[..., QuotaServer],
    fast_backend: Callable[..., FastBackend],
    monkeypatch: pytest.MonkeyPatch,
    behaviour: dict[str, Any],
    first: int,
) -> None:
    """And once the service is there it is told of every bucket, and heard."""
    monkeypatch.setattr(quota_client, "FIRST_WAIT", 0.1)
    server, backend = QuotaServer(), fast_backend("up")
    port = server.port
    server.stop()
    mesh = make_mesh(backend.port, port, settings(no_assignment_behavior={"fallback_rate_limit": behaviour}))
    with mesh.http.client() as client:
        assert statuses(client, 4) == {first: 4}
        again = quota_server(lambda bucket: ALLOW if first == 429 else DENY, port=port)
        settle(again, client, 200 if first == 429 else 429)


def test_assignments_end(
    make_mesh: Callable[..., Mesh], quota_server: Callable[..., QuotaServer], fast_backend: Callable[..., FastBackend]
) -> None:
    short = {"quota_assignment_action": {**DENY["quota_assignment_action"], "assignment_time_to_live": "0.2s"}}
    server, backend = quota_server(lambda bucket: short), fast_backend("up")
    mesh = make_mesh(backend.port, server.port, settings())
    with mesh.http.client() as client:
        settle(server, client, 429)
        settle(server, client, 200)
        server.assign(ADA, DENY)
        settle(server, client, 429)
        server.assign(ADA, {"abandon_action": {}})
        settle(server, client, 200)


def test_a_stream_that_ends_is_begun_anew(
    make_mesh: Callable[..., Mesh],
    quota_server: Callable[..., QuotaServer],
    fast_backend: Callable[..., FastBackend],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(quota_client, "FIRST_WAIT", 0.1)
    server, backend = QuotaServer(lambda bucket: DENY), fast_backend("up")
    mesh = make_mesh(backend.port, server.port, settings())
    with mesh.http.client() as client:
        settle(server, client, 429)
        server.stop()
        assert statuses(client, 3) == {429: 3}  # what was assigned stays
        again = quota_server(lambda bucket: ALLOW, port=server.port)
        settle(again, client, 200)
    assert sum("has ended its stream" in record.message for record in caplog.records) == 1


def test_denied_requests_are_answered_as_configured(
    make_mesh: Callable[..., Mesh], quota_server: Callable[..., QuotaServer], fast_backend: Callable[..., FastBackend]
) -> None:
    server, backend = quota_server(lambda bucket: DENY), fast_backend("up")
    denied = {
        "http_status": {"code": "Forbidden"},
        "http_body": "bm8=",
        "response_headers_to_add": [{"header": {"key": "x-denied", "value": "yes"}}],
    }
    mesh = make_mesh(backend.port, server.port, settings(deny_response_settings=denied))
    with mesh.http.client() as client:
        settle(server, client, 403)
        response = client.get("http://up/", headers={"x-user": "ada"})
    assert (response.status_code, response.text, response.headers["x-denied"]) == (403, "no", "yes")


def test_a_forked_child_has_a_stream_of_its_own(
    quota_server: Callable[..., QuotaServer], fast_backend: Callable[..., FastBackend], servers: Servers
) -> None:
    server = quota_server(lambda bucket: DENY)
    path = quotas(servers.folder("quota"), fast_backend("up").port, server.port, settings())
    assert forked(path, "quotas") == ["parent 429", "child 429", "ended 0", "parent 429 429"]
    assert server.streams == 2
