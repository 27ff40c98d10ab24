"""Zone aware routing is fair: when all callers go by it, every zone gets the load that its endpoints can carry."""

from hypothesis import given
from hypothesis import strategies as st

from meshlib.balancing.cluster import ClusterBalancer
from meshlib.balancing.zones import WHOLE, callers_of, zone_shares
from meshlib.model.cluster import Cluster
from meshlib.model.endpoint import Locality
from meshlib.model.zones import ZoneAware
from meshlib.state.cells import ClusterState
from parts.balancing import assignment, endpoint, group

COUNTS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 40)), min_size=2, max_size=6)
ROUNDING = 0.01


@given(COUNTS.filter(lambda counts: sum(upstream > 0 for _, upstream in counts) > 1))
def test_every_zone_gets_its_share(counts: list[tuple[int, int]]) -> None:
    zones = [f"z{index}" for index in range(len(counts))]
    callers = assignment(
        *(group((endpoint(n) for n in range(count)), zone) for zone, (count, _) in zip(zones, counts, strict=True))
    )
    numbers = iter(range(10_000))
    upstream = assignment(
        *(group([endpoint(next(numbers)) for _ in range(count)], zone)
          for zone, (_, count) in zip(zones, counts, strict=True) if count)
    )  # fmt: skip
    state = ClusterState("c")
    (part,) = ClusterBalancer(Cluster("c"), upstream, state).whole()._parts
    places, healthy = [one.locality for one in part.localities], part.of("healthy")
    load = dict.fromkeys(places, 0.0)
    for zone, (count, _) in zip(zones, counts, strict=True):
        known = callers_of(callers, Locality(zone=zone))
        shares = zone_shares(ZoneAware(min_cluster_size=1), known, places, healthy, state.stats)
        assert shares is not None
        requests = count / sum(one for one, _ in counts)
        kept = shares.kept / WHOLE if shares.local is not None else 0.0
        assert 0.0 <= kept <= 1.0
        if shares.local is not None:
            load[places[shares.local]] += requests * kept
        rest = requests * (1 - kept)
        for place, residual in zip(places, shares.residual, strict=True) if rest and any(shares.residual) else ():
            load[place] += rest * residual / sum(shares.residual)
    total = sum(map(len, healthy))
    for place, hosts in zip(places, healthy, strict=True):
        assert abs(load[place] - len(hosts) / total) < ROUNDING, (place, load, counts)
