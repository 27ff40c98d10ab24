"""The path index and the domain index find what trying everything in turn finds."""

import random

from hypothesis import given
from hypothesis import strategies as st

from differential.routing_generate import AUTHORITIES, DOMAINS, asks, configurations
from differential.routing_ours import head_of
from meshlib.routing.hosts import DomainIndex
from meshlib.routing.router import RouteTable


@given(st.data())
def test_match_ends_where_trace_ends(data: st.DataObject) -> None:
    config = data.draw(configurations().shrinking())
    head = head_of(data.draw(asks(config).shrinking()))
    for host in RouteTable(config).virtual_hosts:
        last = host.trace(head, random.Random(0))[-1]
        assert host.match(head, random.Random(0)) == (last.index if last.matched else -1)


@given(st.lists(st.sampled_from(DOMAINS), unique_by=str.lower), st.sampled_from(AUTHORITIES))
def test_the_domain_index_agrees_with_trying_every_domain(domains: list[str], authority: str) -> None:
    host = authority.lower()
    fitting = [domain for domain in domains if _fits(domain.lower(), host)]
    assert DomainIndex((domain, domain) for domain in domains).find(authority) == min(fitting, key=_rank, default=None)


def _fits(domain: str, host: str) -> bool:
    if domain.startswith("*"):
        return host.endswith(domain[1:]) and len(host) > len(domain) - 1
    if domain.endswith("*"):
        return host.startswith(domain[:-1]) and len(host) > len(domain) - 1
    return domain == host


def _rank(domain: str) -> tuple[int, int]:
    kind = 3 if domain == "*" else 1 if domain.startswith("*") else 2 if domain.endswith("*") else 0
    return kind, -len(domain)
