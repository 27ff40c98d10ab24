"""Runs route cases over a configuration, and says which of its routes none of them reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from meshlib.explain.explainer import Explainer
from meshlib.explain.explanation import Explanation
from meshlib.explain.route_cases import RouteCase
from meshlib.model.route import RouteAction, RouteConfiguration, WeightedClusters

Place = tuple[str, str, int, str]
"""Route configuration, virtual host, index of the route, and the cluster where the route has several."""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of one case: nothing, or what is different."""

    case: RouteCase
    explanation: Explanation
    failures: tuple[str, ...]


@dataclass(slots=True)
class Coverage:
    """Which routes the cases that passed have reached. As in Envoy's tool each cluster of a weighted route counts."""

    places: dict[Place, str]
    reached: set[Place] = field(default_factory=set)

    @property
    def percent(self) -> float:
        """Of all routes; 100 of none."""
        return 100.0 * len(self.reached) / len(self.places) if self.places else 100.0

    @property
    def missing(self) -> list[str]:
        """The routes that no case has reached, in words."""
        return [said for place, said in self.places.items() if place not in self.reached]


class RouteSuite:
    """A configuration and the record of what was asked of it."""

    def __init__(self, explainer: Explainer) -> None:
        self._explainer = explainer
        self._by_runtime: dict[str, Explainer] = {}
        self.coverage = Coverage(dict(_places(explainer.route_configurations())))

    def run(self, cases: Iterable[RouteCase]) -> Iterator[CaseResult]:
        """The result of each case, in order."""
        for case in cases:
            said = self._explainer_for(case).explain_head(case.head, "", case.random_value, case.response_headers)
            failures = tuple(found for check in case.checks if (found := check.failure(said)))
            if not failures:
                self.coverage.reached.update(_reached(said, self.coverage.places))
            yield CaseResult(case, said, failures)

    def _explainer_for(self, case: RouteCase) -> Explainer:
        if case.runtime is None:
            return self._explainer
        known = self._by_runtime.get(case.runtime)
        if known is None:
            known = self._by_runtime[case.runtime] = self._explainer.only_runtime(case.runtime)
        return known


def _places(configurations: Iterable[RouteConfiguration]) -> Iterator[tuple[Place, str]]:
    for config in configurations:
        for host in config.virtual_hosts:
            for index, route in enumerate(host.routes):
                label = f"{config.name}: {host.name}/{route.name or index}"
                action = route.action
                if isinstance(action, RouteAction) and isinstance(action.cluster, WeightedClusters):
                    for share in action.cluster.clusters:
                        yield (config.name, host.name, index, share.name), f"{label} to {share.name}"
                else:
                    yield (config.name, host.name, index, ""), label


def _reached(said: Explanation, places: dict[Place, str]) -> Iterator[Place]:
    """The place of the decision; all clusters of a route whose draw was left to chance and whose weights were right."""
    if said.route_index is None:
        return
    clusters = [share["cluster"] for share in said.weights if said.by_chance or share["chosen"]]
    for cluster in clusters or [""]:
        place = (said.route_configuration or "", said.virtual_host or "", said.route_index, cluster)
        if place in places:
            yield place
