import builtins
import random
from collections import Counter

import pytest

from meshlib.balancing.hash_key import hash_key
from meshlib.balancing.hashing import hash_function, murmur_hash_2
from meshlib.balancing.ring_hash import Ring, ring_hash
from meshlib.model.endpoint import Address, LbEndpoint, Locality
from meshlib.model.lb import RingHash
from meshlib.model.metadata import EMPTY_STRUCT, Metadata
from meshlib.model.report import ResourceError
from meshlib.state.cells import ClusterState
from parts.balancing import Bench, address, assignment, endpoint, flat, group


def host_of(lb_endpoint: LbEndpoint):  # type: ignore[no-untyped-def]
    return Bench(assignment(group([lb_endpoint]))).balancer.hosts[0]


@pytest.mark.parametrize(
    "data,value",
    [
        # what std::hash<std::string> of libstdc++ gave on x86-64
        (b"hello", 2762169579135187400),
        (b"world", 8751027807033337960),
        (b"foo", 9631199822919835226),
        (b"bar", 11474628671133349555),
        (b"", 6142509188972423790),
        (b"exactly8", 13580205909952649287),
        (b"10.0.0.1:80_17", 4437040220721654695),
    ],
)
def test_murmur_hash_2_is_libstdcxx_std_hash(data: bytes, value: int) -> None:
    assert murmur_hash_2(data) == value


def test_xx_hash_64_has_seed_zero() -> None:
    assert hash_function("XX_HASH")(b"foo") == 3728699739546630719


def test_without_xxhash_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name, *args, **keywords):  # type: ignore[no-untyped-def]
        if name == "xxhash":
            raise ImportError(name)
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResourceError, match=r"meshlib\[hash\]"):
        Bench(flat(2), lb_policy=RingHash())
    assert Bench(flat(2), lb_policy=RingHash(hash_function="MURMUR_HASH_2")).pick(1) is not None


def test_the_lookup_is_the_first_entry_at_or_after_the_hash_and_wraps() -> None:
    hosts = Bench(flat(3)).balancer.hosts
    ring = Ring([100, 300, 200], [hosts[0], hosts[2], hosts[1]])
    rng = random.Random(1)
    looked_up = {value: ring.pick(value, rng) for value in (0, 100, 101, 200, 201, 300, 301, 2**64 - 1)}
    expected = (hosts[0], hosts[0], hosts[1], hosts[1], hosts[2], hosts[2], hosts[0], hosts[0])
    assert tuple(looked_up.values()) == expected
    assert ring.pick(100, rng, 1) is hosts[1]
    assert ring.pick(300, rng, 1) is hosts[0]


def ring_of(weights: list[int], **policy: int) -> Ring:
    hosts = Bench(assignment(group(endpoint(i, weight) for i, weight in enumerate(weights)))).balancer.hosts
    total = sum(weights)
    ring = ring_hash(RingHash(**policy), hosts, [weight * 1.0 / total for weight in weights], ClusterState("c"))
    assert isinstance(ring, Ring)
    return ring


@pytest.mark.parametrize(
    "weights,policy,size",
    [
        ([1], {}, 1024),
        ([1, 1, 1], {}, 1026),  # 342 each: the smallest share is rounded up to whole entries
        ([1, 2], {}, 1026),  # 342 and 684
        ([1] * 2000, {}, 2000),  # one each at least
        ([1] * 4, {"minimum_ring_size": 1, "maximum_ring_size": 6}, 4),
        ([1] * 4, {"minimum_ring_size": 6, "maximum_ring_size": 6}, 6),  # 1.5 each: 2, 1, 2, 1
        ([1, 99], {"minimum_ring_size": 1, "maximum_ring_size": 10}, 10),
    ],
)
def test_ring_sizes(weights: list[int], policy: dict[str, int], size: int) -> None:
    assert len(ring_of(weights, **policy)) == size


def test_fractions_of_an_entry_are_carried_to_the_next_host() -> None:
    ring = ring_of([1] * 4, minimum_ring_size=6, maximum_ring_size=6)
    assert Counter(host.address for host in ring._hosts) == dict(zip(map(address, range(4)), (2, 1, 2, 1), strict=True))


def test_a_host_with_twice_the_weight_has_twice_the_entries() -> None:
    assert Counter(host.address for host in ring_of([1, 2])._hosts) == {address(0): 342, address(1): 684}


def test_the_key_is_hash_key_metadata_then_hostname_when_asked_then_address() -> None:
    plain = endpoint(1, hostname="a.example")
    keyed = endpoint(1, hostname="a.example", hash_key="shard-1")
    assert hash_key(host_of(plain), False) == b"10.0.0.1:80"
    assert hash_key(host_of(plain), True) == b"a.example"
    assert hash_key(host_of(endpoint(1)), True) == b"10.0.0.1:80"
    assert hash_key(host_of(keyed), False) == hash_key(host_of(keyed), True) == b"shard-1"
    assert hash_key(host_of(endpoint(1, hash_key="")), False) == b"10.0.0.1:80"
    assert hash_key(host_of(endpoint(1, hash_key=7)), False) == b"10.0.0.1:80"


@pytest.mark.parametrize(
    "where,key",
    [
        (Address("2001:db8:0:0::1", 443), b"[2001:db8::1]:443"),
        (Address("", 0, "/run/app.sock"), b"/run/app.sock"),
        (Address("fe80::1%eth0:x", 1), b"[fe80::1%eth0:x]:1"),
    ],
)
def test_addresses_are_written_as_envoy_prints_them(where: Address, key: bytes) -> None:
    assert hash_key(host_of(LbEndpoint(where)), False) == key


def test_the_same_hash_goes_to_the_same_host_whatever_the_rng() -> None:
    bench = Bench(flat(10), lb_policy=RingHash())
    other = Bench(flat(10), seed=99, lb_policy=RingHash())
    hashes = [random.Random(3).getrandbits(64) for _ in range(50)]
    assert [bench.pick(value) for value in hashes] == [other.pick(value) for value in hashes]


def test_without_a_hash_the_choice_is_random() -> None:
    picks = Bench(flat(4), lb_policy=RingHash()).picks(4_000)
    assert len(picks) == 4
    assert min(picks.values()) > 400


def test_a_retry_moves_along_the_ring() -> None:
    bench = Bench(flat(4), lb_policy=RingHash())
    value = 12345
    first = bench.balancer.pick(value, EMPTY_STRUCT, bench.rng)
    assert first is not None
    again = bench.balancer.pick(value, EMPTY_STRUCT, bench.rng, (first,), 20)
    assert again is not first
    assert again is bench.balancer.pick(value, EMPTY_STRUCT, bench.rng, (first,), 20)


def test_locality_weights_scale_the_shares_and_a_locality_without_one_has_no_place() -> None:
    groups = (
        group([endpoint(0)], "a", weight=3),
        group([endpoint(1)], "b", weight=1),
        group([endpoint(2)], "c"),
    )
    picks = Bench(assignment(*groups), lb_policy=RingHash(), locality_weighted=True).picks(8_000)
    assert set(picks) == {address(0), address(1)}
    assert 0.70 < picks[address(0)] / 8_000 < 0.80
    assert Locality(zone="c") in {host.locality for host in Bench(assignment(*groups)).balancer.hosts}


def test_degraded_hosts_have_no_place_while_one_is_healthy_and_all_of_it_when_none_is() -> None:
    mixed = Bench(assignment(group([endpoint(0), endpoint(1, health="DEGRADED")])), lb_policy=RingHash())
    assert mixed.picks(200) == {address(0): 200}
    only = Bench(assignment(group([endpoint(1, health="DEGRADED")])), lb_policy=RingHash())
    assert only.picks(20) == {address(1): 20}


def test_the_priority_is_chosen_by_the_hash_too() -> None:
    endpoints = assignment(
        group([endpoint(0), endpoint(1, health="UNHEALTHY")]), group([endpoint(2), endpoint(3)], priority=1)
    )
    bench = Bench(endpoints, lb_policy=RingHash())
    # P0 has health 70: percents 0-69 of the hash stay, the others spill over.
    assert {bench.pick(value) for value in range(70)} == {address(0)}
    assert {bench.pick(value) for value in range(70, 100)} <= {address(2), address(3)}


def test_metadata_of_another_namespace_is_no_hash_key() -> None:
    other = LbEndpoint(Address("10.0.0.1", 80), metadata=Metadata.of({"other": {"hash_key": "x"}}))
    assert hash_key(host_of(other), False) == b"10.0.0.1:80"
