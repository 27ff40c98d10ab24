"""HTTPRoute → what Envoy does with a request that matched (istiod: `applyHTTPRouteDestination`, `retry.go`)."""

from __future__ import annotations

import http
from collections.abc import Callable, Mapping
from typing import Any

from meshlib.sources.istio.cors import cors_config
from meshlib.sources.istio.faults import fault_config
from meshlib.sources.istio.fields import envoy_duration
from meshlib.sources.istio.mirrors import Lookup, mirror_policies

Json = dict[str, Any]
HashLookup = Callable[[Mapping[str, Any]], Json | None]
"""Destination → the consistentHash of its policy."""

DEFAULT_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
_PREVIOUS_HOSTS = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}
_PREVIOUS_PRIORITIES = {
    "name": "envoy.retry_priorities.previous_priorities",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "update_frequency": 2,
    },
}
_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}


def action_of(route: Mapping[str, Any], port: int, cluster_of: Lookup, hash_of: HashLookup) -> Json:
    """The action, the header mutations and the filters' configuration of a route, as fields of Envoy's `Route`."""
    headers, authority = header_fields(route.get("headers") or {})
    filters = fault_config(route["fault"]) if route.get("fault") is not None else {}
    if route.get("corsPolicy") is not None:
        filters |= cors_config(route["corsPolicy"])
    if filters:
        headers["typed_per_filter_config"] = filters
    if route.get("redirect") is not None:
        return {**headers, "redirect": _redirect(route["redirect"], port)}
    if route.get("directResponse") is not None:
        return {**headers, "direct_response": _direct_response(route["directResponse"])}
    action = _timed(route.get("timeout"))
    rewrite = route.get("rewrite") or {}
    _apply_rewrite(action, rewrite, rewrite.get("authority") or authority)
    if mirrors := mirror_policies(route, cluster_of):
        action["request_mirror_policies"] = mirrors
    destinations = route["route"]
    if len(destinations) > 1:
        destinations = [entry for entry in destinations if entry.get("weight")]
    hashed = False
    if len(route["route"]) == 1:
        hashed = hash_of(destinations[0]["destination"]) is not None
        _single(action, headers, destinations[0], cluster_of)
    else:
        shares = [_share(entry, cluster_of) for entry in destinations]
        action["weighted_clusters"] = {"clusters": shares}
    policies = [hash_policy(found) for entry in destinations if (found := hash_of(entry["destination"])) is not None]
    if any(policies):
        action["hash_policy"] = [policy for policy in policies if policy]
    if (retries := retry_policy(route.get("retries"), hashed=hashed)) is not None:
        action["retry_policy"] = retries
    return {**headers, "route": action}


def default_action(cluster: str, consistent_hash: Json | None) -> Json:
    """The action for a service without a VirtualService: no timeout, Istio's default retries."""
    action: Json = {"cluster": cluster, **_timed(None), "retry_policy": retry_policy(None, hashed=False)}
    if consistent_hash is not None and (policy := hash_policy(consistent_hash)):
        action["hash_policy"] = [policy]
    return action


def _timed(timeout: str | None) -> Json:
    """The route's timeout, none by default; a timeout that a gRPC call brings counts within it."""
    text = envoy_duration(timeout) if timeout else "0s"
    return {"timeout": text, "max_grpc_timeout": text}


def retry_policy(retries: Mapping[str, Any] | None, *, hashed: bool) -> Json | None:
    """Istio's retries: two by default, 0 attempts switch them off. With consistent hashing the same host is tried."""
    policy: Json = {"num_retries": 2, "retry_on": DEFAULT_RETRY_ON, "host_selection_retry_max_attempts": 5}
    previous = not hashed
    if retries is not None:
        if not retries.get("attempts"):
            return None
        policy["num_retries"] = retries["attempts"]
        if retries.get("retryOn"):
            policy |= _retry_on(retries["retryOn"])
        if retries.get("perTryTimeout"):
            policy["per_try_timeout"] = envoy_duration(retries["perTryTimeout"])
        if retries.get("backoff"):
            policy["retry_back_off"] = {"base_interval": envoy_duration(retries["backoff"])}
        if retries.get("retryRemoteLocalities"):
            policy["retry_priority"] = _PREVIOUS_PRIORITIES
        if retries.get("retryIgnorePreviousHosts") is not None:
            previous = retries["retryIgnorePreviousHosts"]
    if previous:
        policy["retry_host_predicate"] = [_PREVIOUS_HOSTS]
    return policy


def _retry_on(text: str) -> Json:
    """Conditions, among which numbers are status codes."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    codes = [int(part) for part in parts if part.isdigit() and int(part) in set(http.HTTPStatus)]
    conditions = [part for part in parts if not (part.isdigit() and int(part) in codes)]
    if codes and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    return {"retry_on": ",".join(conditions)} | ({"retriable_status_codes": codes} if codes else {})


def hash_policy(consistent: Mapping[str, Any]) -> Json | None:
    """Envoy's hash policy of a consistentHash; None when it names no key."""
    if consistent.get("httpHeaderName"):
        return {"header": {"header_name": consistent["httpHeaderName"]}}
    if (cookie := consistent.get("httpCookie")) is not None:
        out: Json = {"name": cookie["name"]}
        if cookie.get("ttl"):
            out["ttl"] = envoy_duration(cookie["ttl"])
        if cookie.get("path"):
            out["path"] = cookie["path"]
        if attributes := cookie.get("attributes"):
            out["attributes"] = [{"name": each["name"], "value": each.get("value", "")} for each in attributes]
        return {"cookie": out}
    if consistent.get("useSourceIp"):
        return {"connection_properties": {"source_ip": True}}
    if consistent.get("httpQueryParameterName"):
        return {"query_parameter": {"name": consistent["httpQueryParameterName"]}}
    return None


def header_fields(headers: Mapping[str, Any]) -> tuple[Json, str]:
    """Envoy's header mutation fields, and the authority when one is set among the request headers."""
    request, response = headers.get("request") or {}, headers.get("response") or {}
    fields: Json = {
        "request_headers_to_add": _options(request),
        "response_headers_to_add": _options(response),
        "request_headers_to_remove": [name for name in request.get("remove") or () if not _is_internal(name)],
        "response_headers_to_remove": [name for name in response.get("remove") or () if not _is_internal(name)],
    }
    authority = ""
    for name, value in {**(request.get("add") or {}), **(request.get("set") or {})}.items():
        if name.lower() in {"host", ":authority"}:
            authority = value
    return {name: value for name, value in fields.items() if value}, authority


def _options(operations: Mapping[str, Any]) -> list[Json]:
    actions = (("set", "OVERWRITE_IF_EXISTS_OR_ADD"), ("add", "APPEND_IF_EXISTS_OR_ADD"))
    return [
        {"header": {"key": name, "value": value}, "append_action": action}
        for key, action in actions
        for name, value in sorted((operations.get(key) or {}).items())
        if not _is_internal(name)
    ]


def _is_internal(name: str) -> bool:
    return name.startswith(":") or name.lower() == "host"


def _single(action: Json, headers: Json, entry: Mapping[str, Any], cluster_of: Lookup) -> None:
    action["cluster"] = cluster_of(entry["destination"])
    own, authority = header_fields(entry.get("headers") or {})
    for name, values in own.items():
        headers[name] = [*headers.get(name, []), *values]
    if authority:
        action.setdefault("host_rewrite_literal", authority)


def _share(entry: Mapping[str, Any], cluster_of: Lookup) -> Json:
    fields, authority = header_fields(entry.get("headers") or {})
    share: Json = {"name": cluster_of(entry["destination"]), "weight": entry["weight"], **fields}
    return share | ({"host_rewrite_literal": authority} if authority else {})


def _apply_rewrite(action: Json, rewrite: Mapping[str, Any], authority: str) -> None:
    if regex := rewrite.get("uriRegexRewrite"):
        action["regex_rewrite"] = {"pattern": {"regex": regex["match"]}, "substitution": regex.get("rewrite", "")}
    elif rewrite.get("uri"):
        action["prefix_rewrite"] = rewrite["uri"]
    if authority:
        action["host_rewrite_literal"] = authority


def _redirect(redirect: Mapping[str, Any], port: int) -> Json:
    out: Json = {"host_redirect": redirect.get("authority", "")}
    if redirect.get("prefixRewrite"):
        out["prefix_rewrite"] = redirect["prefixRewrite"]
    elif redirect.get("uri"):
        out["path_redirect"] = redirect["uri"]
    scheme = redirect.get("scheme") or "http"
    if redirect.get("scheme"):
        out["scheme_redirect"] = redirect["scheme"]
    target = redirect.get("port") or (port if redirect.get("derivePort") == "FROM_REQUEST_PORT" else 0)
    if target and (target, scheme) not in {(80, "http"), (443, "https")}:
        out["port_redirect"] = target
    out["response_code"] = _CODES[redirect.get("redirectCode") or 301]
    return out


def _direct_response(direct: Mapping[str, Any]) -> Json:
    out: Json = {"status": direct["status"]}
    body = direct.get("body") or {}
    if body.get("string") is not None:
        out["body"] = {"inline_string": body["string"]}
    elif body.get("bytes") is not None:
        out["body"] = {"inline_bytes": body["bytes"]}
    return out
