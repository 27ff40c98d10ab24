"""Where chance decides about whole calls, Envoy and meshlib agree in distribution: copies, and what is dropped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from differential.balancing_envoy import chi_squared, critical_value
from differential.calls_twin import CALL_ID, Call, Twin, cluster, virtual_host
from parts.fast_backend import FastBackend

CALLS = pytest.mark.parametrize("calls", [600, pytest.param(10_000, marks=pytest.mark.slow)])
SHARES = {
    "third": {"numerator": 33, "denominator": "HUNDRED"},
    "eighth": {"numerator": 1_250, "denominator": "TEN_THOUSAND"},
    "most": {"numerator": 930_000, "denominator": "MILLION"},
}
Backends = Callable[..., FastBackend]


def alike(counts: dict[str, Counter[Any]], degrees: int) -> None:
    statistic, found = chi_squared(counts["envoy"], counts["mesh"])
    assert found == degrees, counts
    assert statistic < critical_value(degrees), counts


@CALLS
def test_the_same_share_is_mirrored(calls: int, make_twin: Callable[..., Twin], fast_backend: Backends) -> None:
    """Each route mirrors a share of its requests, and to a second cluster half of that share, of the same sample."""
    main, shadow, other = (fast_backend(name) for name in ("main", "shadow", "other"))
    routes = [
        {
            "match": {"prefix": f"/{name}"},
            "route": {
                "cluster": "main",
                "request_mirror_policies": [
                    {"cluster": "shadow", "runtime_fraction": {"default_value": share}},
                    {"cluster": "other", "runtime_fraction": {"default_value": half(share)}},
                ],
            },
        }
        for name, share in SHARES.items()
    ]
    twin = make_twin([virtual_host(routes)], [cluster(each.name, [each.port]) for each in (main, shadow, other)])
    for name in SHARES:
        twin.both([Call(f"{name}-{number}", f"/{name}") for number in range(calls)])
    arrived(twin, shadow, other)
    copied = {to.name: {request.header(CALL_ID) for request in list(to.requests)} for to in (shadow, other)}
    for name in SHARES:
        counts = {
            side: Counter(
                tuple(f"{side}-{name}-{number}" in copied[to] for to in ("shadow", "other")) for number in range(calls)
            )
            for side in ("envoy", "mesh")
        }
        alike(counts, degrees=2)


def half(share: dict[str, Any]) -> dict[str, Any]:
    return {**share, "numerator": share["numerator"] // 2}


def arrived(twin: Twin, *backends: FastBackend) -> None:
    """Copies arrive when they do."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        sent = twin.envoy.stats(r"cluster\.(shadow|other)\.upstream_rq_completed")
        ours = twin.mesh.stats()
        if sum(sent.values()) + sum(ours[name] for name in sent) == sum(len(each.requests) for each in backends):
            return
        time.sleep(0.02)
    raise TimeoutError("copies are missing")


@CALLS
@pytest.mark.parametrize("share", SHARES)
def test_the_same_share_is_dropped(
    calls: int, share: str, make_twin: Callable[..., Twin], fast_backend: Backends
) -> None:
    made = cluster("up", [fast_backend("up").port])
    made["load_assignment"]["policy"] = {"drop_overloads": [{"category": "all", "drop_percentage": SHARES[share]}]}
    twin = make_twin([virtual_host([{"match": {"prefix": "/"}, "route": {"cluster": "up"}}])], [made])
    pairs = twin.both([Call(str(number)) for number in range(calls)])
    flags = twin.flags(calls)
    counts = {"envoy": Counter(theirs.status for theirs, _ in pairs), "mesh": Counter(ours.status for _, ours in pairs)}
    alike(counts, degrees=1)
    for number, (theirs, ours) in enumerate(pairs):
        assert ("DO" in flags[f"envoy-{number}"]) == (theirs.status == 503)
        assert (ours.flag == "DO") == (ours.status == 503)


def test_only_in_envoy_a_share_of_copies_sees_the_sample_of_the_routes_share(
    make_twin: Callable[..., Twin], fast_backend: Backends
) -> None:
    """call_differences, 16."""
    main, shadow, other = (fast_backend(name) for name in ("main", "shadow", "other"))
    copied = {"cluster": "shadow", "runtime_fraction": {"default_value": SHARES["third"]}}
    routes = [
        {
            "match": {"prefix": "/", "runtime_fraction": {"default_value": SHARES["third"]}},
            "route": {"cluster": "main", "request_mirror_policies": [copied]},
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "other"}},
    ]
    twin = make_twin([virtual_host(routes)], [cluster(each.name, [each.port]) for each in (main, shadow, other)])
    twin.both([Call(str(number)) for number in range(300)])
    ours = twin.mesh.stats()
    copies = twin.envoy.stats(r"cluster\.(main|shadow)\.upstream_rq_total")
    assert copies["cluster.shadow.upstream_rq_total"] == copies["cluster.main.upstream_rq_total"] > 0
    assert 0 < ours["cluster.shadow.upstream_rq_total"] < ours["cluster.main.upstream_rq_total"] * 2 / 3
