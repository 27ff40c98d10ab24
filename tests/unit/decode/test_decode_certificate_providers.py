"""Certificate provider instances (gRFC A29), under their new names and their deprecated ones."""

from typing import Any

import pytest

from meshlib.model.cluster import Cluster, UpstreamTls
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import CLUSTER
from parts import xds_resources as xds

Json = dict[str, Any]
CONTEXT = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
SANS = [{"san_type": "URI", "matcher": {"prefix": "spiffe://td/"}}]
RULES = (("URI", "prefix", "spiffe://td/"),)


def instance(name: str) -> Json:
    return {"instance_name": name, "certificate_name": "any"}


def tls(common: Json) -> tuple[UpstreamTls | None, int]:
    socket = {"name": "tls", "typed_config": {"@type": CONTEXT, "common_tls_context": common}}
    found = decode_message(xds.message(CLUSTER, xds.eds_cluster(transport_socket=socket)))
    assert isinstance(found.resource, Cluster)
    return found.resource.tls, len(found.issues)


@pytest.mark.parametrize(
    "common",
    [
        {
            "tls_certificate_provider_instance": instance("own"),
            "validation_context": {
                "ca_certificate_provider_instance": instance("roots"),
                "match_typed_subject_alt_names": SANS,
            },
        },
        {
            "tls_certificate_certificate_provider_instance": instance("own"),
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": SANS},
                "validation_context_certificate_provider_instance": instance("roots"),
            },
        },
        {
            "tls_certificate_provider_instance": instance("own"),
            "tls_certificate_certificate_provider_instance": instance("old"),
            "combined_validation_context": {
                "default_validation_context": {
                    "ca_certificate_provider_instance": instance("roots"),
                    "match_typed_subject_alt_names": SANS,
                },
                "validation_context_certificate_provider_instance": instance("old roots"),
            },
        },
    ],
    ids=["new", "deprecated", "both, as Istio sends them"],
)
def test_instances_by_any_of_their_names(common: Json) -> None:
    assert tls(common) == (
        UpstreamTls(certificate_provider="own", ca_provider="roots", subject_alt_names=RULES),
        0,
    )


def test_an_instance_for_the_roots_only() -> None:
    common = {"validation_context_certificate_provider_instance": instance("roots")}
    assert tls(common) == (UpstreamTls(ca_provider="roots"), 0)


@pytest.mark.parametrize(
    "common",
    [
        {"tls_certificate_provider_instance": {}},
        {"tls_certificate_certificate_provider_instance": {}},
        {"validation_context_certificate_provider_instance": {"certificate_name": "any"}},
    ],
)
def test_an_instance_without_a_name_is_refused(common: Json) -> None:
    with pytest.raises(ResourceError, match="instance_name"):
        tls(common)
