"""What a route does with a request beside sending it: its copies, the redirects it follows, its sticky sessions."""

from __future__ import annotations

from typing import Any

from meshlib.balancing.base import Host
from meshlib.engine.decision import Forward
from meshlib.engine.plan import Plan
from meshlib.engine.session import Session, choose
from meshlib.explain import facts
from meshlib.model.request import RequestHead


def mirrors(plan: Plan, decision: Forward, head: RequestHead, upstream: RequestHead) -> list[dict[str, Any]]:
    """The copies of a request that is sent as `upstream`; `percent` of such requests have this one."""
    actions = decision.share.actions
    found = []
    for mirror in () if actions is None else actions.mirrors:
        cluster = mirror.route.cluster_name(mirror.route.shares[0], head)
        copy = mirror.shadow(upstream)
        found.append(
            {
                "cluster": cluster,
                "exists": cluster in plan.clusters,
                "percent": 100 * mirror.fraction,
                "authority": copy.authority,
                "headers": facts.texts(copy.headers),
            }
        )
    return found


def internal_redirect(decision: Forward) -> dict[str, Any] | None:
    """The redirects that are followed."""
    actions = decision.share.actions
    if actions is None or actions.redirects is None:
        return None
    policy = actions.redirects.policy
    return {
        "codes": sorted(policy.codes),
        "max_internal_redirects": policy.max_internal_redirects,
        "allow_cross_scheme": policy.allow_cross_scheme,
        "safe_cross_scheme": policy.safe_cross_scheme,
        "previous_routes": policy.previous_routes,
        "allowed_routes": None if policy.allowed_routes is None else list(policy.allowed_routes),
        "headers_to_copy": list(policy.headers_to_copy),
    }


def session(decision: Forward, head: RequestHead, wall: float) -> tuple[dict[str, Any] | None, Host | None]:
    """What the request says of its session, and the endpoint it goes to by that."""
    actions = decision.share.actions
    if actions is None or not actions.sessions:
        return None, None
    found = Session(actions.sessions, head, wall)
    host = choose(decision.cluster, found.wanted) if found.wanted else None
    return {"wanted": found.wanted or None, "strict": found.strict, "honoured": host is not None}, host
