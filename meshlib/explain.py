"""Explain: where a request would go and why, decided by the very code calls run through.

from meshlib.explain import Explainer
Explainer.from_files("conf/").explain("GET", "http://payments/charge", {"x-canary": "1"}).to_dict()
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from meshlib.engine.decision import Answer, Decision, Forward, Refusal, decide, rewrite_authority, upstream_head
from meshlib.engine.runtime import Runtime
from meshlib.engine.table import VirtualHostPlan
from meshlib.errors import ConfigurationError
from meshlib.flags import ResponseFlag
from meshlib.model.report import Issue
from meshlib.model.request import RequestHead
from meshlib.model.snapshot import Snapshot

HeaderInput = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(slots=True)
class Explanation:
    """What happens to one request. Seconds are floats; what does not apply is None.

    `route` is `virtual host/route name or index`; `trials` are the routes tried in order with the reason each one did
    not match. `authority`, `path` and `headers` are what the upstream would see on the first attempt.
    `redirect` is `{"status", "location"}`, `direct_response` is `{"status", "body"}`. `timeouts` has `route`,
    `per_try`, `idle` and `connect`. `response_flag` is Envoy's word when no upstream is reached and nothing answers
    (an unknown host is NR too; `pass_through` tells that the mesh lets such calls go on unchanged).
    """

    method: str
    url: str
    listener: str | None = None
    route_configuration: str | None = None
    virtual_host: str | None = None
    route: str | None = None
    route_index: int | None = None
    cluster: str | None = None
    endpoint: str | None = None
    authority: str | None = None
    path: str | None = None
    headers: list[list[str]] = field(default_factory=list)
    redirect: dict[str, Any] | None = None
    direct_response: dict[str, Any] | None = None
    timeouts: dict[str, float | None] | None = None
    retry_policy: dict[str, Any] | None = None
    pass_through: bool = False
    response_flag: str | None = None
    reason: str | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)
    balancing: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The documented JSON object (docs/explain.md): every field, always."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class Explainer:
    """Answers for one configuration; thousands of requests in one process.

    `seed` makes weighted choices repeatable: the same requests in the same order get the same answers.
    `unknown_hosts` as for `Mesh`. `endpoints=False` leaves the endpoint list out, which is long for large clusters.
    """

    def __init__(
        self, snapshot: Snapshot, *, seed: int | None = None, reject_unknown: bool = False, endpoints: bool = True
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311  it balances, it keeps no secret
        self._runtime = Runtime(self._rng)
        self._plan = self._runtime.compile(snapshot, None)
        self._reject_unknown = reject_unknown
        self._endpoints = endpoints
        self.issues: tuple[Issue, ...] = ()

    @classmethod
    def from_files(cls, *paths: str | os.PathLike[str], seed: int | None = None, **options: Any) -> Explainer:
        """Read Envoy-format or Istio-style files or folders. Raises ConfigurationError when a resource is rejected."""
        from meshlib.sources.files.loader import load
        from meshlib.sources.files.snapshot import build_snapshot

        snapshot, issues = build_snapshot(load(Path(path) for path in paths))
        errors = [str(issue) for issue in issues if issue.severity == "error"]
        if errors:
            raise ConfigurationError("the configuration has errors:\n" + "\n".join(errors))
        explainer = cls(snapshot, seed=seed, **options)
        explainer.issues = tuple(issues)
        return explainer

    def explain(self, method: str, url: str, headers: HeaderInput = ()) -> Explanation:
        """Decide about one request as a call would, and say how. Raises ConfigurationError for a URL without host."""
        head = head_from(method, url, headers)
        result = Explanation(method, url, authority=head.authority, path=head.path, headers=_texts(head))
        host = self._plan.find(head.scheme, head.authority)
        if host is None:
            return self._unknown(result, head)
        result.listener = host.listener
        result.route_configuration = host.source.config.name
        result.virtual_host = host.table.config.name
        # The state is put back, so that tracing draws the very numbers the decision then draws.
        state = self._rng.getstate()
        result.trials = [_trial(trial) for trial in host.table.trace(head, self._rng)]
        self._rng.setstate(state)
        decision = decide(self._plan, host, head, self._rng)
        self._describe(result, decision, host, head)
        return result

    def _unknown(self, result: Explanation, head: RequestHead) -> Explanation:
        result.response_flag = ResponseFlag.NR
        result.reason = f"no virtual host speaks for {head.authority!r}"
        if not self._reject_unknown:
            result.pass_through = True
            result.reason += ": the call leaves the mesh unchanged"
        return result

    def _describe(self, result: Explanation, decision: Decision, host: VirtualHostPlan, head: RequestHead) -> None:
        if decision.route is not None:
            result.route, result.route_index = decision.route.label, decision.route.index
        result.cluster = decision.cluster_name or None
        match decision:
            case Refusal(flag=flag, reason=reason):
                result.response_flag, result.reason = flag, reason
            case Answer():
                _answer(result, decision)
            case Forward():
                self._forward(result, decision, host, head)

    def _forward(self, result: Explanation, decision: Forward, host: VirtualHostPlan, head: RequestHead) -> None:
        route, share, cluster = decision.route, decision.share, decision.cluster
        if cluster.passthrough:
            result.pass_through = True
            result.reason = f"cluster {cluster.name!r} goes to the original destination"
            return
        result.timeouts = _timeouts(decision, host)
        result.retry_policy = _retry_policy(decision)
        if self._endpoints:
            result.balancing = asdict(cluster.balancer.describe(share.criteria))
        hashed = route.hasher(head, "", self._rng) if route.hasher is not None else None
        chosen = cluster.balancer.pick(hashed.hash if hashed else None, share.criteria, self._rng)
        upstream = upstream_head(decision, head)
        if chosen is None:
            result.response_flag = ResponseFlag.UH
            result.reason = f"no healthy endpoint in cluster {cluster.name!r}"
        else:
            result.endpoint = chosen.address
            hostname = chosen.endpoint.hostname
            append_xfh = decision.action.append_x_forwarded_host
            upstream = rewrite_authority(share, head, upstream, hostname, append_xfh)
        result.authority, result.path, result.headers = upstream.authority, upstream.path, _texts(upstream)


def head_from(method: str, url: str, headers: HeaderInput) -> RequestHead:
    """The neutral head of a request given as text; a `host` header takes the place of the URL's authority."""
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        raise ConfigurationError(f"{url!r} is not an absolute URL like http://payments/charge")
    items = headers.items() if isinstance(headers, Mapping) else headers
    pairs = [(name.lower(), value) for name, value in items]
    authority = next((value for name, value in pairs if name == "host"), parts.netloc.rpartition("@")[2])
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    raw = [(b"host", authority.encode("latin-1"))]
    raw += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs if name != "host"]
    return RequestHead(method.upper(), parts.scheme, authority, path, raw)


def _answer(result: Explanation, answer: Answer) -> None:
    result.authority = result.path = None
    result.headers = []
    if answer.location:
        result.redirect = {"status": answer.status, "location": answer.location}
    else:
        result.direct_response = {"status": answer.status, "body": answer.body.decode("utf-8", "replace")}


def _timeouts(decision: Forward, host: VirtualHostPlan) -> dict[str, float | None]:
    idle = decision.action.idle_timeout
    if idle is None and host.manager is not None:
        idle = host.manager.stream_idle_timeout
    return {
        "route": decision.route.timeout,
        "per_try": decision.route.retry.per_try_timeout if decision.route.retry else None,
        "idle": idle,
        "connect": decision.cluster.connect_timeout,
    }


def _retry_policy(decision: Forward) -> dict[str, Any] | None:
    policy = decision.action.retry_policy or decision.route.virtual_host.retry_policy
    if policy is None:
        return None
    return {
        "retry_on": list(policy.retry_on),
        "num_retries": policy.num_retries,
        "per_try_timeout": policy.per_try_timeout,
        "retriable_status_codes": list(policy.retriable_status_codes),
        "base_interval": policy.base_interval,
        "max_interval": policy.max_interval,
        "previous_hosts": policy.previous_hosts,
    }


def _trial(trial: Any) -> dict[str, Any]:
    return {"route": trial.name, "index": trial.index, "matched": trial.matched, "failed": trial.failed}


def _texts(head: RequestHead) -> list[list[str]]:
    return [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in head.headers]
