"""Names to addresses in an assignment, and families of addresses in an answer."""

from typing import Any

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.dns import Dns
from meshlib.model.endpoint import Address, ClusterLoadAssignment, LbEndpoint, Locality, LocalityLbEndpoints
from meshlib.model.metadata import Metadata
from meshlib.resolve.expand import expand, names_of
from meshlib.resolve.lookup import LookupFailedError, in_families
from meshlib.resolve.names import Answer

META = Metadata.of({"envoy.lb": {"version": "1"}})
KNOWN = {"a.test": ("10.0.0.2", "10.0.0.1"), "b.test": ("fd00::1",), "gone.test": ()}


def cluster(kind: Any, *names: str, **fields: Any) -> Cluster:
    groups = tuple(
        LocalityLbEndpoints(
            (LbEndpoint(Address(name, 80), 3, "DEGRADED", metadata=META),), Locality(zone=f"z{number}"), number, 7
        )
        for number, name in enumerate(names)
    )
    return Cluster("c", kind, load_assignment=ClusterLoadAssignment("c", groups, 120), **fields)


def test_strict_every_address_is_an_endpoint_where_its_name_was() -> None:
    made = cluster("STRICT_DNS", "a.test", "b.test", "gone.test", "unknown.test", "192.0.2.1")
    assert [question.name for question in names_of(made)] == ["a.test", "b.test", "gone.test", "unknown.test"]
    found = expand(made, KNOWN.get)
    assert found.overprovisioning_factor == 120
    assert [[str(endpoint.address) for endpoint in group.endpoints] for group in found.localities] == [
        ["10.0.0.1:80", "10.0.0.2:80"],  # in an order of their own: servers turn answers round
        ["[fd00::1]:80"],
        [],
        [],
        ["192.0.2.1:80"],
    ]
    first = found.localities[0].endpoints[0]
    assert (first.weight, first.health_status, first.metadata, first.hostname) == (3, "DEGRADED", META, "a.test")
    assert [(group.priority, group.weight, group.locality.zone) for group in found.localities] == [
        (number, 7, f"z{number}") for number in range(5)
    ]


@pytest.mark.parametrize(("family", "dialled"), [("AUTO", ["10.0.0.2:80"]), ("ALL", ["10.0.0.2:80", "10.0.0.1:80"])])
def test_logical_one_endpoint_keeps_its_name(family: Any, dialled: list[str]) -> None:
    found = expand(cluster("LOGICAL_DNS", "a.test", dns=Dns(lookup_family=family)), KNOWN.get)
    (endpoint,) = found.localities[0].endpoints
    assert str(endpoint.address) == "a.test:80"
    assert endpoint.hostname == "a.test"
    assert [str(address) for address in endpoint.targets] == dialled
    assert expand(cluster("LOGICAL_DNS", "gone.test"), KNOWN.get).localities[0].endpoints == ()


V4, V6 = Answer(("10.0.0.1", "10.0.0.2"), 30.0), Answer(("fd00::1",), 10.0)
LOOP4, LOOP6 = Answer(("127.0.0.1",)), Answer(("::1",))
NONE = Answer(())


@pytest.mark.parametrize(
    ("family", "v4", "v6", "wanted"),
    [
        ("V4_ONLY", V4, V6, V4.addresses),
        ("V4_ONLY", NONE, V6, ()),
        ("V6_ONLY", V4, V6, V6.addresses),
        ("AUTO", V4, V6, V6.addresses),
        ("AUTO", V4, NONE, V4.addresses),
        ("AUTO", V4, None, V4.addresses),
        ("AUTO", NONE, NONE, ()),
        ("AUTO", LOOP4, LOOP6, LOOP4.addresses),  # localhost: what listens there listens on IPv4
        ("AUTO", NONE, LOOP6, LOOP6.addresses),
        ("V4_PREFERRED", V4, V6, V4.addresses),
        ("V4_PREFERRED", NONE, V6, V6.addresses),
        ("V4_PREFERRED", None, V6, V6.addresses),
        ("ALL", V4, V6, ("fd00::1", "10.0.0.1", "10.0.0.2")),
        ("ALL", None, V6, V6.addresses),
        ("ALL", V4, NONE, V4.addresses),
        ("ALL", None, NONE, None),
        ("AUTO", NONE, None, None),  # half an answer that there is nothing is none
        ("AUTO", None, None, None),
    ],
)
def test_families(family: Any, v4: Answer | None, v6: Answer | None, wanted: tuple[str, ...] | None) -> None:
    def give(answer: Answer | None) -> Any:
        def asked(name: str) -> Answer:
            if answer is None:
                raise LookupFailedError(name)
            return answer

        return asked

    def found() -> tuple[str, ...]:
        return in_families(Dns(lookup_family=family), give(v4), give(v6), "x").addresses

    if wanted is None:
        with pytest.raises(LookupFailedError):
            found()
    else:
        assert found() == wanted


def test_the_shorter_time_to_live_counts() -> None:
    assert in_families(Dns(lookup_family="ALL"), lambda _: V4, lambda _: V6, "x").ttl == 10.0
