"""Hash policies. The expected numbers are xxHash64's own; the rotation and order are Envoy's."""

import sys

import pytest
from xxhash import xxh64_intdigest

from meshlib.context import CallHead, call_metadata
from meshlib.model.matchers import RegexRewrite
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.model.route import HashPolicy
from meshlib.routing.hashing import HashResult, compile_hash

MASK = 2**64 - 1


def hashed(
    *policies: HashPolicy, headers: tuple[tuple[str, str], ...] = (), path: str = "/", ip: str = ""
) -> int | None:
    result = result_of(*policies, headers=headers, path=path, ip=ip)
    return None if result is None else result.hash


def result_of(
    *policies: HashPolicy, headers: tuple[tuple[str, str], ...] = (), path: str = "/", ip: str = ""
) -> HashResult | None:
    hasher = compile_hash(policies)
    assert hasher is not None
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return hasher(RequestHead("GET", "http", "a.test", path, raw), ip)


def rotated(value: int) -> int:
    return ((value << 1) | (value >> 63)) & MASK


HEADER = HashPolicy("header", "X-A")


def test_a_known_digest() -> None:
    assert xxh64_intdigest(b"") == 0xEF46DB3751D8E999  # xxHash's own test vector: seed 0
    assert hashed(HEADER, headers=(("x-a", ""),)) == 0xEF46DB3751D8E999


def test_header_values_are_sorted() -> None:
    expected = xxh64_intdigest(b"foo", seed=xxh64_intdigest(b"bar"))
    assert hashed(HEADER, headers=(("x-a", "foo"), ("X-A", "bar"))) == expected
    assert hashed(HEADER, headers=(("x-a", "bar"), ("X-A", "foo"))) == expected


def test_header_values_can_be_rewritten_first() -> None:
    policy = HashPolicy("header", "x-a", regex_rewrite=RegexRewrite("^(.+)-.*$", r"\1"))
    assert hashed(policy, headers=(("x-a", "user-17"),)) == xxh64_intdigest(b"user")


def test_a_missing_value_makes_no_hash() -> None:
    for policy in (HEADER, HashPolicy("cookie", "c"), HashPolicy("query_parameter", "q"), HashPolicy("source_ip")):
        assert hashed(policy) is None


def test_hashes_combine_in_order() -> None:
    first, second = HashPolicy("header", "x-a"), HashPolicy("header", "x-b")
    headers = (("x-a", "1"), ("x-b", "2"))
    one, two = xxh64_intdigest(b"1"), xxh64_intdigest(b"2")
    assert hashed(first, second, headers=headers) == rotated(one) ^ two
    assert hashed(second, first, headers=headers) == rotated(two) ^ one


def test_equal_values_do_not_cancel_out() -> None:
    one = xxh64_intdigest(b"1")
    assert hashed(HEADER, HEADER, headers=(("x-a", "1"),)) == rotated(one) ^ one != 0


def test_a_terminal_policy_ends_the_list_once_there_is_a_hash() -> None:
    terminal, second = HashPolicy("header", "x-a", terminal=True), HashPolicy("header", "x-b")
    one, two = xxh64_intdigest(b"1"), xxh64_intdigest(b"2")
    assert hashed(terminal, second, headers=(("x-a", "1"), ("x-b", "2"))) == one
    assert hashed(terminal, second, headers=(("x-b", "2"),)) == two
    # Without a value of its own it still ends the list when an earlier policy had one.
    third = HashPolicy("header", "x-c")
    assert hashed(second, terminal, third, headers=(("x-b", "2"), ("x-c", "3"))) == two


@pytest.mark.parametrize(
    "path, expected",
    [("/?q=1&q=2", b"1"), ("/?a=0&q=%31", b"%31"), ("/?q", b""), ("/?q=", b""), ("/?Q=1", None)],
)
def test_query_parameters(path: str, expected: bytes | None) -> None:
    want = None if expected is None else xxh64_intdigest(expected)
    assert hashed(HashPolicy("query_parameter", "q"), path=path) == want


def test_source_ip() -> None:
    assert hashed(HashPolicy("source_ip"), ip="10.0.0.1") == xxh64_intdigest(b"10.0.0.1")


@pytest.mark.parametrize(
    "cookies, expected",
    [
        (("c=1",), b"1"),
        (("a=0; c=1; c=2",), b"1"),
        (("a=0", "c=1"), b"1"),
        (('c="q"',), b"q"),
        (("c=a=b",), b"a=b"),
        (("c",), None),
        (("c=",), None),  # an empty cookie is none
        (("cc=1",), None),
    ],
)
def test_cookies(cookies: tuple[str, ...], expected: bytes | None) -> None:
    headers = tuple(("Cookie", cookie) for cookie in cookies)
    want = None if expected is None else xxh64_intdigest(expected)
    assert hashed(HashPolicy("cookie", "c"), headers=headers) == want


@pytest.mark.parametrize(
    "policy, attributes",
    [
        (HashPolicy("cookie", "c", ttl=60.0, path="/p"), "; Max-Age=60; Path=/p; HttpOnly"),
        (HashPolicy("cookie", "c", ttl=0.0), "; HttpOnly"),  # a session cookie
    ],
)
def test_a_cookie_with_a_ttl_is_made_when_missing(policy: HashPolicy, attributes: str) -> None:
    result = result_of(policy, ip="10.0.0.1")
    assert result is not None
    value = f"{xxh64_intdigest(b'10.0.0.1'):016x}"
    assert result == HashResult(xxh64_intdigest(value.encode()), f'c="{value}"{attributes}')


def test_made_cookies_differ_by_chance() -> None:
    class Half:
        def random(self) -> float:
            return 0.5

    hasher = compile_hash((HashPolicy("cookie", "c", ttl=0.0),))
    assert hasher is not None
    made = hasher(RequestHead("GET", "http", "a.test", "/"), "10.0.0.1", Half())
    assert made == HashResult(xxh64_intdigest(b"8000000000000000"), 'c="8000000000000000"; HttpOnly')


def test_no_policies_cost_nothing() -> None:
    assert compile_hash(()) is None


def test_filter_state() -> None:
    hasher = compile_hash((HashPolicy("filter_state", "user", terminal=True), HEADER))
    assert hasher is not None
    call = CallHead("GET", "http", "a.test", "/", [(b"x-a", b"ann")])
    with call_metadata(filter_state={"user": "ü", "empty": ""}):
        assert hasher(call) == HashResult(xxh64_intdigest("ü".encode()))
        assert hashed(HashPolicy("filter_state", "user")) is None  # no call's head
    with call_metadata(filter_state={"user": ""}):
        assert hasher(call) == HashResult(xxh64_intdigest(b""))
    assert hasher(call) == HashResult(xxh64_intdigest(b"ann"))


def test_without_xxhash_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xxhash", None)
    with pytest.raises(ResourceError, match=r"pip install 'meshlib\[hash\]'"):
        compile_hash((HEADER,))
