"""The parts of the Consul source that decide: names, queries, indexes, bounds, and what outlives a loss of state."""

from __future__ import annotations

import random
from typing import Any

import pytest

from meshlib.model.endpoint import Address, LbEndpoint
from meshlib.model.report import Report, ResourceError
from meshlib.sources.consul.blocking import Answered, BlockingIndex, longest_answer
from meshlib.sources.consul.catalog import Catalog
from meshlib.sources.consul.health import Instance
from meshlib.sources.consul.instances import KnownInstances, assignment
from meshlib.sources.consul.names import ServiceName, named_service
from meshlib.sources.consul.query import HealthOptions, Target, chain_query, health_query
from meshlib.sources.consul.service import ConsulOptions
from meshlib.sources.consul.watches import FullJitter

NEWS = Answered(went_back=False, after_failure=False)
LOST = Answered(went_back=True, after_failure=True)


@pytest.mark.parametrize(
    "authority, expected",
    [
        ("payments", ServiceName("payments")),
        ("Payments:8080", ServiceName("payments")),
        ("payments.service.consul.", ServiceName("payments")),
        ("payments.service.dc2.consul", ServiceName("payments", datacenter="dc2")),
        ("payments.service.dc2.dc.consul", ServiceName("payments", datacenter="dc2")),
        ("canary.payments.service.consul:80", ServiceName("payments", "canary")),
        ("canary.payments.service.dc2.consul", ServiceName("payments", "canary", "dc2")),
        ("example.com", None),
        ("127.0.0.1:8080", None),
        ("[::1]:80", None),
        ("8080", None),
        ("payments.query.consul", None),
        ("service.consul", None),
        ("..", None),
        ("a/b", None),
        ("", None),
    ],
)
def test_names(authority: str, expected: ServiceName | None) -> None:
    assert named_service(authority) == expected


def test_another_domain() -> None:
    assert named_service("payments.service.corp.example", "corp.example") == ServiceName("payments")
    assert named_service("payments.service.consul", "corp.example") is None


def test_queries_are_escaped_and_in_order() -> None:
    target = Target("pay ments/../x", "dc2", filter='Service.Meta.v == "1"', tag="a&b", only_passing=True)
    options = HealthOptions(tags=("blue",), filter="true", near="_agent", namespace="ns")
    query = health_query(target, options)
    assert query.target([("index", "7"), ("stale", "")]) == (
        "/v1/health/service/pay%20ments%2F..%2Fx?passing=1&tag=blue&tag=a%26b"
        "&filter=%28Service.Meta.v+%3D%3D+%221%22%29+and+%28true%29&near=_agent&dc=dc2&ns=ns&index=7&stale"
    )
    assert chain_query("payments", "dc2").target() == "/v1/discovery-chain/payments?compile-dc=dc2"


@pytest.mark.parametrize("name", ["", ".", "..", "a\nb", "a\x7f"])
def test_names_that_cannot_stand_in_a_path(name: str) -> None:
    with pytest.raises(ResourceError):
        chain_query(name)


def test_the_index_rules() -> None:
    index = BlockingIndex()
    assert index.ask == 0
    assert index.answered(10) == NEWS
    assert index.ask == 10
    assert index.answered(10) == NEWS, "an answer need not be a change"
    assert index.answered(4) == Answered(went_back=True, after_failure=False)
    assert index.ask == 0, "start over"
    index.answered(4)
    assert index.ask == 4
    index.failed()
    assert index.ask == 0, "nobody knows what was missed"
    assert index.answered(2) == LOST
    index.answered(0)
    assert index.ask == 0, "below the index before it, which is 2"
    index.answered(0)
    assert index.ask == 1, "never 0 while waiting"
    index.answered(None)
    assert index.ask == 0


def test_an_answer_may_take_the_wait_and_its_jitter() -> None:
    assert longest_answer(60, 10) == 60 + 3.75 + 10


def test_back_off_is_full_jitter_and_bounded() -> None:
    rng, policy = random.Random(1), FullJitter(0.25, 5.0)
    for failures, most in ((1, 0.25), (2, 0.5), (5, 4.0), (6, 5.0), (100_000, 5.0)):
        delays = [policy.delay(failures, rng) for _ in range(200)]
        assert max(delays) < most
        assert max(delays) > 0.9 * most
        assert min(delays) < 0.1 * most


def instance(name: str, port: int = 80) -> Instance:
    return Instance(("node", name), LbEndpoint(Address("10.0.0.1", port), health_status="HEALTHY"))


def critical(name: str) -> Instance:
    return Instance(("node", name), LbEndpoint(Address("10.0.0.1", 80), health_status="UNHEALTHY"))


def test_instances_outlive_a_loss_of_state_for_a_while() -> None:
    known = KnownInstances()
    a, b, changed_b = instance("a"), instance("b"), instance("b", 81)
    assert known.tell((a, b), keep_until=None)
    assert not known.tell((), keep_until=100.0), "nothing is different: both are kept"
    assert known.current == (a, b)
    assert known.tell((changed_b,), keep_until=None), "told of again: as it is now"
    assert known.current == (changed_b, a)
    assert not known.tell((changed_b, critical("a")), keep_until=None), "an agent that has just started says so of all"
    assert known.tell((critical("a"),), keep_until=None), "b was told of as well, so that it has gone is a fact"
    assert known.current == (a,)
    assert not known.expire(99.0)
    assert known.expire(100.0)
    assert (known.current, known.until) == ((critical("a"),), None)
    assert known.tell((), keep_until=None), "after the grace Consul is believed"


def test_priorities_are_in_the_order_of_failover_and_without_gaps() -> None:
    a, b, c = instance("a"), instance("b"), instance("c")
    found = assignment("x", [[], [a], [], [b, c]])
    assert [(part.priority, len(part.endpoints)) for part in found.localities] == [(0, 1), (1, 2)]
    assert found.overprovisioning_factor == 100_000, "not before nothing is left"
    near = assignment("x", [[c, b, a]], nearest=2)
    assert [part.priority for part in near.localities] == [0, 1]
    assert near.localities[0].endpoints == (b.endpoint, c.endpoint)
    assert assignment("x", [[a, b]]) == assignment("x", [[b, a]]), "Consul's order is no change"
    assert assignment("x", []).localities == ()


# The catalog ----------------------------------------------------------------------------------------------------------


def chain(service: str, *, subsets: tuple[str, ...] = ()) -> dict[str, Any]:
    """A chain as Consul writes it: the default one, or a split over subsets."""
    names = [f"{subset}.{service}.default.default.dc1" for subset in subsets] or [f"{service}.default.default.dc1"]
    nodes: dict[str, Any] = {
        f"resolver:{name}": {"Type": "resolver", "Name": name, "Resolver": {"Target": name}} for name in names
    }
    start = f"resolver:{names[0]}"
    if subsets:
        start = f"splitter:{service}"
        splits = [{"Weight": 100 / len(names), "NextNode": f"resolver:{name}"} for name in names]
        nodes[start] = {"Type": "splitter", "Name": service, "Splits": splits}
    targets = {
        name: {
            "ID": name,
            "Service": service,
            "ServiceSubset": subset,
            "Datacenter": "dc1",
            "Subset": {"Filter": f"v == {name[:2]}"},
        }
        for name, subset in zip(names, subsets or ("",), strict=True)
    }
    told = {"ServiceName": service, "Datacenter": "dc1", "StartNode": start, "Nodes": nodes, "Targets": targets}
    return {"Chain": {**told, **({} if subsets else {"Default": True})}}


def rows(*ports: int) -> list[dict[str, Any]]:
    return [
        {"Node": {"Node": "n", "Address": "10.0.0.1"}, "Service": {"ID": f"i{port}", "Port": port}, "Checks": []}
        for port in ports
    ]


class Told:
    """A catalog that is told things at moments of our choosing."""

    def __init__(self, *declared: str) -> None:
        self.catalog = Catalog(ConsulOptions(reset_grace=60.0))
        self.report = Report()
        self.now = 0.0
        for name in declared:
            self.catalog.declare(ServiceName(name))

    def chain(self, answer: dict[str, Any], index: Answered = NEWS) -> bool:
        (query,) = (query for query in self.catalog.queries() if "discovery-chain" in query.path)
        return self.catalog.tell(query, answer, index, self.now, self.report)

    def health(self, answer: Any, which: str = "", index: Answered = NEWS) -> bool:
        (query,) = (query for query in self.catalog.queries() if "health" in query.path and which in str(query.params))
        return self.catalog.tell(query, answer, index, self.now, self.report)

    def endpoints(self) -> dict[str, list[int]]:
        return {
            name.partition(".")[0]: [e.address.port for part in found.localities for e in part.endpoints]
            for name, found in self.catalog.snapshot().endpoints.items()
        }


def test_a_chain_is_in_force_when_all_it_routes_to_is_known() -> None:
    told = Told("payments")
    assert not told.catalog.is_settled
    assert not told.chain(chain("payments", subsets=("v1", "v2")))
    assert told.health(rows(1), "v1")
    assert told.endpoints() == {}
    assert told.health(rows(2), "v2")
    assert told.catalog.is_settled
    assert told.endpoints() == {"v1": [1], "v2": [2]}
    assert not told.chain(chain("payments", subsets=("v1", "v2"))), "the same again"
    told.chain(chain("payments", subsets=("v1", "v3")))
    assert told.endpoints() == {"v1": [1], "v2": [2]}, "nobody has told of v3 yet"
    assert told.health(rows(3), "v3")
    assert told.endpoints() == {"v1": [1], "v3": [3]}
    assert not [query for query in told.catalog.queries() if "v2" in str(query.params)]


def test_a_chain_outlives_a_loss_of_state() -> None:
    told = Told("payments")
    told.chain(chain("payments", subsets=("v1", "v2")))
    told.health(rows(1), "v1")
    told.health(rows(2), "v2")
    assert not told.chain(chain("payments"), LOST)
    assert not told.health([], "v1", LOST)
    assert told.endpoints() == {"v1": [1], "v2": [2]}
    assert told.catalog.deadline == 60.0
    told.now = 61.0
    assert told.catalog.settle(told.now)
    told.health(rows(7), "pa")
    assert told.endpoints() == {"payments": [7]}


def test_a_chain_that_is_taken_away_on_purpose_goes_at_once() -> None:
    told = Told("payments")
    told.chain(chain("payments", subsets=("v1",)))
    told.health(rows(1), "v1")
    told.chain(chain("payments"))
    told.health(rows(7), "pa")
    assert told.endpoints() == {"payments": [7]}


def test_unknown_is_absent_and_empty_is_not() -> None:
    told = Told()
    told.catalog.ask("payments:80", ServiceName("payments"))
    told.catalog.ask("example.com", None)
    told.chain(chain("payments"))
    told.health([])
    assert told.catalog.snapshot().absent == {"payments:80", "example.com"}
    told.health(rows(1))
    assert list(told.catalog.snapshot().listeners) == ["payments:80"]
    told.health([])
    assert told.catalog.snapshot().absent == {"example.com"}
    assert told.endpoints() == {"payments": []}


def test_what_is_unknown_does_not_add_up() -> None:
    catalog = Catalog(ConsulOptions())
    for number in range(100):
        name = f"s{number}"
        catalog.ask(name, ServiceName(name))
        (query,) = (query for query in catalog.queries() if query.path.endswith(f"/{name}"))
        catalog.tell(query, chain(name), NEWS, 0.0, Report())
        (query,) = (query for query in catalog.queries() if query.path == f"/v1/health/service/{name}")
        catalog.tell(query, [], NEWS, 0.0, Report())
    gone = catalog.give_up()
    assert gone == [f"s{number}" for number in range(36)]
    assert len(catalog.queries()) == 2 * 64
    for number in range(2000):
        catalog.ask(f"{number}.example.com", None)
    assert len(catalog.give_up()) == 2000 - 1024


@pytest.mark.parametrize(
    "answer", [None, [], 3, {}, {"Chain": []}, {"Chain": {"StartNode": 1}}, {"Chain": {"Nodes": {"a": {"Type": "x"}}}}]
)
def test_a_chain_that_is_none_is_told_and_changes_nothing(answer: Any) -> None:
    told = Told("payments")
    told.chain(chain("payments"))
    told.health(rows(1))
    assert not told.chain(answer)
    assert [issue.severity for issue in told.report.issues] == ["error"]
    assert told.endpoints() == {"payments": [1]}


def test_a_row_that_is_no_good_leaves_the_others() -> None:
    told = Told("payments")
    told.chain(chain("payments"))
    bad = [{"Node": {}}, {"Node": {"Node": "n"}, "Service": {"ID": "x", "Port": 0}}, 7]
    told.health([*bad, *rows(1)])
    assert told.endpoints() == {"payments": [1]}
    assert len(told.report.issues) == 3
