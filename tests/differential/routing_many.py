"""Many generated configurations in one, so that Envoy takes them at once: each has domains of its own."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

from differential.routing_generate import (
    actions,
    asks,
    configurations,
    named,
    request_mutations,
    response_mutations,
    route_actions,
)
from differential.routing_observed import ROUTE_HEADER, Ask
from meshlib.model.headers import HeaderMutations
from meshlib.model.matchers import PathMatcher, RouteMatch
from meshlib.model.route import Route, RouteConfiguration, VirtualHost

ALL = RouteMatch(PathMatcher("prefix", "/"))


@dataclass(frozen=True, slots=True)
class Batch:
    """`config` has the virtual hosts of all; `asked` has the requests with the virtual hosts they are drawn for."""

    config: RouteConfiguration
    asked: list[tuple[tuple[VirtualHost, ...], Ask]]


def batches(seed: int, hosts: int, per_batch: int = 60, requests_per_host: int = 10) -> Iterator[Batch]:
    """At least so many virtual hosts in all; the same ones for the same seed."""
    rng = random.Random(seed)
    left = hosts
    while left > 0:
        made = _batch(rng, min(per_batch, left), requests_per_host)
        left -= len(made.config.virtual_hosts)
        yield made


def _batch(rng: random.Random, hosts: int, requests_per_host: int) -> Batch:
    found: list[VirtualHost] = []
    asked: list[tuple[tuple[VirtualHost, ...], Ask]] = []
    config = configurations().by(rng)  # what is said beside virtual hosts is said for the whole batch
    while len(found) < hosts:
        name = f"n{len(found)}"
        one = configurations().by(rng)
        drawn = [asks(one).by(rng) for _ in range(requests_per_host * len(one.virtual_hosts))]
        own = tuple(_own(_completed(rng, host), name) for host in one.virtual_hosts)
        found += own
        asked += [(own, replace(ask, authority=within(ask.authority, name))) for ask in drawn]
    return Batch(replace(config, virtual_hosts=tuple(found)), asked)


def _completed(rng: random.Random, host: VirtualHost) -> VirtualHost:
    """Most virtual hosts have a last route for what no other takes, so that most requests meet an action."""
    if rng.random() < 0.25:
        return host
    mutations = {"request_headers": request_mutations.by(rng), "response_headers": response_mutations.by(rng)}
    action = rng.choice((actions, route_actions())).by(rng)
    last = Route(ALL, action, **mutations)
    return replace(host, routes=(*host.routes, named(f"{host.name}/last", last)))


def _own(host: VirtualHost, name: str) -> VirtualHost:
    domains = tuple(within(domain, name) for domain in host.domains)
    return replace(host, name=name + host.name, domains=domains, routes=tuple(_named(r, name) for r in host.routes))


def _named(route: Route, name: str) -> Route:
    *others, own = route.response_headers.add
    assert own.name == ROUTE_HEADER
    answers = HeaderMutations((*others, replace(own, value=name + own.value)), route.response_headers.remove)
    return replace(route, name=name + route.name, response_headers=answers)


def within(host: str, name: str) -> str:
    """A domain or an authority that no other name's domains match: `a.test:80` is `n1.a.test.n1:80`. A domain that
    begins or ends with `*` still does, but `*` alone is `*.n1`.
    """
    host, _, port = host.replace("[::1]", "one").partition(":")
    begin = "" if host.startswith("*") else f"{name}."
    end = "" if host.endswith("*") and host != "*" else f".{name}"
    return f"{begin}{host}{end}:{port}" if port else f"{begin}{host}{end}"
