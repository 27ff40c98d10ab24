"""The states of fields that the documentation tells: what is taken is told of no more, what is reported is told of."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshlib.model.report import Issue
from meshlib.sources.files.loader import load
from meshlib.sources.files.snapshot import build_snapshot
from meshlib.sources.istio import (
    destination_rule_fields,
    service_entry,
    sidecar,
    virtual_service_fields,
    workload_entry,
)
from meshlib.sources.istio.fields import Fields, Kind, ListOf, MapOf
from meshlib.sources.xds.node import sidecar_node
from parts.istio_objects import entry, rule

EVERY_FIELD = Path(__file__).with_name("every_field.yaml").read_text()
SPECS = (
    virtual_service_fields.SPEC,
    destination_rule_fields.SPEC,
    service_entry.SPEC,
    workload_entry.SPEC,
    sidecar.SPEC,
)
SHOP = sidecar_node(ip="10.0.0.9", pod="shop", namespace="default", metadata={"LABELS": {"app": "shop"}})


def told(tmp_path: Path, *objects: str) -> list[Issue]:
    file = tmp_path / "objects.yaml"
    file.write_text("---\n".join(objects))
    return list(build_snapshot(load([file], SHOP))[1])


def policy(text: str) -> str:
    return rule(f"trafficPolicy: {{{text}}}")


def taken(kind: Kind) -> Iterator[str]:
    """The names of the fields in it that are taken as a whole."""
    if isinstance(kind, ListOf | MapOf):
        yield from taken(kind.item)
    elif isinstance(kind, Fields):
        for name, inner in kind.known.items():
            if name not in kind.partly:
                yield name
                yield from taken(inner)


def test_of_what_is_taken_nothing_is_told(tmp_path: Path) -> None:
    assert [str(issue) for issue in told(tmp_path, EVERY_FIELD)] == []


def test_the_file_has_every_field_that_is_taken() -> None:
    written = set(re.findall(r"(\w+):", EVERY_FIELD))
    assert {name for spec in SPECS for name in taken(spec)} - written == set()


@pytest.mark.parametrize(
    "text, path",
    [
        ("loadBalancer: {consistentHash: {useSourceIp: true}}", "hash_policy[0].connection_properties"),
        ("connectionPool: {http: {h2UpgradePolicy: UPGRADE, maxConcurrentStreams: 4}}", "max_concurrent_streams"),
        ("tls: {mode: SIMPLE, sni: a, caCertificates: a, caCrl: b}", "crl"),
    ],
)
def test_what_is_taken_in_part_is_told_when_it_is_decoded(tmp_path: Path, text: str, path: str) -> None:
    found = told(tmp_path, entry(), policy(text))
    assert {issue.severity for issue in found} == {"degraded"}
    assert [issue.path for issue in found if issue.path.endswith(path)], [str(issue) for issue in found]


@pytest.mark.parametrize(
    "text, path",
    [
        ("tunnel: {}", "trafficPolicy.tunnel"),
        ("proxyProtocol: {}", "trafficPolicy.proxyProtocol"),
        ("retryBudget: {budgetInterval: 1s}", "trafficPolicy.retryBudget.budgetInterval"),
        ("connectionPool: {tcp: {tcpKeepalive: {}}}", "trafficPolicy.connectionPool.tcp.tcpKeepalive"),
        ("connectionPool: {http: {http2KeepAlive: {}}}", "trafficPolicy.connectionPool.http.http2KeepAlive"),
        ("tls: {credentialName: a}", "trafficPolicy.tls.credentialName"),
    ],
)
def test_what_is_not_applied_is_told_by_its_own_path(tmp_path: Path, text: str, path: str) -> None:
    (found,) = told(tmp_path, entry(), policy(text))
    assert (found.severity, found.resource, found.path) == ("degraded", "DestinationRule default/r", path)
