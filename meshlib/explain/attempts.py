"""What bounds a call and what it is tried again for, as JSON-like values: by the route and by the request's headers."""

from __future__ import annotations

from typing import Any

from meshlib.engine.decision import Forward
from meshlib.engine.extras import NONE, heard, rules_for, timeout_for
from meshlib.model.outcome import Failure
from meshlib.model.request import RequestHead
from meshlib.policy.asked import Asked
from meshlib.policy.retry import RetryRules
from meshlib.routing.matchers import HeaderPredicate


class Terms:
    """The timeouts and the retry rules of one request, after its `x-envoy-*` headers were heard; `spoken` is the
    request without them.
    """

    def __init__(self, decision: Forward, head: RequestHead) -> None:
        route = decision.route
        self._decision = decision
        self.spoken, asked = heard(head)
        extras = route.extras or NONE
        usual = asked is None and route.extras is None
        self._asked: Asked | None = asked
        self._rules: RetryRules | None = route.retry if usual else rules_for(route.retry, extras, asked, head)
        self._timeout = route.timeout if usual else timeout_for(route, extras, asked, head, None)
        wished = asked.hedge if asked is not None else None
        self._hedges = extras.hedges if wished is None else wished

    def timeouts(self) -> dict[str, float | None]:
        """Seconds. Of the two idle limits only the shorter one can ever fire."""
        rules, idle = self._rules, self._decision.route.idle
        final = idle is not None and idle.failure is Failure.IDLE
        cluster = self._decision.cluster
        return {
            "route": self._timeout,
            "per_try": rules.per_try_timeout if rules else None,
            "idle": idle.seconds if idle and final else None,
            "per_try_idle": idle.seconds if idle and not final else None,
            "connect": cluster.connect_timeout,
            "stream": cluster.longest_stream,
        }

    def retry_policy(self) -> dict[str, Any] | None:
        """The retry policy in force: the route's, else the virtual host's, and what the request adds to it."""
        if self._rules is None:
            return None
        policy = self._rules.policy
        limited = policy.rate_limited_back_off
        hedges = self._hedges and bool(policy.per_try_timeout)
        return {
            "retry_on": list(policy.retry_on),
            "num_retries": policy.num_retries,
            "per_try_timeout": policy.per_try_timeout,
            "retriable_status_codes": list(policy.retriable_status_codes),
            "retriable_headers": [HeaderPredicate(matcher).describe() for matcher in policy.retriable_headers],
            "retriable_request_headers": [
                HeaderPredicate(matcher).describe() for matcher in policy.retriable_request_headers
            ],
            "base_interval": policy.base_interval,
            "max_interval": policy.max_interval,
            "reset_headers": [header.name for header in limited.reset_headers] if limited else [],
            "previous_hosts": policy.previous_hosts,
            "omit_canary_hosts": policy.omit_canary_hosts,
            "previous_priorities": policy.previous_priorities,
            "hedge_on_per_try_timeout": hedges,
        }
