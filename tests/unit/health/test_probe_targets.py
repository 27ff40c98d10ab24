"""Where a check goes, under which name and in what TLS."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from meshlib.engine.cluster import ClusterPlan
from meshlib.engine.runtime import Runtime
from meshlib.health.http_probe import request_of
from meshlib.health.probe import Target, target_of
from meshlib.model.cluster import Cluster, TlsMatch, UpstreamTls
from meshlib.model.endpoint import Address, ClusterLoadAssignment, EndpointHealthCheck, LbEndpoint, LocalityLbEndpoints
from meshlib.model.headers import HeaderMutations, HeaderValueOption
from meshlib.model.health import GrpcHealthCheck, HealthCheck, HttpHealthCheck, TcpHealthCheck
from meshlib.model.metadata import Metadata, Struct
from meshlib.model.snapshot import Snapshot

HTTP = HealthCheck(HttpHealthCheck("/healthz"))


def plan(endpoint: LbEndpoint, **more: Any) -> ClusterPlan:
    assignment = ClusterLoadAssignment("up", (LocalityLbEndpoints((endpoint,)),))
    cluster = Cluster("up", load_assignment=assignment, **more)
    return Runtime(random.Random(1)).compile(Snapshot(clusters={"up": cluster}), None).clusters["up"]


def target(check: HealthCheck = HTTP, config: EndpointHealthCheck | None = None, **more: Any) -> Target:
    made = plan(LbEndpoint(Address("10.0.0.1", 80), health_check=config, **more.pop("endpoint", {})), **more)
    return target_of(made, made.balancer.hosts[0], check)


def test_its_own_address_unless_it_says_another() -> None:
    assert target().dial == (Address("10.0.0.1", 80),)
    assert target(config=EndpointHealthCheck(81)).dial == (Address("10.0.0.1", 81),)
    elsewhere = Address("10.0.0.2", 82)
    assert target(config=EndpointHealthCheck(address=elsewhere)).dial == (elsewhere,)
    assert target(config=EndpointHealthCheck(83, address=elsewhere)).dial == (Address("10.0.0.2", 83),)


def test_every_address_of_a_name_has_the_port() -> None:
    dial = (Address("10.0.0.8", 80), Address("10.0.0.9", 80))
    found = target(config=EndpointHealthCheck(81), endpoint={"dial": dial}).dial
    assert found == (Address("10.0.0.8", 81), Address("10.0.0.9", 81))


def test_the_name_is_the_endpoints_the_checks_or_the_clusters() -> None:
    named = replace(HTTP, check=HttpHealthCheck("/", host="check.test"))
    assert target().hostname == target(HealthCheck(TcpHealthCheck())).hostname == "up"
    assert target(named).hostname == "check.test"
    assert target(HealthCheck(GrpcHealthCheck(authority="grpc.test"))).hostname == "grpc.test"
    assert target(named, EndpointHealthCheck(hostname="own.test")).hostname == "own.test"


def test_tls_is_the_clusters_by_the_endpoints_labels_or_by_the_checks() -> None:
    plain, strict, health = UpstreamTls("plain"), UpstreamTls("strict"), UpstreamTls("health")
    labels = {"strict": Struct((("mode", "strict"),)), "health": Struct((("mode", "health"),))}
    matches = (TlsMatch(labels["strict"], strict), TlsMatch(labels["health"], health))
    metadata = Metadata((("envoy.transport_socket_match", labels["strict"]),))
    more = {"tls": plain, "tls_matches": matches}
    assert target(**more).tls == plain
    assert target(**more, endpoint={"metadata": metadata}).tls == strict
    chosen = replace(HTTP, transport_socket_match_criteria=labels["health"], alpn_protocols=("http/1.1",))
    found = target(chosen, **more, endpoint={"metadata": metadata})
    assert found.tls == health
    assert found.alpn == ("http/1.1",)


def test_the_request() -> None:
    added = HeaderMutations((HeaderValueOption("x-a", "%REQ(:PATH)%"),), ("user-agent",))
    check = HttpHealthCheck("/healthz?full", method="PUT", send=b"hi", request_headers=added)
    made = request_of(check, target())
    assert (made.method, made.target, made.body) == (b"PUT", b"/healthz?full", b"hi")
    assert list(made.headers) == [(b"host", b"up"), (b"content-length", b"2"), (b"x-a", b"/healthz?full")]
