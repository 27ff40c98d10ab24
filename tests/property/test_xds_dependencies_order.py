"""Whatever order things arrive in, no snapshot is torn, and in the end it is what the control plane has."""

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from meshlib.model.snapshot import Snapshot
from meshlib.sources.xds.decode.references import Resource, references
from meshlib.sources.xds.dependencies import Dependencies, Key
from meshlib.sources.xds.types import CLUSTER, CLUSTER_LOAD_ASSIGNMENT, LISTENER, ROUTE_CONFIGURATION, WILDCARD
from parts.xds_models import assignment, cluster, listener, routes

GRACE = 2.0
LISTENERS, ROUTES, CLUSTERS, SERVICES = ("l0", "l1"), ("r0", "r1"), ("c0", "c1", "c2"), ("s0", "s1", "s2")
_numbers = st.integers(1, 5)

resources = st.one_of(
    st.builds(
        lambda n, r, i: (LISTENER, n, listener(n, r, str(i))), *map(st.sampled_from, (LISTENERS, ROUTES)), _numbers
    ),
    st.builds(
        lambda n, c: (ROUTE_CONFIGURATION, n, routes(n, *sorted(c))),
        st.sampled_from(ROUTES),
        st.sets(st.sampled_from(CLUSTERS), min_size=1),
    ),
    st.builds(
        lambda n, s, i: (CLUSTER, n, cluster(n, s, float(i))), *map(st.sampled_from, (CLUSTERS, SERVICES)), _numbers
    ),
    st.builds(lambda n, p: (CLUSTER_LOAD_ASSIGNMENT, n, assignment(n, p)), st.sampled_from(SERVICES), _numbers),
)
KEYS = [
    *((LISTENER, n) for n in LISTENERS),
    *((ROUTE_CONFIGURATION, n) for n in ROUTES),
    *((CLUSTER, n) for n in CLUSTERS),
    *((CLUSTER_LOAD_ASSIGNMENT, n) for n in SERVICES),
]


class AnyOrder(RuleBasedStateMachine):
    """A control plane that changes its mind, and a network that delivers any subscribed resource at any time."""

    @initialize(wildcard=st.booleans())
    def begin(self, wildcard: bool) -> None:
        self.wildcard = wildcard
        self.dependencies = Dependencies(wildcard=wildcard, grace=GRACE, first_grace=GRACE)
        for name in LISTENERS:
            self.dependencies.want(name)
        self.truth: dict[Key, Resource] = {}
        self.known: dict[Key, Resource | None] = {}  # what was delivered last; None: said not to exist
        self.now = 0.0
        self.snapshot: Snapshot | None = None
        self.missing_before: set[Key] = set()
        self.settle()

    def settle(self) -> None:
        found = self.dependencies.settle(self.now)
        wanted = self.dependencies.subscriptions()
        for type_url, name in list(self.known):
            if name not in wanted[type_url] and WILDCARD not in wanted[type_url]:
                del self.known[type_url, name]  # unsubscribed: the client forgets it
        if found is not None:
            self.snapshot = found
            self.check(found)

    @rule(item=resources)
    def the_control_plane_changes(self, item: tuple[str, str, Resource]) -> None:
        type_url, name, resource = item
        self.truth[type_url, name] = resource

    @rule(key=st.sampled_from(KEYS))
    def the_control_plane_removes(self, key: Key) -> None:
        self.truth.pop(key, None)

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=4))
    def some_arrive(self, keys: list[Key]) -> None:
        for key in keys:
            self.deliver(key)
        self.settle()

    @rule(seconds=st.sampled_from([0.1, 1.0, 2.5]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.settle()

    def deliver(self, key: Key) -> None:
        type_url, name = key
        names = self.dependencies.subscriptions()[type_url]
        is_unasked = WILDCARD in names
        if name not in names and not is_unasked:
            return
        resource = self.truth.get(key)
        if resource is not None:
            self.dependencies.update(type_url, name, resource, references(resource))
            self.known[key] = resource
        elif not is_unasked or self.known.get(key) is not None:  # of a wildcard only what was sent can be removed
            self.dependencies.remove(type_url, name)
            self.known[key] = None
        if is_unasked:
            self.dependencies.answered(type_url)

    def check(self, snapshot: Snapshot) -> None:
        """Everything a request can come to is there, or is known not to be.

        What was missing before may stay missing: that it did not exist is then its active version, and what has come
        since waits for its own dependencies.
        """
        missing = set(self.missing_from(snapshot))
        torn = {key for key in missing - self.missing_before if not self.is_absent(key)}
        assert torn == set()
        self.missing_before = missing

    def missing_from(self, snapshot: Snapshot) -> Iterator[Key]:
        for found in snapshot.listeners.values():
            yield from ((ROUTE_CONFIGURATION, n) for n in references(found).routes if n not in snapshot.routes)
        for configuration in snapshot.routes.values():
            yield from ((CLUSTER, n) for n in references(configuration).clusters if n not in snapshot.clusters)
        for item in snapshot.clusters.values():
            if item.endpoints_name not in snapshot.endpoints:
                yield (CLUSTER_LOAD_ASSIGNMENT, item.endpoints_name)

    def is_absent(self, key: Key) -> bool:
        if key in self.known:
            return self.known[key] is None
        return self.wildcard and key[0] == CLUSTER and self.now >= GRACE  # never sent: given up after the grace

    @invariant()
    def routes_without_a_listener_are_not_published(self) -> None:
        if getattr(self, "snapshot", None) is None:
            return
        assert self.snapshot is not None
        referred = {name for found in self.snapshot.listeners.values() for name in references(found).routes}
        assert set(self.snapshot.routes) <= referred

    def teardown(self) -> None:
        if not hasattr(self, "dependencies"):
            return
        for _ in range(6):  # LDS, RDS, CDS, EDS, and what was dropped and is asked for again
            for key in KEYS:
                self.deliver(key)
            if self.wildcard:
                self.dependencies.answered(LISTENER)
                self.dependencies.answered(CLUSTER)
            self.now += GRACE
            self.settle()
        assert self.snapshot is not None
        self.is_the_truth(self.snapshot)

    def is_the_truth(self, snapshot: Snapshot) -> None:
        wanted = {name: self.truth[LISTENER, name] for name in LISTENERS if (LISTENER, name) in self.truth}
        assert snapshot.listeners == wanted
        for type_url, published in (
            (ROUTE_CONFIGURATION, snapshot.routes),
            (CLUSTER, snapshot.clusters),
            (CLUSTER_LOAD_ASSIGNMENT, snapshot.endpoints),
        ):
            for name, resource in published.items():
                # What was removed while in use stays as it was; all that exists is the newest.
                assert self.truth.get((type_url, name), resource) == resource


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.permutations(range(4)))
def test_all_orders_of_the_first_four(order: list[int]) -> None:
    parts: list[tuple[str, str, Resource]] = [
        (LISTENER, "l0", listener("l0", "r0")),
        (ROUTE_CONFIGURATION, "r0", routes("r0", "c0")),
        (CLUSTER, "c0", cluster("c0", "s0")),
        (CLUSTER_LOAD_ASSIGNMENT, "s0", assignment("s0")),
    ]
    dependencies = Dependencies(wildcard=True)
    dependencies.answered(LISTENER)
    dependencies.answered(CLUSTER)
    for index in order:
        type_url, name, resource = parts[index]
        dependencies.update(type_url, name, resource, references(resource))
    snapshot = dependencies.settle(0.0)
    assert snapshot is not None
    assert (len(snapshot.listeners), len(snapshot.routes), len(snapshot.clusters), len(snapshot.endpoints)) == (1,) * 4
