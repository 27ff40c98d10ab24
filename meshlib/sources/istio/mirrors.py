"""`mirror` and `mirrors` → request mirror policies (istiod: `TranslateRequestMirrorPolicy`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Json = dict[str, Any]
Lookup = Callable[[Mapping[str, Any]], str]


def mirror_policies(route: Mapping[str, Any], cluster_of: Lookup) -> list[Json]:
    """Who gets copies of the requests, and of how many; a mirror of 0 % is none. Hosts keep their names: istiod
    switches Envoy's `-shadow` off.
    """
    return [
        {
            "cluster": cluster_of(destination),
            "runtime_fraction": {"default_value": fraction},
            "trace_sampled": False,
            "disable_shadow_host_suffix_append": True,
        }
        for destination, fraction in _mirrors(route)
        if fraction["numerator"]
    ]


def _mirrors(route: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Json]]:
    if route.get("mirror") is not None:
        yield route["mirror"], _fraction(route.get("mirrorPercentage"), route.get("mirrorPercent"))
    for mirror in route.get("mirrors") or ():
        yield mirror["destination"], _fraction(mirror.get("percentage"), None)


def _fraction(percentage: Mapping[str, float] | None, whole: int | None) -> Json:
    if percentage is not None:
        return {"numerator": int(percentage.get("value", 0) * 10_000), "denominator": "MILLION"}
    return {"numerator": 100 if whole is None else whole, "denominator": "HUNDRED"}
