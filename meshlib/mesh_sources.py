"""The usual ways to make a mesh: one class method per source of configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from meshlib.sources.base import Source
    from meshlib.sources.xds.bootstrap import Bootstrap
    from meshlib.sources.xds.node import Node

_STATIC_OPTIONS = ("routes", "timeout", "retries", "lb_policy")


class FromSources:
    """What `Mesh` has of constructors. `options` are `Mesh`'s own, where a method names none of its own."""

    if TYPE_CHECKING:  # Mesh's

        def __init__(self, source: Source, **options: Any) -> None: ...

    @classmethod
    def from_file(cls, *paths: str | os.PathLike[str], node: Node | None = None, **options: Any) -> Self:
        """A mesh configured by files or folders of Envoy-format or Istio-style YAML or JSON, watched for changes.

        `node`: who is asking, as `meshlib.sources.xds.sidecar_node` says it: its namespace, labels and locality decide
        about `exportTo`, `sourceLabels`, `workloadSelector` and locality load balancing of Istio's objects.
        """
        from meshlib.sources.files.source import FileSource

        return cls(FileSource((Path(path) for path in paths), node=node), **options)

    @classmethod
    def from_xds(
        cls, bootstrap: Bootstrap | str | None = None, *, declared: Iterable[str] = (), **options: Any
    ) -> Self:
        """A mesh configured by an xDS control plane.

        `bootstrap`: a `meshlib.sources.xds.bootstrap.Bootstrap`, or a plain-text server's address
        ("127.0.0.1:18000"); None reads `GRPC_XDS_BOOTSTRAP` or `GRPC_XDS_BOOTSTRAP_CONFIG`.
        `declared`: authorities to subscribe to at start-up; others are subscribed to on first use.
        `mode` ("auto", "proxyless", "sidecar"), `delta` (True, False, "auto") and `runtime` (names of runtime layers)
        go to `XdsSource`.
        """
        from meshlib.sources.xds.bootstrap import Bootstrap, XdsServer
        from meshlib.sources.xds.source import XdsSource

        if isinstance(bootstrap, str):
            bootstrap = Bootstrap((XdsServer(bootstrap),))
        chosen = {name: options.pop(name) for name in ("mode", "delta", "runtime") if name in options}
        return cls(XdsSource(bootstrap, declared=declared, **chosen), **options)

    @classmethod
    def from_consul(cls, address: str | None = None, *, declared: Iterable[str] = (), **options: Any) -> Self:
        """A mesh of the services of a Consul agent: `Mesh.from_consul()`, `Mesh.from_consul("consul:8500", token=...)`.

        What is not given comes from Consul's environment (`CONSUL_HTTP_ADDR`, `CONSUL_HTTP_TOKEN`, ...). `declared`:
        services to watch from the start; others are watched when first called. `options` are those of
        `meshlib.sources.consul.factory.consul_source` and the mesh's own.
        """
        from meshlib.sources.consul.factory import ARGUMENTS, consul_source

        chosen = {name: options.pop(name) for name in ARGUMENTS & options.keys()}
        return cls(consul_source(address, declared=declared, **chosen), **options)

    @classmethod
    def static(cls, clusters: Mapping[str, Any], **options: Any) -> Self:
        """A mesh from code: `Mesh.static({"payments": ["10.0.0.1:8080", "10.0.0.2:8080"]}, retries=2)`.

        `routes`, `timeout`, `retries` and `lb_policy` are those of `meshlib.sources.static.static_snapshot`; the other
        options are the mesh's own.
        """
        from meshlib.sources.static import StaticSource, static_snapshot

        chosen = {name: options.pop(name) for name in _STATIC_OPTIONS if name in options}
        return cls(StaticSource(static_snapshot(clusters, **chosen)), **options)
