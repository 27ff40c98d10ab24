"""Routes that mirror and redirect, and requests for them, by a seed: the same ones every time.

None allows redirects from http to https: those are sent over TLS here (`call_differences`, 9).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
PREDICATES = "type.googleapis.com/envoy.extensions.internal_redirect"
PREVIOUS = {"name": "previous", "typed_config": {"@type": f"{PREDICATES}.previous_routes.v3.PreviousRoutesConfig"}}
SAFE = {"name": "safe", "typed_config": {"@type": f"{PREDICATES}.safe_cross_scheme.v3.SafeCrossSchemeConfig"}}


def allowed(names: list[str]) -> Json:
    kind = f"{PREDICATES}.allow_listed_routes.v3.AllowListedRoutesConfig"
    return {"name": "allowed", "typed_config": {"@type": kind, "allowed_route_names": names}}


@dataclass(frozen=True)
class Asked:
    """A request; `location` and `code` are what the endpoint answers by."""

    path: str
    method: str = "GET"
    host: str = "mesh.test"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def mirror_policy(rng: random.Random) -> Json:
    policy: Json = (
        {"cluster_header": "x-mirror-to"}
        if rng.random() < 0.2
        else {"cluster": rng.choice(["shadow", "shadow", "other-shadow", "nowhere"])}
    )
    if rng.random() < 0.3:
        policy["disable_shadow_host_suffix_append"] = rng.random() < 0.7
    if rng.random() < 0.3:
        policy["host_rewrite_literal"] = rng.choice(["copy.test", "copy.test:81"])
    if rng.random() < 0.4:
        share = rng.choice([0, 100])
        policy["runtime_fraction"] = {"default_value": {"numerator": share, "denominator": "HUNDRED"}}
    if rng.random() < 0.4:
        policy["request_headers_mutations"] = [mutation(rng) for _ in range(rng.randint(1, 4))]
    return policy


def mutation(rng: random.Random) -> Json:
    name = rng.choice(["x-a", "x-b", "x-new"])
    if rng.random() < 0.3:
        return {"remove": name}
    actions = ["APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS_OR_ADD", "OVERWRITE_IF_EXISTS"]
    value = rng.choice(["one", "two", "%REQ(x-b)%"])
    return {"append": {"header": {"key": name, "value": value}, "append_action": rng.choice(actions)}}


def redirect_policy(rng: random.Random, names: list[str]) -> Json:
    policy: Json = {}
    if rng.random() < 0.5:
        policy["max_internal_redirects"] = rng.choice([0, 1, 2, 4])
    if rng.random() < 0.6:
        policy["redirect_response_codes"] = rng.sample([301, 302, 303, 307, 308], rng.randint(1, 5))
    if rng.random() < 0.4:
        policy["response_headers_to_copy"] = rng.sample(["x-given", "x-a", "x-absent"], rng.randint(1, 3))
    predicates = []
    if rng.random() < 0.3:
        predicates.append(PREVIOUS)
    if rng.random() < 0.3:
        predicates.append(allowed(rng.sample(names, len(names) // 2)))
    if rng.random() < 0.3:
        predicates.append(SAFE)
    if predicates:
        policy["predicates"] = predicates
    return policy


def rewrites(rng: random.Random) -> Json:
    found: Json = {}
    if rng.random() < 0.3:
        found["prefix_rewrite"] = rng.choice(["/", "/new/", "/n"])
    kind = rng.random()
    if kind < 0.2:
        found["host_rewrite_literal"] = "written.test"
    elif kind < 0.3:
        found["host_rewrite_header"] = "x-b"
    return found


def routes(rng: random.Random, count: int) -> list[Json]:
    names = [f"r{number}" for number in range(count)]
    return [_route(rng, name, names) for name in names]


def _route(rng: random.Random, name: str, names: list[str]) -> Json:
    action: Json = {"cluster": "main", **rewrites(rng)}
    if rng.random() < 0.6:
        action["request_mirror_policies"] = [mirror_policy(rng) for _ in range(rng.randint(1, 3))]
    kind = rng.random()
    if kind < 0.6:
        action["internal_redirect_policy"] = redirect_policy(rng, names)
    elif kind < 0.7:
        action["internal_redirect_action"] = "HANDLE_INTERNAL_REDIRECT"
    route: Json = {"name": name, "match": {"prefix": f"/{name}/"}, "route": action}
    if rng.random() < 0.3:
        route["request_headers_to_add"] = [{"header": {"key": "x-a", "value": name}}]
    return route


def requests(rng: random.Random, names: list[str], count: int) -> list[Asked]:
    return [_asked(rng, names) for _ in range(count)]


def _asked(rng: random.Random, names: list[str]) -> Asked:
    headers = {"x-a": "a", "x-b": "b.test"} if rng.random() < 0.7 else {"x-b": "c.test:8080"}
    if rng.random() < 0.5:
        headers["x-mirror-to"] = rng.choice(["shadow", "nowhere"])
    if rng.random() < 0.8:
        headers["x-code"] = str(rng.choice([301, 302, 302, 302, 303, 307, 308]))
        headers["x-loc"] = location(rng, names)
    method = rng.choice(["GET", "GET", "POST", "PUT", "HEAD"])
    body = b"body of some length" if method in ("POST", "PUT") else b""
    host = rng.choice(["mesh.test", "mesh.test:8080", "other.test"])
    return Asked(f"/{rng.choice(names)}/x?y=1", method, host, headers, body)


def location(rng: random.Random, names: list[str]) -> str:
    path = f"/{rng.choice(names)}/{rng.choice(['', 'a', 'a?b=c', 'a#f', 'a?b#f'])}"
    host = rng.choice(["mesh.test", "mesh.test:80", "other.test", "nobody.test", "u:p@mesh.test"])
    strange = ["", "/relative", "//mesh.test/r0/", "http:///r0/", "http://mesh.test", "http://mesh.test?x=1", "junk"]
    if rng.random() < 0.15:
        return rng.choice(strange)
    return f"{rng.choice(['http', 'http', 'http', 'https', 'HTTP'])}://{host}{path}"
