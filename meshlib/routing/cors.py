"""Cross-origin requests as Envoy's CORS filter judges them: what is told to a browser, and what it may not ask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from meshlib.model.cors import CorsPolicy
from meshlib.model.matchers import FractionalPercent
from meshlib.model.request import RequestHead
from meshlib.routing.located import at
from meshlib.routing.strings import compile_string
from meshlib.routing.text import as_wire

Headers = tuple[tuple[bytes, bytes], ...]
T = TypeVar("T")
_PREFIX = b"access-control-allow-"


class _Rng(Protocol):
    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class CorsVerdict:
    """`answered`: the request was a preflight, and `headers` are the whole answer (200, no body). Otherwise `headers`
    are set on the application's response, in the place of those of the same names.
    """

    answered: bool
    headers: Headers


class CorsRules:
    """The policies of one route, from the most specific level to the widest: what one does not say the next does. The
    most specific alone says whether there is any (`filter_enabled`).
    """

    __slots__ = (
        "_credentials",
        "_enabled",
        "_expose",
        "_forwards",
        "_headers",
        "_max_age",
        "_methods",
        "_origins",
        "_private_network",
    )

    def __init__(self, policies: Sequence[CorsPolicy]) -> None:
        self._enabled: FractionalPercent = policies[0].filter_enabled
        origins = next((policy.allow_origins for policy in policies if policy.allow_origins), ())
        with at("allow_origin_string_match"):
            self._origins = tuple(compile_string(origin) for origin in origins)
        self._methods = _first(policies, lambda policy: policy.allow_methods)
        self._headers = _first(policies, lambda policy: policy.allow_headers)
        self._expose = _first(policies, lambda policy: policy.expose_headers)
        self._max_age = _first(policies, lambda policy: policy.max_age)
        self._credentials = _said(policies, lambda policy: policy.allow_credentials, default=False)
        self._private_network = _said(policies, lambda policy: policy.allow_private_network_access, default=False)
        self._forwards = _said(policies, lambda policy: policy.forward_not_matching_preflights, default=True)

    def __call__(self, head: RequestHead, rng: _Rng) -> CorsVerdict | None:
        """What to do about a request; None: nothing, it is the application's."""
        origin = _first_value(head, "origin")
        if not origin or not self._is_enabled(rng):
            return None
        allowed = any(test(origin) for test in self._origins)
        preflight = head.method == "OPTIONS" and bool(_first_value(head, "access-control-request-method"))
        if preflight and (allowed or not self._forwards):
            return CorsVerdict(True, tuple(self._preflight(head, origin if allowed else "")))
        if not allowed:
            return None
        return CorsVerdict(False, tuple(self._told(origin)))

    def _is_enabled(self, rng: _Rng) -> bool:
        share = self._enabled.fraction
        return share >= 1.0 or (share > 0.0 and rng.random() < share)

    def _told(self, origin: str) -> Iterator[tuple[bytes, bytes]]:
        if origin:
            yield _PREFIX + b"origin", origin.encode("latin-1")
        if self._credentials:
            yield _PREFIX + b"credentials", b"true"
        if origin and self._expose:
            yield b"access-control-expose-headers", self._expose.encode("latin-1")

    def _preflight(self, head: RequestHead, origin: str) -> Iterator[tuple[bytes, bytes]]:
        """`origin` is empty for one that is not allowed, which is how the browser learns it."""
        yield from self._told(origin)
        asked = {"methods": "access-control-request-method", "headers": "access-control-request-headers"}
        for name, value in (("methods", self._methods), ("headers", self._headers)):
            if value:
                told = (_first_value(head, asked[name]) or "") if value == "*" else value
                yield _PREFIX + name.encode(), told.encode("latin-1")
        if self._max_age:
            yield b"access-control-max-age", self._max_age.encode("latin-1")
        if self._private_network and _first_value(head, "access-control-request-private-network") == "true":
            yield _PREFIX + b"private-network", b"true"


def _first(policies: Sequence[CorsPolicy], text: Callable[[CorsPolicy], str]) -> str:
    return as_wire(next((found for policy in policies if (found := text(policy))), ""))


def _said(policies: Sequence[CorsPolicy], value: Callable[[CorsPolicy], bool | None], *, default: bool) -> bool:
    return next((found for policy in policies if (found := value(policy)) is not None), default)


def _first_value(head: RequestHead, name: str) -> str | None:
    return next(iter(head.get_all(name)), None)
