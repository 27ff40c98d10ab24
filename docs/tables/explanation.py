"""The fields of `Explanation`, the JSON object of `meshlib explain --json`, and of `Issue`, that of `meshlib check`."""

from __future__ import annotations

import re
from dataclasses import fields

from meshlib.explain import Explanation
from meshlib.model.report import Issue
from tables import markdown

MEANING = {
    "method": "the request's method, as given",
    "url": "the request's URL, as given",
    "listener": "the listener the call would have been sent to; `route:NAME` for routes no listener refers to",
    "route_configuration": "its name",
    "virtual_host": "the virtual host whose domains fit the authority",
    "virtual_cluster": "the virtual cluster, `other` when none fits; null where the virtual host has none",
    "route": "the route that matched: virtual host, `/`, the route's name or index",
    "route_index": "its index in the virtual host",
    "cluster": "the cluster chosen",
    "endpoint": "the endpoint the first attempt goes to",
    "authority": "the authority the endpoint sees",
    "path": "path and query the endpoint sees",
    "headers": "`[name, value]` pairs the endpoint sees",
    "redirect": "`status`, `location`",
    "direct_response": "`status`, `body`",
    "response_headers": "`[name, value]` pairs of a redirect or direct response",
    "timeouts": "seconds: `route`, `per_try`, `idle`, `per_try_idle`, `connect`, `stream`",
    "retry_policy": "`retry_on`, `num_retries`, `per_try_timeout`, `retriable_status_codes`, `base_interval`, "
    "`max_interval`, `previous_hosts`, `retriable_headers`, `retriable_request_headers`, `reset_headers`, "
    "`omit_canary_hosts`, `previous_priorities`, `hedge_on_per_try_timeout`; with what the request asks for",
    "thresholds": "`priority`, `max_connections`, `max_pending_requests`, `max_requests`, `max_retries`, "
    "`retry_budget` (percent; takes the place of `max_retries`)",
    "pass_through": "the call leaves the mesh unchanged",
    "response_flag": "Envoy's word when no endpoint is reached and nothing answers",
    "failure_status": "of a missing route or cluster: the HTTP status a proxy answers with",
    "reason": "why, in a sentence",
    "trials": "the routes tried, in order: `route`, `index`, `matched`, `failed` (the condition that did not hold)",
    "weights": "the shares of a weighted route: `cluster`, `weight`, `chosen`",
    "filters": "the HTTP filters that run on the request, in order: `type` and their settings",
    "overload_drops": "the fraction the control plane drops, by category",
    "request_hash": "the hash for balancers that need one",
    "balancing": "`policy`, `subset`, `priorities` (`priority`, `healthy_load`, `degraded_load`, `panic`, "
    "`endpoints`); an endpoint has `address`, `locality`, `weight`, `health`, `availability`, `ejected`, "
    "`out_of_reach`, `circuit_open`, `active`",
    "cluster_state": "what the cluster is doing now: `requests`, `ejected`, `breaker`; at rest unless a live process "
    "was asked",
    "chosen_because": "why the endpoint was chosen, in a sentence",
    "by_chance": "whether the cluster was drawn among several",
    "mirrors": "the copies of the request: cluster, whether it exists, percent, host, headers",
    "internal_redirect": "which redirect responses the mesh follows, in the policy's words; null: none",
    "session": "of a sticky session: the endpoint it wants, whether it is strict, whether it is honoured",
}
ISSUE = {
    "severity": "`error`: refused; `degraded`: used without this part",
    "resource": "type and name",
    "path": "the field",
    "reason": "what is wrong, or what happens instead",
    "fix": "what to write, where that can be told",
    "file": "where it stands",
    "line": "its line, from 1; 0 when there is none",
}


def table() -> str:
    """A row per field of an explanation."""
    return _rows(Explanation, MEANING)


def issue() -> str:
    """A row per field of an issue."""
    return _rows(Issue, ISSUE)


def _rows(kind: type, meaning: dict[str, str]) -> str:
    types = {field.name: str(field.type) for field in fields(kind)}
    markdown.complete(kind.__name__, types, meaning)
    return markdown.table(
        ("field", "type", "meaning"), [(f"`{name}`", _json(of), meaning[name]) for name, of in types.items()]
    )


def _json(annotation: str) -> str:
    """JSON's word for a type."""
    words = {"str": "text", "int": "number", "float": "number", "bool": "boolean", "None": "null"}
    words |= {"list": "list", "dict": "object"}
    parts = re.sub(r"\[.*\]", "", annotation).split(" | ")  # of a list or an object only that it is one
    return " or ".join(words.get(part, "text") for part in parts)
