"""What a request met, told in the same words by Envoy and by us."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

ROUTE_HEADER = "x-route"
"""Every generated route names itself in this response header."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request as a test sends it."""

    method: str
    authority: str
    path: str
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Arrived:
    """The request as an upstream saw it; header values joined by `,`, only those that say something here."""

    cluster: str
    path: str
    host: str
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Observed:
    """The answer: the route that gave it (empty: none), and where the request arrived, if it was forwarded."""

    route: str
    status: int
    location: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    arrived: Arrived | None = None


def joined(pairs: Iterable[tuple[str, str]], ignore: frozenset[str] = frozenset()) -> tuple[tuple[str, str], ...]:
    """Headers by lower-case name, values of one name joined by `,`, sorted."""
    values: dict[str, list[str]] = defaultdict(list)
    for name, value in pairs:
        if name.lower() not in ignore:
            values[name.lower()].append(value)
    return tuple(sorted((name, ",".join(found)) for name, found in values.items()))
