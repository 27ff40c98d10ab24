"""The operators of formatted texts: each compiled to a function of the scene, None where it has no value."""

from __future__ import annotations

import ipaddress
import json
import os
import platform
import re
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from meshlib.model.metadata import EMPTY_METADATA, Metadata, Struct, Value
from meshlib.model.report import ResourceError
from meshlib.routing.dates import compile_date
from meshlib.routing.facts import CallFacts, Scene
from meshlib.routing.query import first_parameter
from meshlib.routing.text import as_wire

Operator = Callable[[Scene], str | None]
Make = Callable[[str, str, int | None], Operator]
"""From the operator's name, its arguments and the length its value is cut at (None: none given)."""

_VISIBLE = re.compile("%(2[1-9A-Fa-f]|[3-6][0-9A-Fa-f]|7[0-9A-Ea-e])")
"""Percent escapes of visible ASCII, which is what Envoy decodes of a whole query."""
ORIGINAL_PATH, ORIGINAL_HOST = "x-envoy-original-path", "x-envoy-original-host"


def _refused(name: str, reason: str) -> ResourceError:
    return ResourceError("value", f"{name} {reason}")


def _plain(value: Operator) -> Make:
    """An operator without arguments."""

    def make(name: str, arguments: str, length: int | None) -> Operator:
        if arguments or length is not None:
            raise _refused(name, "takes no arguments and no length")
        return value

    return make


def _fact(value: Callable[[CallFacts], object]) -> Make:
    """A fact of the call; None and empty text are no value."""

    def made(scene: Scene) -> str | None:
        found = value(scene.facts)
        return None if found is None or found == "" else str(found)

    return _plain(made)


def _header(read: Callable[[Scene, str], str | None]) -> Make:
    def make(name: str, arguments: str, length: int | None) -> Operator:
        names = [header.lower() for header in arguments.split("?")]
        if not names[0] or len(names) > 2:
            raise _refused(name, f"takes one header name and one to fall back on: %{name}(name?other)%")

        def value(scene: Scene) -> str | None:
            for header in names:
                found = read(scene, header)
                if found is not None:
                    return found[:length]
            return None

        return value

    return make


def _options(name: str, arguments: str, *allowed: tuple[str, ...]) -> list[str]:
    """Colon-separated options, each of its own list; what is left out or empty is the list's first."""
    given = arguments.split(":") if arguments else []
    if len(given) > len(allowed):
        raise _refused(name, f"takes at most {len(allowed)} options, not {arguments!r}")
    chosen = []
    for position, names in enumerate(allowed):
        option = given[position] if position < len(given) and given[position] else names[0]
        if option not in names:
            raise _refused(name, f"takes {', '.join(names)}, not {option!r}")
        chosen.append(option)
    return chosen


def _path(name: str, arguments: str, length: int | None) -> Operator:
    query, source = _options(name, arguments, ("WQ", "NQ"), ("ORIG_OR_PATH", "ORIG", "PATH"))

    def value(scene: Scene) -> str | None:
        path = scene.request(ORIGINAL_PATH) if source != "PATH" else None
        if path is None and source != "ORIG":
            path = scene.head.path
        if path is not None and query == "NQ":
            path = path.partition("?")[0]
        return None if path is None else path[:length]

    return value


def _query_parameter(name: str, arguments: str, length: int | None) -> Operator:
    if not arguments:
        raise _refused(name, "takes the name of a parameter")
    parameter = as_wire(arguments)

    def value(scene: Scene) -> str | None:
        found = first_parameter(scene.head.query, parameter)
        return None if found is None else unquote_to_bytes(found.encode("latin-1")).decode("latin-1")[:length]

    return value


def _query_parameters(name: str, arguments: str, length: int | None) -> Operator:
    if _options(name, arguments, ("ORIG", "DECODED")) == ["ORIG"]:
        return lambda scene: scene.head.query[:length] or None
    return lambda scene: _VISIBLE.sub(lambda found: chr(int(found[1], 16)), scene.head.query)[:length] or None


def _environment(name: str, arguments: str, length: int | None) -> Operator:
    if not arguments:
        raise _refused(name, "takes the name of a variable")
    value = as_wire(os.environ.get(arguments, "-"))[:length]
    return lambda scene: value


def _time(moment: Callable[[CallFacts], float], *, local: bool) -> Make:
    def make(name: str, arguments: str, length: int | None) -> Operator:
        if length is not None:
            raise _refused(name, "takes no length")
        write = compile_date(arguments, local=local)
        return lambda scene: write(when) if (when := moment(scene.facts)) else None

    return make


def _milliseconds(seconds: Callable[[CallFacts], float | None]) -> Make:
    return _fact(lambda facts: None if (found := seconds(facts)) is None else int(found * 1000))


_POINTS: dict[str, Callable[[CallFacts], float | None]] = {
    "DS_RX_BEG": lambda facts: 0.0,
    "DS_RX_END": lambda facts: 0.0,
    "US_RX_BEG": lambda facts: facts.first_byte,
}
_PER_SECOND = {"ms": 1e3, "us": 1e6, "ns": 1e9}


def _common_duration(name: str, arguments: str, length: int | None) -> Operator:
    parts = arguments.split(":")
    if len(parts) != 3 or parts[2] not in _PER_SECOND or length is not None:
        raise _refused(name, f"takes START:END:ms, us or ns, not {arguments!r}")
    begin, end, factor = _POINTS.get(parts[0]), _POINTS.get(parts[1]), _PER_SECOND[parts[2]]
    if begin is None or end is None:
        return lambda scene: None

    def value(scene: Scene) -> str | None:
        facts = scene.facts
        start, stop = begin(facts), end(facts)
        return None if start is None or stop is None else str(int((stop - start) * factor))

    return value


def _metadata_kinds() -> dict[str, Callable[[CallFacts], Metadata]]:
    nothing: Callable[[CallFacts], Metadata] = lambda facts: EMPTY_METADATA  # noqa: E731  # the value of several names
    return {
        "ROUTE": lambda facts: facts.route_metadata,
        "VIRTUAL_HOST": lambda facts: facts.virtual_host_metadata,
        "CLUSTER": lambda facts: facts.cluster_metadata,
        "UPSTREAM_HOST": lambda facts: facts.endpoint_metadata,
        **dict.fromkeys(("DYNAMIC", "LISTENER", "LISTENER_FILTER_CHAIN"), nothing),
    }


_METADATA = _metadata_kinds()


def _metadata(kind: str = "") -> Make:
    """`METADATA(KIND:NAMESPACE:KEY:...)`, or with the kind in its name."""

    def make(name: str, arguments: str, length: int | None) -> Operator:
        wanted, _, rest = (kind, "", arguments) if kind else arguments.partition(":")
        namespace, *keys = rest.split(":")
        if wanted not in _METADATA or not namespace:
            raise _refused(name, f"takes {'' if kind else 'KIND:'}NAMESPACE:KEY, not {arguments!r}")
        source = _METADATA[wanted]
        return lambda scene: _looked_up(source(scene.facts), namespace, keys, length)

    return make


def _looked_up(metadata: Metadata, namespace: str, keys: list[str], length: int | None) -> str | None:
    found: Value = metadata.namespace(namespace)
    if isinstance(found, Struct) and not found.items:
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, Struct) else None
    if found is None:
        return None
    if isinstance(found, str):
        return as_wire(found)[:length]
    text = json.dumps(_thawed(found), separators=(",", ":"), ensure_ascii=False)
    return as_wire(text) if isinstance(found, Struct | tuple) else text[:length]


def _thawed(value: Value) -> object:
    match value:
        case Struct(items=items):
            return {key: _thawed(item) for key, item in items}
        case tuple():
            return [_thawed(item) for item in value]
        case float() if value.is_integer():
            return int(value)
    return value


def _server_name(name: str, arguments: str, length: int | None) -> Operator:
    """The host, where it is asked for: a library has no TLS of a caller's to read a server name from."""
    order, source = _options(name, arguments, ("SNI_ONLY", "SNI_FIRST", "HOST_FIRST"), ("ORIG_OR_HOST", "ORIG", "HOST"))
    if order == "SNI_ONLY":
        return lambda scene: None

    def value(scene: Scene) -> str | None:
        host = scene.request(ORIGINAL_HOST) if source != "HOST" else None
        if host is None and source != "ORIG":
            host = scene.head.authority
        return host[:length] if host else None

    return value


_GRPC_NAMES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)


def _grpc_status(name: str, arguments: str, length: int | None) -> Operator:
    if arguments not in {"", "CAMEL_STRING", "SNAKE_STRING", "NUMBER"} or length is not None:
        raise _refused(name, f"takes CAMEL_STRING, SNAKE_STRING or NUMBER, not {arguments!r}")
    as_number = arguments == "NUMBER" or name == "GRPC_STATUS_NUMBER"

    def value(scene: Scene) -> str | None:
        status = scene.facts.grpc_status
        if status is None or status < 0:
            return None
        if as_number or status >= len(_GRPC_NAMES):
            return str(status)
        said = _GRPC_NAMES[status]
        if arguments == "SNAKE_STRING" or status == 0:
            return said
        return "".join(word.capitalize() for word in said.split("_"))

    return value


FLAG_NAMES = {
    "DC": "DownstreamConnectionTermination",
    "DI": "DelayInjected",
    "DO": "DropOverload",
    "FI": "FaultInjected",
    "LR": "LocalReset",
    "NC": "NoClusterFound",
    "NFCF": "NoFilterConfigFound",
    "NR": "NoRouteFound",
    "RL": "RateLimited",
    "RLSE": "RateLimitServiceError",
    "SI": "StreamIdleTimeout",
    "UC": "UpstreamConnectionTermination",
    "UF": "UpstreamConnectionFailure",
    "UH": "NoHealthyUpstream",
    "UO": "UpstreamOverflow",
    "UPE": "UpstreamProtocolError",
    "UR": "UpstreamRemoteReset",
    "URX": "UpstreamRetryLimitExceeded",
    "UT": "UpstreamRequestTimeout",
}


def _details(name: str, arguments: str, length: int | None) -> Operator:
    if arguments not in {"", "ALLOW_WHITESPACES"} or length is not None:
        raise _refused(name, f"takes ALLOW_WHITESPACES or nothing, not {arguments!r}")
    return lambda scene: scene.facts.details or None


def without_port(address: str) -> str:
    """An `ip:port` or `host:port` without its port; a bare IPv6 address keeps its colons."""
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit() or (":" in host and not host.endswith("]")):
        return address
    return host[1:-1] if host.startswith("[") else host


def _last(facts: CallFacts) -> tuple[str, str] | None:
    return facts.attempted[-1] if facts.attempted else None


def _address(facts: CallFacts) -> str | None:
    return last[0] if (last := _last(facts)) else None


def _host_name(facts: CallFacts) -> str | None:
    return last[1] or last[0] if (last := _last(facts)) else None


def _port(facts: CallFacts) -> str | None:
    port = (_address(facts) or "").rpartition(":")[2]
    return port if port.isdigit() else None


def _address_without_port(name: str, arguments: str, length: int | None) -> Operator:
    if length is not None or (arguments and not arguments.isdigit()):
        raise _refused(name, f"takes the length of a prefix, not {arguments!r}")

    def value(scene: Scene) -> str | None:
        address = _address(scene.facts)
        return None if address is None else _masked(without_port(address), arguments)

    return value


def _masked(address: str, prefix: str) -> str | None:
    if not prefix:
        return address
    try:
        bits = ipaddress.ip_address(address).max_prefixlen
        return str(ipaddress.ip_network(f"{address}/{min(int(prefix), bits)}", strict=False))
    except ValueError:
        return None


def _listed(value: Callable[[tuple[str, str]], str]) -> Make:
    return _fact(lambda facts: ",".join(value(tried) for tried in facts.attempted))


def _trace(position: int) -> Make:
    """A part of `traceparent`: version, trace, span, flags."""

    def value(scene: Scene) -> str | None:
        parts = (scene.request("traceparent") or "").split("-")
        return parts[position] if len(parts) >= 4 else None

    return _plain(value)


_request, _response = _header(Scene.request), _header(Scene.response)
_HOSTNAME = platform.node()

OPERATORS: dict[str, Make] = {
    "REQ": _request,
    "REQUEST_HEADER": _request,
    "RESP": _response,
    "RESPONSE_HEADER": _response,
    "PATH": _path,
    "QUERY_PARAM": _query_parameter,
    "QUERY_PARAMS": _query_parameters,
    "START_TIME": _time(lambda facts: facts.started, local=False),
    "START_TIME_LOCAL": _time(lambda facts: facts.started, local=True),
    "EMIT_TIME": _time(lambda facts: facts.now, local=False),
    "EMIT_TIME_LOCAL": _time(lambda facts: facts.now, local=True),
    "DURATION": _milliseconds(lambda facts: facts.elapsed),
    "REQUEST_DURATION": _plain(lambda scene: "0"),  # a call begins with its request whole
    "RESPONSE_DURATION": _milliseconds(lambda facts: facts.first_byte),
    "COMMON_DURATION": _common_duration,
    "PROTOCOL": _plain(lambda scene: scene.protocol),
    "UPSTREAM_PROTOCOL": _plain(lambda scene: scene.protocol if scene.facts.attempted else None),
    "RESPONSE_CODE": _fact(lambda facts: facts.status),
    "RESPONSE_CODE_DETAILS": _details,
    "RESPONSE_FLAGS": _fact(lambda facts: facts.flag or "-"),
    "RESPONSE_FLAGS_LONG": _fact(lambda facts: ",".join(FLAG_NAMES.get(flag, "-") for flag in facts.flag.split(","))),
    "GRPC_STATUS": _grpc_status,
    "GRPC_STATUS_NUMBER": _grpc_status,
    "LOCAL_REPLY_BODY": _fact(lambda facts: facts.body),
    "ROUTE_NAME": _fact(lambda facts: as_wire(facts.route)),
    "UPSTREAM_CLUSTER": _fact(lambda facts: as_wire(facts.cluster)),
    "UPSTREAM_CLUSTER_RAW": _fact(lambda facts: as_wire(facts.cluster)),
    "UPSTREAM_HOST": _fact(_address),
    "UPSTREAM_REMOTE_ADDRESS": _fact(_address),
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _address_without_port,
    "UPSTREAM_REMOTE_PORT": _fact(_port),
    "UPSTREAM_HOST_NAME": _fact(_host_name),
    "UPSTREAM_HOST_NAME_WITHOUT_PORT": _fact(lambda facts: without_port(_host_name(facts) or "")),
    "UPSTREAM_HOSTS_ATTEMPTED": _listed(lambda tried: tried[0]),
    "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT": _listed(lambda tried: without_port(tried[0])),
    "UPSTREAM_HOST_NAMES_ATTEMPTED": _listed(lambda tried: tried[1] or tried[0]),
    "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT": _listed(lambda tried: without_port(tried[1] or tried[0])),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": _fact(lambda facts: facts.attempts),
    "METADATA": _metadata(),
    "CLUSTER_METADATA": _metadata("CLUSTER"),
    "UPSTREAM_METADATA": _metadata("UPSTREAM_HOST"),
    "REQUESTED_SERVER_NAME": _server_name,
    "HOSTNAME": _plain(lambda scene: _HOSTNAME),
    "ENVIRONMENT": _environment,
    "TRACE_ID": _trace(1),
    "SPAN_ID": _trace(2),
    "STREAM_ID": _plain(lambda scene: scene.request("x-request-id")),
}
