"""Retries, hash policies and header changes of a discovery chain."""

from __future__ import annotations

from collections.abc import Iterator

from meshlib.model.headers import (
    NO_MUTATIONS,
    AppendAction,
    HeaderMutations,
    HeaderValueOption,
)
from meshlib.model.operators import empty_operators, has_stray_percent, unknown_operators
from meshlib.model.report import ResourceError
from meshlib.model.route import HashPolicy, RetryPolicy
from meshlib.sources.consul.fields import Fields

RETRY_ON = frozenset(
    {
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "envoy-ratelimited",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    }
)
"""The conditions of Envoy's that cause a retry here; another is told and never does."""


def retry_policy(said: Fields) -> RetryPolicy | None:
    """The retries of a destination, None when it says nothing."""
    number, codes = said.integer("NumRetries"), said.integers("RetryOnStatusCodes")
    conditions = [name for name in said.texts("RetryOn") if _is_known(name, said)]
    if said.flag("RetryOnConnectFailure") and "connect-failure" not in conditions:
        conditions.append("connect-failure")
    if codes:
        conditions.append("retriable-status-codes")
    if not conditions and not number:
        return None
    return RetryPolicy(tuple(conditions), num_retries=number or 1, retriable_status_codes=codes)


def hash_policies(node: Fields) -> tuple[HashPolicy, ...]:
    """What a node's balancer hashes, where it hashes."""
    balancer = node.object("LoadBalancer")
    if balancer is None or balancer.text("Policy") not in ("ring_hash", "maglev"):
        return ()
    return tuple(_hash_policy(policy) for policy in balancer.objects("HashPolicies"))


def _hash_policy(said: Fields) -> HashPolicy:
    said.only("Field", "FieldValue", "CookieConfig", "SourceIP", "Terminal")
    terminal = said.flag("Terminal")
    if said.flag("SourceIP"):
        return HashPolicy("source_ip", terminal=terminal)
    name = said.text("FieldValue")
    match said.text("Field"):
        case "header":
            return HashPolicy("header", name.lower(), terminal)
        case "query_parameter":
            return HashPolicy("query_parameter", name, terminal)
        case "cookie":
            cookie = said.object("CookieConfig")
            ttl = cookie.duration("TTL") if cookie else None
            ttl = 0.0 if cookie and cookie.flag("Session") else ttl or None
            return HashPolicy("cookie", name, terminal, ttl=ttl, path=cookie.text("Path") if cookie else "")
    raise ResourceError(said.at("Field"), f"{said.text('Field')!r} is unknown", said.resource)


def mutations(said: Fields, key: str) -> HeaderMutations:
    """`RequestHeaders` or `ResponseHeaders` of a destination or a split."""
    headers = said.object(key)
    if headers is None:
        return NO_MUTATIONS
    headers.only("Add", "Set", "Remove")
    added = (
        *_options(headers, "Add", "APPEND_IF_EXISTS_OR_ADD"),
        *_options(headers, "Set", "OVERWRITE_IF_EXISTS_OR_ADD"),
    )
    removed = tuple(_modifiable(name.lower(), headers, "Remove") for name in headers.texts("Remove"))
    return HeaderMutations(added, removed)


def _options(headers: Fields, key: str, action: AppendAction) -> Iterator[HeaderValueOption]:
    """Values are Envoy's format strings, in Consul as well: what a client cannot fill in is told, and left out."""
    for name, value in headers.mapping(key).items():
        if has_stray_percent(value):
            raise ResourceError(
                headers.at(key), f"{value!r}: a percent sign of its own is written %%", headers.resource
            )
        if unknown := unknown_operators(value):
            headers.degraded(key, f"%{unknown[0]}% is not known to a client: the header {name!r} is left as it is")
            continue
        if empty := empty_operators(value):
            headers.degraded(key, f"%{empty[0]}% has no value for a client: it stands for nothing in {name!r}")
        yield HeaderValueOption(_modifiable(name.lower(), headers, key), value, action)


def _modifiable(name: str, headers: Fields, key: str) -> str:
    if name.startswith(":") or name == "host":
        raise ResourceError(headers.at(key), f"{name!r} may not be modified", headers.resource)
    return name


def _is_known(condition: str, said: Fields) -> bool:
    if condition not in RETRY_ON:
        said.degraded("RetryOn", f"condition {condition[:80]!r} is not supported; it never causes a retry")
    return condition in RETRY_ON
