"""Routes that lead nowhere are told once, by what is missing; what leads somewhere is not."""

import pytest

from parts.istio_objects import HOST, entry, obj, rule, translated

SUBSET = rule("subsets: [{name: v1}]")


def told(http: str, *objects: str) -> list[str]:
    text = obj("VirtualService", "v", f"{{hosts: [{HOST}], http: {http}}}")
    return [issue.reason for issue in translated(entry(), *objects, text).issues]


@pytest.mark.parametrize(
    "destination, reason",
    [
        (f"{{host: {HOST}}}", None),
        (f"{{host: {HOST}, subset: v1, port: {{number: 9080}}}}", None),
        ("{host: reviews, subset: v1}", None),
        (f"{{host: {HOST}, subset: v2}}", f"no DestinationRule of the host {HOST} has the subset v2"),
        (f"{{host: {HOST}, port: {{number: 80}}}}", f"the host {HOST} has no port 80"),
        ("{host: nobody}", "no ServiceEntry has the host nobody.default.svc.cluster.local"),
    ],
)
def test_every_destination_is_looked_for(destination: str, reason: str | None) -> None:
    expected = [] if reason is None else [reason]
    assert told(f"[{{route: [{{destination: {destination}}}]}}]", SUBSET) == expected
    main = f"route: [{{destination: {{host: {HOST}}}}}]"
    assert told(f"[{{{main}, mirror: {destination}}}]", SUBSET) == expected
    assert told(f"[{{{main}, mirrors: [{{destination: {destination}}}]}}]", SUBSET) == expected


def test_the_same_is_told_once() -> None:
    route = "{route: [{destination: {host: nobody}}]}"
    assert len(told(f"[{{match: [{{uri: {{exact: /a}}}}], {route[1:]}, {route}]")) == 1
