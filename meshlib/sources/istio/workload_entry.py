"""WorkloadEntry → workloads: what a ServiceEntry lists as endpoints, or selects by labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from meshlib.sources.files.located import FieldPath
from meshlib.sources.files.resources import IstioDocument
from meshlib.sources.files.schema import Problem
from meshlib.sources.istio.fields import PORT, TEXT, WHOLE, Fields, MapOf
from meshlib.sources.istio.labels import with_topology
from meshlib.sources.istio.names import is_address

SPEC = Fields(
    "WorkloadEntry",
    {
        "address": TEXT,
        "ports": MapOf(PORT),
        "labels": MapOf(TEXT),
        "locality": TEXT,
        "weight": WHOLE,
        "network": TEXT,
        "serviceAccount": TEXT,
    },
)
TLS_MODE = "security.istio.io/tlsMode"
TRUST_DOMAIN = "cluster.local"


@dataclass(frozen=True, slots=True)
class Workload:
    """An IP address, a name, or `unix:///path`, with what Istio knows of who listens there. `locality` is
    `region/zone/sub_zone`; `labels` include those of the topology; `account` is a SPIFFE ID, empty if unknown.
    """

    address: str
    ports: tuple[tuple[str, int], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    locality: str = ""
    weight: int = 1
    namespace: str = ""
    account: str = ""
    mutual_tls: bool = False

    @property
    def is_by_address(self) -> bool:
        """Whether nothing has to be resolved to reach it."""
        return is_address(self.address)


def check_more(entry: Mapping[str, Any], path: FieldPath = ()) -> Iterator[Problem]:
    """What the fields alone do not say."""
    if not entry.get("address"):
        if not entry.get("network"):
            yield Problem(path, "WorkloadEntry needs 'address'")
        else:
            reason = "a workload behind the gateway of another network is not reached: it is left out"
            yield Problem((*path, "network"), reason, severity="degraded")


def workload_of(entry: Mapping[str, Any], namespace: str, more: Mapping[str, str] | None = None) -> Workload:
    """The workload of an entry; `more` are labels that go before its own."""
    written = {**(entry.get("labels") or {}), **(more or {})}
    locality = entry.get("locality") or written.get("istio-locality", "").replace(".", "/")
    account = entry.get("serviceAccount") or ""
    return Workload(
        entry.get("address", ""),
        tuple(sorted((entry.get("ports") or {}).items())),
        tuple(sorted(with_topology(written, locality, entry.get("network") or "").items())),
        locality,
        entry.get("weight") or 1,
        namespace,
        f"spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}" if account else "",
        written.get(TLS_MODE, "istio" if account else "") == "istio",
    )


def workloads_of(documents: Iterator[IstioDocument] | list[IstioDocument]) -> tuple[Workload, ...]:
    """The workloads of the objects, in Istio's order; labels of an object's metadata go before those of its spec."""
    ordered = sorted(documents, key=lambda document: (document.namespace, document.name))
    return tuple(
        workload_of(document.spec, document.namespace, document.labels)
        for document in ordered
        if document.spec.get("address")
    )
