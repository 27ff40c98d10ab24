"""Sidecar: which services and VirtualServices of others a workload imports (istiod: `sidecar.go`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio.caller import Caller
from meshlib.sources.istio.fields import PORT, TEXT, Fields, ListOf, MapOf, OneOf
from meshlib.sources.istio.names import ROOT_NAMESPACE, matches

_CAPTURE = "connections are not captured: calls are routed where they are made"
_INBOUND = "servers take nothing from files"
_PORTS = "egress of a port of its own is not told apart: its hosts are not imported"
_PORT = Fields("SidecarPort", {"number": PORT}, ignored=("protocol", "name"))
_EGRESS = Fields(
    "IstioEgressListener",
    {"hosts": ListOf(TEXT), "port": _PORT},
    required=("hosts",),
    not_applied={"bind": _CAPTURE, "captureMode": _CAPTURE},
    partly={"port": _PORTS},
)
_POLICY = Fields(
    "OutboundTrafficPolicy",
    {"mode": OneOf(("REGISTRY_ONLY", "ALLOW_ANY"))},
    not_applied={"egressProxy": "calls to unknown hosts pass through, to no proxy"},
)
SPEC = Fields(
    "Sidecar",
    {
        "workloadSelector": Fields("WorkloadSelector", {"labels": MapOf(TEXT)}),
        "egress": ListOf(_EGRESS),
        "outboundTrafficPolicy": _POLICY,
    },
    not_applied={"ingress": _INBOUND, "inboundConnectionPool": _INBOUND},
)
EVERYTHING = ("*/*",)


@dataclass(frozen=True, slots=True)
class Scope:
    """What one caller imports: `(namespace, host)` pairs in which `*` is any namespace; `excluded` ones win.
    `registry_only`: hosts that nothing speaks for are refused.
    """

    hosts: tuple[tuple[str, str], ...] = (("*", "*"),)
    excluded: tuple[tuple[str, str], ...] = ()
    registry_only: bool = False

    def imports(self, namespace: str, host: str) -> bool:
        """Whether a service of that namespace and host is imported."""
        return _covered(self.hosts, namespace, host) and not _covered(self.excluded, namespace, host)

    def imports_any(self, namespace: str, hosts: Iterable[str]) -> bool:
        """Whether a VirtualService of that namespace and hosts is: for one of its hosts, or a part of a wildcard."""
        return any(
            _overlaps(self.hosts, namespace, host) and not _covered(self.excluded, namespace, host) for host in hosts
        )


def check_more(document: IstioDocument) -> Iterator[Problem]:
    """What the fields alone do not say."""
    for index, listener in enumerate(document.spec.get("egress") or ()):
        if listener.get("port") is not None:
            yield Problem(("egress", index, "port"), _PORTS, severity="degraded")
        for number, host in enumerate(listener.get("hosts") or ()):
            if host.count("/") != 1:
                yield Problem(("egress", index, "hosts", number), f"{host!r} is not namespace/host", "./* or */*")


def scope_of(documents: Iterable[IstioDocument], caller: Caller) -> tuple[Scope, IstioDocument | None]:
    """The scope of the Sidecar in charge: one of the caller's namespace that selects it, then one for all of the
    namespace, then one for all of the root namespace. Without any, everything is imported.
    """
    known = list(documents)
    found = [*_candidates(known, caller)]
    if not found:
        return Scope(), None
    return _scope(found[0].spec, caller), found[0]


def _candidates(documents: list[IstioDocument], caller: Caller) -> Iterator[IstioDocument]:
    own = [document for document in documents if document.namespace == caller.namespace]
    for document in own:
        selector = document.spec.get("workloadSelector")
        if selector is not None and caller.has(selector.get("labels")):
            yield document
    root = [document for document in documents if document.namespace == ROOT_NAMESPACE]
    yield from (document for document in (*own, *root) if document.spec.get("workloadSelector") is None)


def _scope(spec: Any, caller: Caller) -> Scope:
    hosts: list[tuple[str, str]] = []
    excluded: list[tuple[str, str]] = []
    for text in _hosts(spec):
        namespace, _, host = text.partition("/")
        without = namespace.startswith("~")
        namespace = (namespace.removeprefix("~") or "*") if without else namespace
        (excluded if without else hosts).append((caller.namespace if namespace == "." else namespace, host.lower()))
    policy = spec.get("outboundTrafficPolicy")
    registry_only = policy is not None and policy.get("mode", "REGISTRY_ONLY") == "REGISTRY_ONLY"
    return Scope(tuple(hosts), tuple(excluded), registry_only)


def _hosts(spec: Any) -> list[str]:
    egress = spec.get("egress")
    if not egress:
        return list(EVERYTHING)
    return [host for listener in egress if listener.get("port") is None for host in listener.get("hosts") or ()]


def _covered(pairs: Iterable[tuple[str, str]], namespace: str, host: str) -> bool:
    return any(place in {"*", namespace} and matches(pattern, host) for place, pattern in pairs)


def _overlaps(pairs: Iterable[tuple[str, str]], namespace: str, host: str) -> bool:
    return any(
        place in {"*", namespace} and (matches(pattern, host) or matches(host, pattern)) for place, pattern in pairs
    )
