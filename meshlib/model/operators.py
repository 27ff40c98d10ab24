"""The `%...%` operators of Envoy's substitution formatter, by what a library knows of them.

https://www.envoyproxy.io/docs/envoy/v1.40.0/configuration/advanced/substitution_formatter
"""

from __future__ import annotations

import re

__all__ = ["COMMAND", "KNOWN", "NO_VALUE", "empty_operators", "has_stray_percent", "unknown_operators"]

COMMAND = re.compile(r"%(?:%|(?P<name>[A-Z0-9_]+)(?:\((?P<arguments>[^)]*)\))?(?::(?P<length>[0-9]{1,9}))?%)?")
"""One operator (`%NAME(arguments):length%`), a percent sign (`%%`), or a percent sign that is neither."""

KNOWN = frozenset(
    (
        *("REQ", "REQUEST_HEADER", "RESP", "RESPONSE_HEADER", "PATH", "QUERY_PARAM", "QUERY_PARAMS", "COALESCE"),
        *("START_TIME", "START_TIME_LOCAL", "EMIT_TIME", "EMIT_TIME_LOCAL"),
        *("DURATION", "REQUEST_DURATION", "RESPONSE_DURATION", "COMMON_DURATION"),
        *("PROTOCOL", "UPSTREAM_PROTOCOL", "RESPONSE_CODE", "RESPONSE_CODE_DETAILS", "RESPONSE_FLAGS"),
        *("RESPONSE_FLAGS_LONG", "GRPC_STATUS", "GRPC_STATUS_NUMBER", "LOCAL_REPLY_BODY"),
        *("ROUTE_NAME", "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW", "UPSTREAM_HOST", "UPSTREAM_HOST_NAME"),
        *("UPSTREAM_HOST_NAME_WITHOUT_PORT", "UPSTREAM_HOSTS_ATTEMPTED", "UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT"),
        *("UPSTREAM_HOST_NAMES_ATTEMPTED", "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT", "UPSTREAM_REMOTE_ADDRESS"),
        *("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_REMOTE_PORT", "UPSTREAM_REQUEST_ATTEMPT_COUNT"),
        *("METADATA", "CLUSTER_METADATA", "UPSTREAM_METADATA", "REQUESTED_SERVER_NAME"),
        *("HOSTNAME", "ENVIRONMENT", "TRACE_ID", "SPAN_ID", "STREAM_ID"),
    )
)
"""Those a library can fill in."""

_DOWNSTREAM = (
    *("REMOTE_ADDRESS", "REMOTE_ADDRESS_WITHOUT_PORT", "REMOTE_PORT", "DIRECT_REMOTE_ADDRESS", "DIRECT_REMOTE_PORT"),
    *("DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "LOCAL_ADDRESS", "LOCAL_ADDRESS_WITHOUT_PORT", "LOCAL_PORT"),
    *("DIRECT_LOCAL_ADDRESS", "DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", "DIRECT_LOCAL_PORT", "LOCAL_ADDRESS_ENDPOINT_ID"),
    *("DIRECT_LOCAL_ADDRESS_ENDPOINT_ID", "TRANSPORT_FAILURE_REASON", "LOCAL_CLOSE_REASON", "DETECTED_CLOSE_TYPE"),
    *("LOCAL_IP_SAN", "PEER_IP_SAN", "LOCAL_DNS_SAN", "PEER_DNS_SAN", "LOCAL_URI_SAN", "PEER_URI_SAN"),
    *("LOCAL_EMAIL_SAN", "PEER_EMAIL_SAN", "LOCAL_OTHERNAME_SAN", "PEER_OTHERNAME_SAN", "LOCAL_SUBJECT"),
    *("PEER_SUBJECT", "PEER_ISSUER", "TLS_SESSION_ID", "TLS_CIPHER", "TLS_GROUP", "TLS_VERSION"),
    *("PEER_FINGERPRINT_256", "PEER_FINGERPRINT_1", "PEER_SERIAL", "PEER_CHAIN_FINGERPRINTS_256"),
    *("PEER_CHAIN_FINGERPRINTS_1", "PEER_CHAIN_SERIALS", "PEER_ISSUER_FINGERPRINT_256", "PEER_ISSUER_SERIAL"),
    *("PEER_CERT", "PEER_CERT_V_START", "PEER_CERT_V_END", "WIRE_BYTES_SENT", "WIRE_BYTES_RECEIVED"),
    *("HEADER_BYTES_SENT", "HEADER_BYTES_RECEIVED", "DECOMPRESSED_HEADER_BYTES_SENT", "HANDSHAKE_DURATION"),
    "DECOMPRESSED_HEADER_BYTES_RECEIVED",
)
_UPSTREAM = (
    *("LOCAL_ADDRESS", "LOCAL_ADDRESS_WITHOUT_PORT", "LOCAL_PORT", "REMOTE_ADDRESS_ENDPOINT_ID", "CONNECTION_ID"),
    *("TRANSPORT_FAILURE_REASON", "DETECTED_CLOSE_TYPE", "LOCAL_CLOSE_REASON", "CONNECTION_IDS_ATTEMPTED"),
    *("PEER_SUBJECT", "PEER_ISSUER", "TLS_SESSION_ID", "TLS_CIPHER", "TLS_GROUP", "TLS_VERSION", "SERVER_NAME"),
    *("PEER_CERT", "PEER_CERT_V_START", "PEER_CERT_V_END", "PEER_URI_SAN", "PEER_DNS_SAN", "PEER_IP_SAN"),
    *("LOCAL_URI_SAN", "LOCAL_DNS_SAN", "LOCAL_IP_SAN", "WIRE_BYTES_SENT", "WIRE_BYTES_RECEIVED"),
    *("HEADER_BYTES_SENT", "HEADER_BYTES_RECEIVED", "DECOMPRESSED_HEADER_BYTES_SENT", "FILTER_STATE"),
    *("DECOMPRESSED_HEADER_BYTES_RECEIVED", "CONNECTION_POOL_READY_DURATION"),
)
NO_VALUE = frozenset(
    (
        *(f"DOWNSTREAM_{name}" for name in _DOWNSTREAM),
        *(f"UPSTREAM_{name}" for name in _UPSTREAM),
        *("TRAILER", "RESPONSE_TRAILER", "DYNAMIC_METADATA", "FILTER_STATE", "PER_REQUEST_STATE", "CONNECTION_ID"),
        *("BYTES_RECEIVED", "BYTES_SENT", "BYTES_RETRANSMITTED", "PACKETS_RETRANSMITTED", "REQUEST_HEADERS_BYTES"),
        *("RESPONSE_HEADERS_BYTES", "RESPONSE_TRAILERS_BYTES", "ROUNDTRIP_DURATION", "RESPONSE_TX_DURATION"),
        *("REQUEST_TX_DURATION", "CONNECTION_TERMINATION_DETAILS", "VIRTUAL_CLUSTER_NAME", "FILTER_CHAIN_NAME"),
        *("ACCESS_LOG_TYPE", "UNIQUE_ID", "CUSTOM_FLAGS", "TLS_JA3_FINGERPRINT", "TLS_JA4_FINGERPRINT"),
    )
)
"""Those that stand for nothing when a library makes a header: a proxy's connections, its filters' state, sizes that
are known later. They are as empty as Envoy's are where it has no value.
"""


def unknown_operators(text: str) -> tuple[str, ...]:
    """The operators of a text that are not known here, for example `CEL`."""
    return tuple(name for name in _operators(text) if name not in KNOWN and name not in NO_VALUE)


def empty_operators(text: str) -> tuple[str, ...]:
    """The operators of a text that never have a value here, for example `DOWNSTREAM_PEER_SUBJECT`."""
    return tuple(name for name in _operators(text) if name in NO_VALUE)


def _operators(text: str) -> list[str]:
    return [found["name"] for found in COMMAND.finditer(text) if found["name"]]


def has_stray_percent(text: str) -> bool:
    """Whether a percent sign belongs to no operator (Envoy refuses such a text; `%%` is a percent sign)."""
    return any(found[0] == "%" for found in COMMAND.finditer(text))
