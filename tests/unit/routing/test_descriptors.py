"""Descriptors of requests by rate limit actions."""

from __future__ import annotations

from typing import Any

import pytest

from meshlib.context import CallHead, call_metadata
from meshlib.model.context_matchers import IpRanges
from meshlib.model.matcher_tree import Input
from meshlib.model.matchers import HeaderMatcher, Present, QueryParameterMatcher, StringMatcher
from meshlib.model.metadata import Metadata
from meshlib.model.rate_limits import (
    Descriptor,
    DescriptorLimit,
    DestinationCluster,
    GenericKey,
    HeaderValueMatch,
    HitsAddend,
    InputValue,
    MaskedRemoteAddress,
    MetadataLimit,
    MetadataValue,
    QueryParameterValue,
    QueryParameterValueMatch,
    RateLimit,
    RemoteAddress,
    RemoteAddressMatch,
    RequestHeader,
    SourceCluster,
)
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.routing.descriptors import Surroundings, applicable, compile_descriptors
from meshlib.routing.facts import CallFacts

FACTS = CallFacts(route="r", cluster="up", route_metadata=Metadata.of({"ns": {"plan": {"name": "gold"}, "size": 3}}))
AROUND = Surroundings("us", "up", FACTS, formatted=True)


class ServedHead(RequestHead):
    """A request that came from somewhere."""

    __slots__ = ("address",)

    @property
    def remote_address(self) -> str:
        return self.address


def head(path: str = "/a?q=1&q=2&n%41me=b%20c", source: str | None = None, **headers: str) -> RequestHead:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if source is None:
        return RequestHead("GET", "http", "shop", path, pairs)
    served = ServedHead("GET", "http", "shop", path, pairs)
    served.address = source
    return served


def entries(request: RequestHead, *actions: Any) -> tuple[tuple[str, str], ...] | None:
    """Those of the one descriptor, None where there is none."""
    make = compile_descriptors([RateLimit(actions)], AROUND)
    assert make is not None
    found = make(request)
    return found[0].entries if found else None


def exact(name: str, value: str) -> HeaderMatcher:
    return HeaderMatcher(name, StringMatcher("exact", value))


def parameter(name: str, value: str) -> QueryParameterMatcher:
    return QueryParameterMatcher(name, StringMatcher("exact", value))


INSIDE, OUTSIDE = IpRanges(("10.0.0.0/8",)), IpRanges(("10.0.0.0/8",), invert=True)


@pytest.mark.parametrize(
    "action,request_head,expected",
    [
        (SourceCluster(), head(), ("source_cluster", "us")),
        (DestinationCluster(), head(), ("destination_cluster", "up")),
        (RequestHeader("x-user", "user"), head(x_user="ann"), ("user", "ann")),
        (RequestHeader(":path", "path"), head("/p?x"), ("path", "/p?x")),
        (RequestHeader("x-user", "user"), head(), None),
        (QueryParameterValue("q", "q"), head(), ("q", "1")),
        (QueryParameterValue("nAme", "name"), head(), ("name", "b c")),
        (QueryParameterValue("none", "q"), head(), None),
        (RemoteAddress(), head(), ("remote_address", "127.0.0.1")),
        (RemoteAddress(), head(x_forwarded_for="1.2.3.4, 10.0.0.1"), ("remote_address", "10.0.0.1")),
        (RemoteAddress(), head(x_forwarded_for="nobody"), ("remote_address", "127.0.0.1")),
        (RemoteAddress(), head(source="9.9.9.9", x_forwarded_for="1.2.3.4"), ("remote_address", "9.9.9.9")),
        (RemoteAddress(), head(source="unix:/run/app"), None),
        (MaskedRemoteAddress(8, 64), head(source="10.1.2.3"), ("masked_remote_address", "10.0.0.0/8")),
        (MaskedRemoteAddress(8, 64), head(source="2001:db8:1:2:3::4"), ("masked_remote_address", "2001:db8:1:2::/64")),
        (MaskedRemoteAddress(), head(source="10.1.2.3"), ("masked_remote_address", "10.1.2.3/32")),
        (RemoteAddressMatch(INSIDE, "in"), head(source="10.1.2.3"), ("remote_address_match", "in")),
        (RemoteAddressMatch(INSIDE, "in"), head(source="11.1.2.3"), None),
        (RemoteAddressMatch(OUTSIDE, "out", "from"), head(source="11.1.2.3"), ("from", "out")),
        (GenericKey("v"), head(), ("generic_key", "v")),
        (GenericKey("v", "k"), head(), ("k", "v")),
        (GenericKey("%REQ(x-user)%-%ROUTE_NAME%"), head(x_user="ann"), ("generic_key", "ann-r")),
        (GenericKey("%REQ(x-user)%"), head(), None),
        (GenericKey("%REQ(x-user)%", default_value="nobody"), head(), ("generic_key", "nobody")),
        (HeaderValueMatch("v", (exact("a", "1"), exact("b", "2"))), head(a="1", b="2"), ("header_match", "v")),
        (HeaderValueMatch("v", (exact("a", "1"), exact("b", "2"))), head(a="1"), None),
        (HeaderValueMatch("v", (exact("a", "1"),), "k", expect_match=False), head(), ("k", "v")),
        (HeaderValueMatch("v", (exact("a", "1"),), expect_match=False), head(a="1"), None),
        (QueryParameterValueMatch("v", (parameter("nAme", "b c"),)), head(), ("query_match", "v")),
        (QueryParameterValueMatch("v", (parameter("q", "2"),)), head(), None),
        (QueryParameterValueMatch("v", (QueryParameterMatcher("none", Present(False)),)), head(), ("query_match", "v")),
        (MetadataValue("k", "ns", ("plan", "name"), source="ROUTE_ENTRY"), head(), ("k", "gold")),
        (MetadataValue("k", "ns", ("size",), source="ROUTE_ENTRY"), head(), None),
        (MetadataValue("k", "ns", ("size",), "d", source="ROUTE_ENTRY"), head(), ("k", "d")),
        (MetadataValue("k", "ns", ("plan", "name")), head(), None),
        (InputValue("k", Input("header", "x-user")), head(x_user="ann"), ("k", "ann")),
        (InputValue("k", Input("header", "x-user")), head(), None),
        (InputValue("k", Input("query_parameter", "q")), head(), ("k", "1")),
    ],
)  # fmt: skip
def test_what_each_action_adds(action: Any, request_head: RequestHead, expected: tuple[str, str] | None) -> None:
    assert entries(request_head, action) == (None if expected is None else (expected,))


@pytest.mark.parametrize(
    "action",
    [
        RequestHeader("x-none", "k", skip_if_absent=True),
        QueryParameterValue("none", "k", skip_if_absent=True),
        MetadataValue("k", "ns", ("none",), skip_if_absent=True),
    ],
)
def test_what_may_be_absent_leaves_the_rest(action: Any) -> None:
    assert entries(head(), SourceCluster(), action, GenericKey("v")) == (("source_cluster", "us"), ("generic_key", "v"))


def test_one_action_without_an_entry_leaves_no_descriptor() -> None:
    assert entries(head(), SourceCluster(), RequestHeader("x-none", "k"), GenericKey("v")) is None


def test_dynamic_metadata_is_that_of_the_call() -> None:
    request = CallHead("GET", "http", "shop", "/")
    limit = RateLimit((MetadataValue("k", "user", ("plan",)),), limit=MetadataLimit("user", ("limit",)))
    make = compile_descriptors([limit])
    assert make is not None
    assert make(request) == []
    with call_metadata({"user": {"plan": "gold", "limit": {"requests_per_unit": 5, "unit": "MINUTE"}}}):
        assert make(request) == [Descriptor((("k", "gold"),), DescriptorLimit(5, "MINUTE"))]
    with call_metadata({"user": {"plan": "gold", "limit": {"requests_per_unit": "5", "unit": "MINUTE"}}}):
        assert make(request) == [Descriptor((("k", "gold"),))]


@pytest.mark.parametrize(
    "addend,cost,expected",
    [
        (HitsAddend(3), "9", 3),
        (HitsAddend(3, negative=True), "9", -3),
        (HitsAddend(format="%REQ(x-cost)%"), "9", 9),
        (HitsAddend(format="%REQ(x-cost)%"), "2.9", 2),
        (HitsAddend(format="%REQ(x-cost)%"), "nine", None),
        (HitsAddend(format="%REQ(x-cost)%"), "-1", None),
        (HitsAddend(format="%REQ(x-cost)%"), "1e10", None),
        (HitsAddend(format="%REQ(x-cost)%"), "nan", None),
    ],
)
def test_how_much_a_request_counts_for(addend: HitsAddend, cost: str, expected: int | None) -> None:
    make = compile_descriptors([RateLimit((GenericKey("v"),), hits_addend=addend)])
    assert make is not None
    assert [found.hits_addend for found in make(head(x_cost=cost))] == ([] if expected is None else [expected])


def test_a_cluster_that_the_request_names() -> None:
    make = compile_descriptors(
        [RateLimit((DestinationCluster(),))], Surroundings(destination_cluster=lambda head: head.get("x-to") or "")
    )
    assert make is not None
    assert make(head(x_to="orders")) == [Descriptor((("destination_cluster", "orders"),))]


def test_operators_are_text_unless_values_are_formatted() -> None:
    make = compile_descriptors([RateLimit((GenericKey("%REQ(x-user)% 50%"),))])
    assert make is not None
    assert make(head(x_user="ann")) == [Descriptor((("generic_key", "%REQ(x-user)% 50%"),))]


def test_what_cannot_be_compiled_says_where() -> None:
    with pytest.raises(ResourceError) as refused:
        compile_descriptors([RateLimit(()), RateLimit((GenericKey("%REQ()%"),))], AROUND)
    assert refused.value.path.startswith("rate_limits[1].actions[0]")


ROUTE, HOST = RateLimit((GenericKey("route"),)), RateLimit((GenericKey("host"),))
LATER = RateLimit((GenericKey("later"),), stage=1)


@pytest.mark.parametrize(
    "route,include,option,stage,expected",
    [
        ((ROUTE,), False, "OVERRIDE", 0, (ROUTE,)),
        ((), False, "OVERRIDE", 0, (HOST,)),
        ((LATER,), False, "OVERRIDE", 0, ()),
        ((ROUTE,), True, "OVERRIDE", 0, (ROUTE, HOST)),
        ((ROUTE,), False, "INCLUDE", 0, (ROUTE, HOST)),
        ((ROUTE,), False, "IGNORE", 0, (ROUTE,)),
        ((), False, "IGNORE", 0, ()),
        ((), True, "IGNORE", 0, (HOST,)),
        ((ROUTE, LATER), False, "INCLUDE", 1, (LATER,)),
    ],
)
def test_which_rate_limits_count(
    route: tuple[RateLimit, ...], include: bool, option: Any, stage: int, expected: tuple[RateLimit, ...]
) -> None:
    assert applicable(route, (HOST,), include_virtual_host=include, option=option, stage=stage) == expected
