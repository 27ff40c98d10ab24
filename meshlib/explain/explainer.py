"""Explainer: asks the engine the way a call does, and writes down what it says."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from meshlib.engine.attempt import attempt_head
from meshlib.engine.decision import Answer, Decision, Forward, Refusal, decide, prepared, upstream_head
from meshlib.engine.lanes import entered
from meshlib.engine.route import Share
from meshlib.engine.runtime import Runtime
from meshlib.engine.table import VirtualHostPlan
from meshlib.errors import ConfigurationError
from meshlib.explain import actions, facts
from meshlib.explain.attempts import Terms
from meshlib.explain.chance import FixedChance
from meshlib.explain.explanation import Explanation
from meshlib.explain.request import HeaderInput, head_from
from meshlib.explain.runtime import has_fractions, only_runtime
from meshlib.explain.why import chosen_because
from meshlib.flags import ResponseFlag
from meshlib.model.metadata import Struct
from meshlib.model.report import Issue
from meshlib.model.request import RawHeaders, RequestHead
from meshlib.model.route import RedirectAction, RouteConfiguration
from meshlib.model.snapshot import Snapshot

if TYPE_CHECKING:
    from meshlib.sources.xds.node import Node


class Explainer:
    """Answers for one configuration; thousands of requests in one process. Not thread-safe.

    `seed` makes chance repeatable: the same requests in the same order get the same answers (balancing goes on from
    request to request, as it does in a mesh). `reject_unknown`: hosts nothing speaks for are refused instead of passed
    through. `brief` leaves out the routes tried and the endpoints, which are most of the work where there are many.
    `runtime`: where the state of endpoints and clusters is read.
    `issues` are what `from_files` found to be valid but not applied.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        seed: int | None = None,
        reject_unknown: bool = False,
        brief: bool = False,
        runtime: Runtime | None = None,
    ) -> None:
        self._rng = random.Random(seed)  # noqa: S311  it balances, it keeps no secret
        self._plan = (runtime or Runtime(self._rng)).compile(snapshot, None)
        self._live = runtime is not None
        self._reject_unknown = reject_unknown
        self._brief = brief
        self._filters: dict[int, list[dict[str, Any]]] = {}  # by the identity of a share: the plan keeps it alive
        self._balancing: dict[tuple[str, Struct], dict[str, Any]] = {}
        self.issues: tuple[Issue, ...] = ()

    @classmethod
    def from_files(cls, *paths: str | os.PathLike[str], node: Node | None = None, **options: Any) -> Self:
        """Read Envoy-format or Istio-style files or folders, for the workload `node` (as `Mesh.from_file`); `options`
        are those of the class. Raises ConfigurationError when there are none or one holds an error.
        """
        from meshlib.sources.files.loader import load
        from meshlib.sources.files.snapshot import build_snapshot

        snapshot, issues = build_snapshot(load((Path(path) for path in paths), node))
        errors = [str(issue) for issue in issues if issue.severity == "error"]
        if errors:
            raise ConfigurationError("the configuration has errors:\n" + "\n".join(errors))
        explainer = cls(snapshot, **options)
        explainer.issues = issues
        return explainer

    @classmethod
    def of_runtime(cls, runtime: Runtime, **options: Any) -> Self:
        """The configuration that a runtime has in force, with its endpoints' state. It has balancers of its own, so
        that what is explained takes no turn of a call's.
        """
        reject = runtime.unknown_hosts == "reject"
        return cls(runtime.plan.snapshot, reject_unknown=reject, runtime=runtime, **options)

    def explain(self, method: str, url: str, headers: HeaderInput = ()) -> Explanation:
        """Decide about one request as a call would, and say how. Raises ValueError for what is no HTTP request."""
        return self.explain_head(head_from(method, url, headers), url)

    def only_runtime(self, key: str) -> Explainer:
        """An explainer of the same configuration in which fractions of another runtime key never hold, and for "" none
        does: what Envoy's router check tool makes of `runtime`. Itself where there are no fractions.
        """
        if not any(map(has_fractions, self.route_configurations())):
            return self
        return Explainer(only_runtime(self._plan.snapshot, key), reject_unknown=self._reject_unknown, seed=0)

    def route_configurations(self) -> list[RouteConfiguration]:
        """Every route configuration calls are decided by, once."""
        outbound = self._plan.outbound
        lists = (*outbound.named.values(), *outbound.by_port.values(), outbound.rest)
        return list(
            {id(config): config for tables in lists for table in tables for config in table.configurations()}.values()
        )

    def explain_head(
        self,
        head: RequestHead,
        url: str = "",
        random_value: int | None = None,
        response_headers: Iterable[tuple[str, str]] = (),
    ) -> Explanation:
        """The same for a request that is a head already. `random_value` takes the place of chance in the choice of the
        route and of its cluster, as in Envoy's router check tool; `response_headers` are what an upstream would answer.
        """
        url = url or f"{head.scheme}://{head.authority}{head.path}"
        if self._plan.lanes is not None:
            head = entered(head, self._plan.lanes, "", time.time(), self._rng)
        result = Explanation(
            head.method, url, authority=head.authority, path=head.path, headers=facts.texts(head.headers)
        )
        host = self._plan.find(head.scheme, head.authority)
        if host is None:
            return self._unknown(result, head)
        result.listener = host.listener
        scoped, host = host, host.of(head)
        if host is None:
            result.response_flag, result.reason = ResponseFlag.NR, scoped.unmatched(head)
            result.failure_status = 404
            return result
        result.route_configuration = host.source.config.name
        result.virtual_host = host.table.config.name
        result.virtual_cluster = facts.virtual_cluster(host, head)
        fixed = None if random_value is None else FixedChance(host, head, random_value)
        if not self._brief:
            result.trials = self._tried(host, head) if fixed is None else facts.trials(host, head, fixed.again())
        answer = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response_headers]
        self._describe(result, decide(self._plan, host, head, fixed or self._rng), head, answer)
        result.by_chance = random_value is None and len(result.weights) > 1
        return result

    def _tried(self, host: VirtualHostPlan, head: RequestHead) -> list[dict[str, Any]]:
        """The routes tried. The state is put back, so that tracing draws the very numbers the decision then draws."""
        state = self._rng.getstate()
        trials = facts.trials(host, head, self._rng)
        self._rng.setstate(state)
        return trials

    def _unknown(self, result: Explanation, head: RequestHead) -> Explanation:
        result.response_flag = ResponseFlag.NR
        result.reason = f"no virtual host speaks for {head.authority!r}"
        if not self._reject_unknown:
            result.pass_through = True
            result.reason += ": the call leaves the mesh unchanged"
        return result

    def _describe(self, result: Explanation, decision: Decision, head: RequestHead, answer: RawHeaders) -> None:
        if decision.route is not None:
            result.route, result.route_index = decision.route.label, decision.route.index
        if not isinstance(decision, Refusal):
            result.filters = self._filtered(decision.share)
        result.cluster = decision.cluster_name or None
        match decision:
            case Refusal(flag=flag, reason=reason, status=status):
                result.response_flag, result.reason, result.failure_status = flag, reason, status
            case Answer():
                _answer(result, decision, prepared(decision, head, time.time))
            case Forward():
                self._forward(result, decision, prepared(decision, head, time.time), answer)

    def _forward(self, result: Explanation, decision: Forward, head: RequestHead, answer: RawHeaders) -> None:
        route, share, cluster = decision.route, decision.share, decision.cluster
        result.weights = facts.weights(route, share)
        if cluster.passthrough:
            result.pass_through = True
            result.reason = f"cluster {cluster.name!r} goes to the original destination"
            return
        terms = Terms(decision, head)
        result.timeouts, result.retry_policy = terms.timeouts(), terms.retry_policy()
        result.thresholds = facts.thresholds(decision)
        result.cluster_state = facts.cluster_state(cluster)
        result.overload_drops = {drop.category: drop.fraction for drop in cluster.drops}
        asks = cluster.by_request
        hasher = route.hasher if asks is None or asks.hasher is None else asks.hasher
        upstream = upstream_head(decision, terms.spoken, time.time)
        hashed = hasher(upstream, "", self._rng) if hasher is not None else None
        result.request_hash = hashed.hash if hashed is not None else None
        if not self._brief:
            result.balancing = self._balanced(decision)
        asked = asks.host(head, upstream, cluster.balancer) if asks is not None else None
        chosen = asked or (cluster.aggregate or cluster.balancer).pick(result.request_hash, share.criteria, self._rng)
        result.session, sticky = actions.session(decision, head, time.time())
        if result.session is not None and (
            sticky is not None or (result.session["strict"] and result.session["wanted"])
        ):
            chosen = sticky
        if chosen is None:
            result.response_flag = ResponseFlag.UH
            result.reason = f"no healthy endpoint in cluster {cluster.name!r}"
        else:
            result.endpoint = chosen.address
            result.chosen_because = chosen_because(
                result, cluster, chosen, asked=chosen is asked, session=chosen is sticky
            )
            limit = min(
                (found for found in (result.timeouts["route"], result.timeouts["per_try"]) if found), default=None
            )
            upstream = attempt_head(decision, head, upstream, chosen.endpoint.hostname, 1, limit)
        result.authority, result.path = upstream.authority, upstream.path
        result.headers = facts.texts(upstream.headers)
        result.mirrors = actions.mirrors(self._plan, decision, head, upstream) if chosen is not None else []
        result.internal_redirect = actions.internal_redirect(decision)
        mutate = share.response_headers
        if mutate is not None:
            answer = mutate(list(answer), upstream, lambda: facts.answered(decision, chosen, time.time()))
        result.response_headers = facts.texts(answer)

    def _filtered(self, share: Share) -> list[dict[str, Any]]:
        """The filters of a share, described once."""
        found = self._filters.get(id(share))
        if found is None:
            found = self._filters[id(share)] = facts.filters(share)
        return found

    def _balanced(self, decision: Forward) -> dict[str, Any]:
        """The balancer's report, made once where nothing happens that could change it."""
        key = (decision.cluster.name, decision.share.criteria)
        found = None if self._live else self._balancing.get(key)
        if found is None:
            found = self._balancing[key] = facts.balancing(decision.cluster, decision.share.criteria)
        return found


def _answer(result: Explanation, answer: Answer, head: RequestHead) -> None:
    result.authority = result.path = None
    result.headers = []
    headers, body = answer.content(head, time.time)
    result.response_headers = facts.texts(headers)
    if isinstance(answer.route.config.action, RedirectAction):
        result.redirect = {"status": answer.status, "location": answer.location}
    else:
        result.direct_response = {"status": answer.status, "body": body.decode("utf-8", "replace")}
