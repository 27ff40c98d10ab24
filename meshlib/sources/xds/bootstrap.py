"""The xDS bootstrap: which control planes to ask, with which credentials, and as whom (gRFC A27, A47, A65, A97).

``GRPC_XDS_BOOTSTRAP`` (a path) wins over ``GRPC_XDS_BOOTSTRAP_CONFIG`` (inline JSON), as in every gRPC. A bootstrap may
as well be built in code: ``Bootstrap(servers=(XdsServer("127.0.0.1:18000"),), node=Node(id="me"))``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meshlib.errors import ConfigurationError
from meshlib.sources.xds.bootstrap_json import JsonObject, JsonPathError
from meshlib.sources.xds.node import Json, Locality, Node

PATH_VARIABLE: Final = "GRPC_XDS_BOOTSTRAP"
INLINE_VARIABLE: Final = "GRPC_XDS_BOOTSTRAP_CONFIG"
CHANNEL_CREDS: Final = ("insecure", "tls")
CALL_CREDS: Final = ("jwt_token_file",)


class BootstrapError(ConfigurationError, ValueError):
    """The bootstrap cannot be used. ``source`` is the file or variable, ``path`` the place in the JSON."""

    def __init__(self, source: str, path: str, reason: str) -> None:
        super().__init__(f"xDS bootstrap from {source}: {path + ': ' if path else ''}{reason}")
        self.source = source
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Credentials:
    """Channel or call credentials: a type and its own configuration."""

    type: str
    config: Mapping[str, Json] = field(default_factory=dict, hash=False)

    def text(self, key: str) -> str:
        """A string of the configuration, empty if absent."""
        value = self.config.get(key)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class XdsServer:
    """One control plane. ``server_uri`` is a gRPC target: ``host:port``, ``dns:///...``, ``unix:///...``."""

    server_uri: str
    channel_creds: Credentials = Credentials("insecure")
    call_creds: tuple[Credentials, ...] = ()
    server_features: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Authority:
    """Where resources of an xdstp authority come from; no servers of its own means the top-level ones."""

    name: str
    servers: tuple[XdsServer, ...] = ()
    client_listener_resource_name_template: str = ""


@dataclass(frozen=True, slots=True)
class CertificateProvider:
    """A certificate provider instance (gRFC A29), by its plugin's name and configuration."""

    instance_name: str
    plugin_name: str
    config: Mapping[str, Json] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """A whole bootstrap. ``servers`` are in order of preference (gRFC A71)."""

    servers: tuple[XdsServer, ...]
    node: Node = field(default_factory=Node)
    authorities: tuple[Authority, ...] = ()
    certificate_providers: tuple[CertificateProvider, ...] = ()
    client_default_listener_resource_name_template: str = "%s"
    server_listener_resource_name_template: str = ""


def load_bootstrap(environ: Mapping[str, str] | None = None) -> Bootstrap:
    """The bootstrap the environment names; raises BootstrapError when there is none, or it is no good."""
    environ = os.environ if environ is None else environ
    if path := environ.get(PATH_VARIABLE):
        source = f"{path} ({PATH_VARIABLE})"
        try:
            return parse_bootstrap(Path(path).read_bytes(), source)
        except OSError as error:
            raise BootstrapError(source, "", f"cannot be read: {error.strerror or error}") from error
    if inline := environ.get(INLINE_VARIABLE):
        return parse_bootstrap(inline, INLINE_VARIABLE)
    raise BootstrapError(
        "the environment", "", f"set {PATH_VARIABLE} to a file or {INLINE_VARIABLE} to its JSON, or pass a Bootstrap"
    )


def parse_bootstrap(text: str | bytes, source: str = "code") -> Bootstrap:
    """Parse bootstrap JSON. Unknown fields are ignored. Total: returns a Bootstrap or raises BootstrapError."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BootstrapError(source, "", f"is not JSON: {error}") from error
    try:
        return _bootstrap(JsonObject.of(document))
    except JsonPathError as error:
        raise BootstrapError(source, error.path, error.reason) from error


def _bootstrap(root: JsonObject) -> Bootstrap:
    return Bootstrap(
        servers=_servers(root, required=True),
        node=_node(root.object("node")),
        authorities=tuple(_authority(name, value) for name, value in root.object("authorities").objects_by_key()),
        certificate_providers=tuple(
            CertificateProvider(name, value.text("plugin_name", required=True), value.object("config").raw)
            for name, value in root.object("certificate_providers").objects_by_key()
        ),
        client_default_listener_resource_name_template=(
            root.text("client_default_listener_resource_name_template") or "%s"
        ),
        server_listener_resource_name_template=root.text("server_listener_resource_name_template"),
    )


def _servers(owner: JsonObject, *, required: bool) -> tuple[XdsServer, ...]:
    servers = tuple(_server(item) for item in owner.objects("xds_servers"))
    if required and not servers:
        raise JsonPathError(owner.at("xds_servers"), 'name a server, e.g. [{"server_uri": "host:port", ...}]')
    return servers


def _server(item: JsonObject) -> XdsServer:
    return XdsServer(
        server_uri=item.text("server_uri", required=True),
        channel_creds=_channel_creds(item),
        call_creds=tuple(creds for creds in _credentials(item, "call_creds") if creds.type in CALL_CREDS),
        server_features=frozenset(item.texts("server_features")),
    )


def _credentials(item: JsonObject, key: str) -> list[Credentials]:
    return [Credentials(creds.text("type", required=True), creds.object("config").raw) for creds in item.objects(key)]


def _channel_creds(item: JsonObject) -> Credentials:
    offered = _credentials(item, "channel_creds")
    # The first type that is supported, as gRFC A27 says: a bootstrap may list better ones for other clients first.
    for creds in offered:
        if creds.type in CHANNEL_CREDS:
            return creds
    known = " or ".join(CHANNEL_CREDS)
    if not offered:
        raise JsonPathError(item.at("channel_creds"), f'name one, e.g. [{{"type": "insecure"}}] (supported: {known})')
    types = ", ".join(creds.type for creds in offered)
    raise JsonPathError(item.at("channel_creds"), f"none of {types} is supported, add one of type {known}")


def _node(item: JsonObject) -> Node:
    locality = item.object("locality")
    return Node(
        id=item.text("id"),
        cluster=item.text("cluster"),
        metadata=item.object("metadata").raw,
        locality=Locality(locality.text("region"), locality.text("zone"), locality.text("sub_zone")),
    )


def _authority(name: str, item: JsonObject) -> Authority:
    return Authority(name, _servers(item, required=False), item.text("client_listener_resource_name_template"))
