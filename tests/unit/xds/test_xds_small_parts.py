import base64
import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.sources.xds import messages
from meshlib.sources.xds.bootstrap import Credentials, XdsServer
from meshlib.sources.xds.credentials import CredentialsError, call_metadata, token_expiry
from meshlib.sources.xds.node import Locality, Node
from meshlib.sources.xds.request_rate import RequestRate
from meshlib.sources.xds.resource_name import resource_name
from meshlib.sources.xds.types import DeltaRequest, SotwRequest
from parts.xds import CLUSTER, LISTENER, api_listener, cluster, endpoints, routes, socket_listener


@pytest.mark.parametrize(
    "message",
    [cluster("n"), endpoints("n", ("h", 1)), routes("n", "c"), socket_listener("n", "r"), api_listener("n", "r")],
)
def test_the_name_of_every_type_is_field_one(message: object) -> None:
    assert resource_name(message.SerializeToString()) == "n"  # type: ignore[attr-defined]


@given(st.binary(max_size=64))
def test_any_bytes_have_a_name_or_none(data: bytes) -> None:
    name = resource_name(data)
    assert name is None or name.encode() in data


@given(st.binary(max_size=200))
def test_any_bytes_are_a_response_or_malformed(data: bytes) -> None:
    for parse in (messages.parse_sotw, messages.parse_delta):
        with contextlib.suppress(messages.MalformedResponseError):
            assert isinstance(parse(data).type_url, str)


def test_the_node_goes_into_the_first_request_only() -> None:
    from envoy.service.discovery.v3 import discovery_pb2

    node = messages.node_message(Node("me", "mine", {"a": {"b": [1.0, None]}}, Locality("r")))
    first = discovery_pb2.DiscoveryRequest.FromString(
        messages.request_bytes(SotwRequest(CLUSTER, ("a",), "1", "n", "bad", first=True), node)
    )
    assert (first.node.id, first.node.cluster, first.node.locality.region) == ("me", "mine", "r")
    assert first.node.user_agent_name == "meshlib"
    assert first.node.metadata["a"]["b"][0] == 1.0
    assert (first.error_detail.code, first.error_detail.message) == (3, "bad")
    later = discovery_pb2.DeltaDiscoveryRequest.FromString(
        messages.request_bytes(DeltaRequest(LISTENER, ("a",), ("b",), (("c", "1"),), "n"), node)
    )
    assert not later.HasField("node")
    assert not later.HasField("error_detail")
    assert dict(later.initial_resource_versions) == {"c": "1"}


def test_wrapped_and_bare_resources_of_a_response() -> None:
    from envoy.service.discovery.v3 import discovery_pb2

    response = discovery_pb2.DiscoveryResponse(type_url=CLUSTER, version_info="1", nonce="n")
    response.resources.add().Pack(cluster("bare"))
    wrapper = discovery_pb2.Resource(name="wrapped", version="9", aliases=["nick"])
    wrapper.resource.Pack(cluster("wrapped"))
    response.resources.add().Pack(wrapper)
    response.resources.add(type_url="type.googleapis.com/envoy.service.discovery.v3.Resource", value=b"\xff")
    bare, wrapped, broken = messages.parse_sotw(response.SerializeToString()).resources
    assert (bare.type_url, bare.name) == (CLUSTER, "")
    assert (wrapped.type_url, wrapped.name, wrapped.version, wrapped.aliases) == (CLUSTER, "wrapped", "9", ("nick",))
    assert broken.type_url.endswith("discovery.v3.Resource")


def jwt(claims: object) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{payload}.signature"


@pytest.mark.parametrize(
    "token, expiry",
    [
        (jwt({"exp": 1000}), 1000.0),
        (jwt({}), None),
        (jwt([]), None),
        ("opaque", None),
        ("a.!.b", None),
        ("a.é.b", None),
    ],
)
def test_the_expiry_of_a_token(token: str, expiry: float | None) -> None:
    assert token_expiry(token) == expiry


def test_a_token_is_read_anew_and_an_old_one_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "token"
    server = XdsServer("cp:1", Credentials("tls"), (Credentials("jwt_token_file", {"jwt_token_file": str(path)}),))
    with pytest.raises(CredentialsError, match="No such file"):
        call_metadata(server, lambda: 0.0)
    path.write_text(jwt({"exp": 1000}) + "\n")
    assert call_metadata(server, lambda: 969.0) == [("authorization", f"Bearer {jwt({'exp': 1000})}")]
    with pytest.raises(CredentialsError, match="expired"):
        call_metadata(server, lambda: 970.0)
    path.write_text(jwt({"exp": 2000}))
    assert call_metadata(server, lambda: 970.0) == [("authorization", f"Bearer {jwt({'exp': 2000})}")]
    path.write_text(" ")
    with pytest.raises(CredentialsError, match="holds no token"):
        call_metadata(server, lambda: 0.0)


def test_a_token_never_goes_over_plaintext() -> None:
    creds = (Credentials("jwt_token_file", {"jwt_token_file": "unread"}),)
    assert call_metadata(XdsServer("cp:1", call_creds=creds), lambda: 0.0) == []


def test_request_rate() -> None:
    rate = RequestRate(max_tokens=2, fill_rate=10)
    assert rate.allows(0.0)
    rate.spend(0.0)
    rate.spend(0.0)
    assert not rate.allows(0.05)
    assert rate.wait(0.05) == pytest.approx(0.05)
    assert rate.allows(0.1)
    rate.spend(100.0)
    assert rate.allows(100.0), "an idle hour saves no more than the bucket holds"
    rate.spend(100.0)
    assert not rate.allows(100.0)
    with pytest.raises(ValueError, match="fill_rate"):
        RequestRate(fill_rate=0)
