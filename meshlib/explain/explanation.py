"""Explanation: the answer to "where would this request go", as values that JSON can say."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Explanation:
    """What happens to one request. Seconds are floats; what does not apply is None or empty.

    Where it goes: `listener`, `route_configuration`, `virtual_host`, `virtual_cluster` (where the virtual host has
    any), `route` (`virtual host/route name or index`), `route_index`, `cluster`, `endpoint` (the first attempt's).
    `trials` are the routes tried in order,
    `{"route", "index", "matched", "failed"}`, `failed` being the first condition that did not hold. `weights` are the
    shares of a weighted route, `{"cluster", "weight", "chosen"}`; `by_chance` when one of them was drawn. `filters` are
    the HTTP filters that run on the request, in order, `{"type", ...}` with their settings; one may still refuse it (a
    rate limit), which depends on what went before. `overload_drops` is the fraction the control plane drops, by
    category. `request_hash` is the route's hash for balancers that need one. `balancing` is
    `{"policy", "subset", "priorities"}`, a priority
    `{"priority", "healthy_load", "degraded_load", "panic", "endpoints"}` (loads in percent), an endpoint
    `{"address", "locality", "weight", "health", "availability", "ejected", "out_of_reach", "health_flags", "active"}`.
    `cluster_state` is what the cluster is doing now, `{"requests", "ejected", "breaker"}`: at rest unless a live
    process was asked.
    `chosen_because` says why the endpoint was chosen, in a sentence.

    Beside that: `mirrors` are the copies the request has, `{"cluster", "exists", "percent", "authority", "headers"}`;
    `internal_redirect` says which redirects the mesh follows, in the words of the policy; `session` is
    `{"wanted", "strict", "honoured"}`, the endpoint that a sticky session asks for.

    What the upstream sees on the first attempt: `authority`, `path`, `headers` (`[name, value]` pairs).

    What is answered without an upstream: `redirect` is `{"status", "location"}`, `direct_response` is
    `{"status", "body"}`, `response_headers` the headers either sets. (Of a forwarded request those its
    route adds to a response that has none of its own.)

    What bounds it, with what the request's `x-envoy-*` headers ask for: `timeouts` has `route`, `per_try`, `idle`,
    `per_try_idle`, `connect` and `stream` (of the cluster); `retry_policy` has `retry_on`, `num_retries`,
    `per_try_timeout`, `retriable_status_codes`, `retriable_headers`, `retriable_request_headers`, `base_interval`,
    `max_interval`, `reset_headers`, `previous_hosts`, `omit_canary_hosts`, `previous_priorities` and
    `hedge_on_per_try_timeout`; `thresholds` has `priority`, `max_connections`, `max_pending_requests`, `max_requests`,
    `max_retries` and `retry_budget` (percent, which then takes the place of `max_retries`).

    `response_flag` is Envoy's word when no upstream is reached and nothing answers, and `reason` says why (an unknown
    host is NR too; `pass_through` tells that the mesh lets such calls go on unchanged). `failure_status` is the HTTP
    status a proxy answers with then, where the route decides: a missing route or cluster.
    """

    method: str
    url: str
    listener: str | None = None
    route_configuration: str | None = None
    virtual_host: str | None = None
    virtual_cluster: str | None = None
    route: str | None = None
    route_index: int | None = None
    cluster: str | None = None
    endpoint: str | None = None
    authority: str | None = None
    path: str | None = None
    headers: list[list[str]] = field(default_factory=list)
    redirect: dict[str, Any] | None = None
    direct_response: dict[str, Any] | None = None
    response_headers: list[list[str]] = field(default_factory=list)
    timeouts: dict[str, float | None] | None = None
    retry_policy: dict[str, Any] | None = None
    thresholds: dict[str, Any] | None = None
    pass_through: bool = False
    response_flag: str | None = None
    failure_status: int | None = None
    reason: str | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)
    weights: list[dict[str, Any]] = field(default_factory=list)
    filters: list[dict[str, Any]] = field(default_factory=list)
    overload_drops: dict[str, float] = field(default_factory=dict)
    request_hash: int | None = None
    balancing: dict[str, Any] | None = None
    cluster_state: dict[str, Any] | None = None
    chosen_because: str | None = None
    by_chance: bool = False
    mirrors: list[dict[str, Any]] = field(default_factory=list)
    internal_redirect: dict[str, Any] | None = None
    session: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON object: every field, always."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}
