import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.sources.xds.bootstrap import Bootstrap, BootstrapError, load_bootstrap, parse_bootstrap
from meshlib.sources.xds.node import Locality, sidecar_node

MINIMAL = {"xds_servers": [{"server_uri": "cp:1", "channel_creds": [{"type": "insecure"}]}]}

WHOLE = {
    "xds_servers": [
        {
            "server_uri": "cp:15012",
            "channel_creds": [{"type": "google_default"}, {"type": "tls", "config": {"ca_certificate_file": "ca.pem"}}],
            "call_creds": [{"type": "unknown"}, {"type": "jwt_token_file", "config": {"jwt_token_file": "token"}}],
            "server_features": ["xds_v3", "trusted_xds_server", {"odd": 1}],
        },
        {"server_uri": "unix:///second", "channel_creds": [{"type": "insecure"}]},
    ],
    "node": {
        "id": "me",
        "cluster": "mine",
        "metadata": {"a": {"b": [1, None]}},
        "locality": {"region": "r", "zone": "z", "sub_zone": "s"},
    },
    "authorities": {"x.example": {"client_listener_resource_name_template": "xdstp://x.example/%s"}},
    "certificate_providers": {"default": {"plugin_name": "file_watcher", "config": {"refresh_interval": "900s"}}},
    "server_listener_resource_name_template": "inbound/%s",
    "something_new": True,
}


def test_everything_is_read() -> None:
    bootstrap = parse_bootstrap(json.dumps(WHOLE))
    first, second = bootstrap.servers
    assert (first.server_uri, first.channel_creds.type, first.server_features) == (
        "cp:15012",
        "tls",
        frozenset({"xds_v3", "trusted_xds_server"}),
    )
    assert [creds.text("jwt_token_file") for creds in first.call_creds] == ["token"]
    assert (second.server_uri, second.channel_creds.type) == ("unix:///second", "insecure")
    assert bootstrap.node.metadata == {"a": {"b": [1, None]}}
    assert bootstrap.node.locality == Locality("r", "z", "s")
    assert bootstrap.authorities[0].client_listener_resource_name_template == "xdstp://x.example/%s"
    assert bootstrap.certificate_providers[0].plugin_name == "file_watcher"
    assert bootstrap.server_listener_resource_name_template == "inbound/%s"
    assert bootstrap.client_default_listener_resource_name_template == "%s"


def test_the_file_wins_over_the_inline_text(tmp_path: Path) -> None:
    path = tmp_path / "bootstrap.json"
    path.write_text(json.dumps(MINIMAL))
    environ = {"GRPC_XDS_BOOTSTRAP": str(path), "GRPC_XDS_BOOTSTRAP_CONFIG": "not even JSON"}
    assert load_bootstrap(environ).servers[0].server_uri == "cp:1"
    assert load_bootstrap({"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(MINIMAL)}).servers[0].server_uri == "cp:1"


@pytest.mark.parametrize(
    "document, path, says",
    [
        ([], "", "must be an object, not a list"),
        ({}, "xds_servers", "name a server"),
        ({"xds_servers": {}}, "xds_servers", "must be a list, not an object"),
        ({"xds_servers": [7]}, "xds_servers[0]", "must be an object, not a number"),
        ({"xds_servers": [{"channel_creds": []}]}, "xds_servers[0].server_uri", "is required"),
        ({"xds_servers": [{"server_uri": "x"}]}, "xds_servers[0].channel_creds", 'e.g. [{"type": "insecure"}]'),
        (
            {"xds_servers": [{"server_uri": "x", "channel_creds": [{"type": "alts"}]}]},
            "xds_servers[0].channel_creds",
            "none of alts is supported",
        ),
        ({**MINIMAL, "node": {"locality": {"zone": 3}}}, "node.locality.zone", "must be a string, not a number"),
        ({**MINIMAL, "certificate_providers": {"d": {}}}, "certificate_providers.d.plugin_name", "is required"),
    ],
)
def test_errors_name_the_place_and_the_fix(document: object, path: str, says: str) -> None:
    with pytest.raises(BootstrapError) as caught:
        parse_bootstrap(json.dumps(document), "boot.json")
    assert caught.value.path == path
    assert says in caught.value.reason
    assert "boot.json" in str(caught.value)


def test_errors_name_the_variable(tmp_path: Path) -> None:
    with pytest.raises(BootstrapError, match="GRPC_XDS_BOOTSTRAP to a file or GRPC_XDS_BOOTSTRAP_CONFIG"):
        load_bootstrap({})
    with pytest.raises(BootstrapError, match=r"gone.json \(GRPC_XDS_BOOTSTRAP\).*No such file"):
        load_bootstrap({"GRPC_XDS_BOOTSTRAP": str(tmp_path / "gone.json")})
    with pytest.raises(BootstrapError, match="GRPC_XDS_BOOTSTRAP_CONFIG: is not JSON"):
        load_bootstrap({"GRPC_XDS_BOOTSTRAP_CONFIG": "{"})


def outcome(text: str | bytes) -> Bootstrap | BootstrapError:
    try:
        return parse_bootstrap(text)
    except BootstrapError as error:
        return error


@given(st.binary())
def test_any_bytes_are_a_bootstrap_or_an_error(data: bytes) -> None:
    assert isinstance(outcome(data), BootstrapError), "no bootstrap is this short"


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from(["insecure", "tls", "cp:1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "xds_servers",
                    "server_uri",
                    "channel_creds",
                    "type",
                    "config",
                    "node",
                    "locality",
                    "id",
                    "authorities",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@given(JSON)
def test_any_json_is_a_bootstrap_or_an_error(document: object) -> None:
    assert outcome(json.dumps(document))


def test_deeply_nested_json_is_an_error() -> None:
    assert isinstance(outcome("[" * 100_000), BootstrapError)


def test_a_sidecar_node_is_named_as_istio_expects() -> None:
    node = sidecar_node(ip="10.0.0.1", pod="web-1", namespace="shop", istio_version="1.31.0", metadata={"LABELS": {}})
    assert node.id == "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local"
    assert node.metadata["ISTIO_VERSION"] == "1.31.0"
    assert node.metadata["NAMESPACE"] == "shop"
    assert node.metadata["LABELS"] == {}
    assert "GENERATOR" not in node.metadata
