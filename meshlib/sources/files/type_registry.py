"""Type URL → protobuf message class. Modules are imported when a type of their package is first asked for."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import re
from functools import lru_cache
from typing import Any, cast

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from meshlib.sources.xds.decode.added_protos import added_message, is_added

TYPE_URL_PREFIX = "type.googleapis.com/"
LISTENER = "envoy.config.listener.v3.Listener"
ROUTE_CONFIGURATION = "envoy.config.route.v3.RouteConfiguration"
CLUSTER = "envoy.config.cluster.v3.Cluster"
ASSIGNMENT = "envoy.config.endpoint.v3.ClusterLoadAssignment"
SCOPED_ROUTE_CONFIGURATION = "envoy.config.route.v3.ScopedRouteConfiguration"
RUNTIME = "envoy.service.runtime.v3.Runtime"
BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap"
DISCOVERY_RESPONSE = "envoy.service.discovery.v3.DiscoveryResponse"
TYPED_STRUCT = "xds.type.v3.TypedStruct"

_PACKAGE = re.compile(r"(envoy|xds|udpa|google\.protobuf)((\.[a-z0-9_]+)*)\.[A-Z]\w*(\.\w+)*")


@lru_cache(maxsize=1024)
def message_class(type_name: str) -> type[Message] | None:
    """The class of a full type name (`envoy.config.cluster.v3.Cluster`), None when xds-protos does not know it.

    A type name says its package, not its file, so the few modules of that package are imported in turn. Only packages
    of the xDS protos can be named: a configuration file decides nothing else about what is imported.
    """
    package = _package_of(type_name)
    if package is None:
        return None
    found = _registered(type_name)
    for module in _modules(package) if found is None else ():
        importlib.import_module(module)
        found = _registered(type_name)
        if found is not None:
            break
    return added_message(type_name) if found is None and is_added(type_name) else found


def descriptor_of(cls: type[Message]) -> Descriptor:
    """The class's descriptor (typed as the one of the C implementation in some versions of the stubs)."""
    return cast(Descriptor, cls.DESCRIPTOR)


def suggest_type(type_name: str) -> str:
    """The known type nearest to a misspelled one, empty when none is near."""
    package = _package_of(type_name)
    if package is None:
        return ""
    names = [name for module in _modules(package) for name in _messages(module)]
    return next(iter(difflib.get_close_matches(type_name, names, 1, 0.8)), "")


def short_name(type_name: str) -> str:
    """`Cluster` for `envoy.config.cluster.v3.Cluster`."""
    return type_name.rpartition(".")[2]


def _package_of(type_name: str) -> str | None:
    match = _PACKAGE.fullmatch(type_name)
    return match[1] + match[2] if match else None


def _registered(type_name: str) -> type[Message] | None:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(type_name)
    except KeyError:
        return None
    return message_factory.GetMessageClass(descriptor)


@lru_cache(maxsize=256)
def _modules(package: str) -> tuple[str, ...]:
    try:
        folder = importlib.import_module(package)
    except ImportError:
        return ()
    modules = pkgutil.iter_modules(getattr(folder, "__path__", ()))
    return tuple(f"{package}.{module.name}" for module in modules if module.name.endswith("_pb2"))


def _messages(module: str) -> list[str]:
    descriptor: Any = importlib.import_module(module).DESCRIPTOR
    return [message.full_name for message in descriptor.message_types_by_name.values()]
