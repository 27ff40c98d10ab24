"""Hash policies: which part of a request decides the endpoint (Envoy's `HashPolicyImpl`).

xxHash64 of each policy's value; the hash so far is rotated left by one bit and XORed with the next, so that two equal
values do not cancel out. A header with several values is hashed value by value, each with the last one's hash as seed.
A `terminal` policy ends the list as soon as there is a hash.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.model.route import HashPolicy
from meshlib.routing.cookies import cookie_value
from meshlib.routing.located import at
from meshlib.routing.query import first_parameter
from meshlib.routing.regex import compile_substitution
from meshlib.routing.text import as_wire, wire_bytes

_MASK = 2**64 - 1


class _Rng(Protocol):
    def random(self) -> float: ...


@dataclass(frozen=True, slots=True)
class HashResult:
    """The request hash, and the `set-cookie` value of a cookie made for it, if one was."""

    hash: int
    set_cookie: str | None = None


_Caller = tuple[str, _Rng | None]
_Evaluate = Callable[[RequestHead, _Caller], HashResult | None]


class _Digest(Protocol):
    def __call__(self, data: bytes, seed: int = 0) -> int: ...


class RequestHasher:
    """Compiled hash policies."""

    __slots__ = ("_policies",)

    def __init__(self, policies: Sequence[HashPolicy], digest: _Digest) -> None:
        self._policies = tuple(_compile(index, policy, digest) for index, policy in enumerate(policies))

    def __call__(self, head: RequestHead, source_ip: str = "", rng: _Rng | None = None) -> HashResult | None:
        """The hash of a request, None when no policy has a value for it.

        `rng` gives generated cookies their value; without it they follow from `source_ip` alone.
        """
        combined: int | None = None
        set_cookie = None
        caller = (source_ip, rng)
        for terminal, evaluate in self._policies:
            result = evaluate(head, caller)
            if result is not None:
                old = 0 if combined is None else ((combined << 1) | (combined >> 63)) & _MASK
                combined = old ^ result.hash
                set_cookie = result.set_cookie or set_cookie
            if terminal and combined is not None:
                break
        return None if combined is None else HashResult(combined, set_cookie)


def compile_hash(policies: Sequence[HashPolicy]) -> RequestHasher | None:
    """None without policies; `ResourceError` when xxhash is not installed, or a policy's regex is refused."""
    if not policies:
        return None
    try:
        from xxhash import xxh64_intdigest
    except ImportError as missing:
        raise ResourceError("hash_policy", "hash policies need xxhash: pip install 'meshlib[hash]'") from missing
    return RequestHasher(policies, xxh64_intdigest)


def _compile(index: int, policy: HashPolicy, digest: _Digest) -> tuple[bool, _Evaluate]:
    with at(f"hash_policy[{index}]"):
        return policy.terminal, _evaluate(policy, digest)


def _evaluate(policy: HashPolicy, digest: _Digest) -> _Evaluate:
    match policy.kind:
        case "header":
            return _header(policy, digest)
        case "cookie":
            return _cookie(policy, digest)
        case "query_parameter":
            return _query_parameter(policy, digest)
        case "source_ip":
            return lambda head, caller: HashResult(digest(caller[0].encode())) if caller[0] else None
        case "filter_state":
            return _filter_state(policy, digest)


def _header(policy: HashPolicy, digest: _Digest) -> _Evaluate:
    name = as_wire(policy.name.lower())
    substitute = compile_substitution(policy.regex_rewrite) if policy.regex_rewrite else None

    def evaluate(head: RequestHead, caller: _Caller) -> HashResult | None:
        values = head.get_all(name)
        if not values:
            return None
        if substitute is not None:
            values = [substitute(text) for text in values]
        made = 0
        # Sorted, so that the order in which the values came does not matter.
        for text in sorted(values):
            made = digest(wire_bytes(text), made)
        return HashResult(made)

    return evaluate


def _query_parameter(policy: HashPolicy, digest: _Digest) -> _Evaluate:
    name = as_wire(policy.name)

    def evaluate(head: RequestHead, caller: _Caller) -> HashResult | None:
        text = first_parameter(head.query, name)
        return None if text is None else HashResult(digest(wire_bytes(text)))

    return evaluate


def _filter_state(policy: HashPolicy, digest: _Digest) -> _Evaluate:
    key = policy.name

    def evaluate(head: RequestHead, caller: _Caller) -> HashResult | None:
        text = head.filter_state.get(key)
        return None if text is None else HashResult(digest(text.encode()))

    return evaluate


def _cookie(policy: HashPolicy, digest: _Digest) -> _Evaluate:
    name = as_wire(policy.name)

    def evaluate(head: RequestHead, caller: _Caller) -> HashResult | None:
        text = cookie_value(head, name)
        if text:
            return HashResult(digest(wire_bytes(text)))
        if policy.ttl is None:
            return None
        made = _new_cookie(caller, digest)
        return HashResult(digest(made.encode()), _set_cookie(policy, made))

    return evaluate


def _new_cookie(caller: _Caller, digest: _Digest) -> str:
    source_ip, rng = caller
    number = digest(source_ip.encode()) if rng is None else int(rng.random() * 2**53) << 11
    return f"{number:016x}"


def _set_cookie(policy: HashPolicy, value: str) -> str:
    parts = [f'{policy.name}="{value}"']
    if policy.ttl:
        parts.append(f"Max-Age={int(policy.ttl)}")
    if policy.path:
        parts.append(f"Path={policy.path}")
    parts += [f"{name}={value}" if value else name for name, value in policy.attributes]
    return "; ".join([*parts, "HttpOnly"])
