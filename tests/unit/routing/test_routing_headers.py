"""Header mutations: order of levels, order within a level, append actions, formatters."""

import pytest

from meshlib.model.headers import NO_MUTATIONS, AppendAction, HeaderMutations, HeaderValueOption
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.routing.headers import Headers, Target, compile_mutations

OLD = [(b"X-A", b"1"), (b"x-a", b"2"), (b"X-B", b"b")]
HEAD = RequestHead("GET", "http", "a.test", "/p?q", OLD)


def adding(
    name: str, value: str, action: AppendAction = "APPEND_IF_EXISTS_OR_ADD", keep: bool = False
) -> HeaderMutations:
    return HeaderMutations((HeaderValueOption(name, value, action, keep),))


def mutated(*levels: HeaderMutations, wins: bool = False, target: Target = "request") -> Headers:
    mutate = compile_mutations(*levels, most_specific_wins=wins, target=target)
    assert mutate is not None
    return mutate(list(OLD), HEAD)


@pytest.mark.parametrize(
    "name, action, expected",
    [
        ("x-a", "APPEND_IF_EXISTS_OR_ADD", [*OLD, (b"x-a", b"n")]),
        ("x-c", "APPEND_IF_EXISTS_OR_ADD", [*OLD, (b"x-c", b"n")]),
        ("x-a", "ADD_IF_ABSENT", OLD),
        ("x-c", "ADD_IF_ABSENT", [*OLD, (b"x-c", b"n")]),
        ("x-a", "OVERWRITE_IF_EXISTS_OR_ADD", [OLD[2], (b"x-a", b"n")]),
        ("x-c", "OVERWRITE_IF_EXISTS_OR_ADD", [*OLD, (b"x-c", b"n")]),
        ("x-a", "OVERWRITE_IF_EXISTS", [OLD[2], (b"x-a", b"n")]),
        ("x-c", "OVERWRITE_IF_EXISTS", OLD),
    ],
)
def test_append_actions(name: str, action: AppendAction, expected: Headers) -> None:
    assert mutated(adding(name, "n", action)) == expected


def test_removals_come_before_additions() -> None:
    level = HeaderMutations((HeaderValueOption("x-a", "n", "ADD_IF_ABSENT"),), remove=("X-A",))
    assert mutated(level) == [OLD[2], (b"x-a", b"n")]


def test_values_are_made_before_any_header_is_set() -> None:
    level = HeaderMutations(
        (
            HeaderValueOption("x-b", "new", "OVERWRITE_IF_EXISTS_OR_ADD"),
            HeaderValueOption("x-c", "was %REQ(x-b)%", "APPEND_IF_EXISTS_OR_ADD"),
        )
    )
    assert mutated(level)[-1] == (b"x-c", b"was b")


@pytest.mark.parametrize("wins, last", [(False, b"config"), (True, b"route")])
def test_the_last_level_has_the_last_word(wins: bool, last: bytes) -> None:
    levels = [adding("x-l", name, "OVERWRITE_IF_EXISTS_OR_ADD") for name in ("route", "host", "config")]
    assert dict(mutated(*levels, wins=wins))[b"x-l"] == last


@pytest.mark.parametrize("wins, last", [(False, b"config"), (True, b"route")])
def test_a_share_is_always_applied_first(wins: bool, last: bytes) -> None:
    levels = [adding("x-l", name, "OVERWRITE_IF_EXISTS_OR_ADD") for name in ("share", "route", "host", "config")]
    assert dict(mutated(*levels, wins=wins))[b"x-l"] == last


def test_a_level_sees_what_the_last_one_did() -> None:
    levels = (adding("x-n", "one"), adding("x-m", "%REQ(x-n)%"), NO_MUTATIONS)
    assert mutated(*levels)[-1] == (b"x-m", b"one")


def test_response_mutations_read_the_request() -> None:
    assert mutated(adding("x-m", "%REQ(:path)%"), target="response")[-1] == (b"x-m", b"/p?q")


@pytest.mark.parametrize(
    "value, expected",
    [
        ("plain", b"plain"),
        ("100%%", b"100%"),
        ("%%REQ(x-a)%%", b"%REQ(x-a)%"),
        ("%REQ(X-A)%", b"1"),  # the first value
        ("%REQ(x-none?x-b)%", b"b"),
        ("<%REQ(:AUTHORITY):3%>", b"<a.t>"),
        ("%REQUEST_HEADER(:METHOD)%", b"GET"),
        ("a%REQ(x-none)%b", b"ab"),
        ("é", "é".encode()),
    ],
)
def test_formatters(value: str, expected: bytes) -> None:
    assert mutated(adding("x-n", value))[-1] == (b"x-n", expected)


@pytest.mark.parametrize("value", ["", "%REQ(x-none)%"])
def test_empty_values_are_left_out_unless_kept(value: str) -> None:
    assert mutated(adding("x-n", value)) == OLD
    assert mutated(adding("x-n", value, keep=True)) == [*OLD, (b"x-n", b"")]


@pytest.mark.parametrize("value", ["50%", "%", "%REQ(x-a", "%NO_SUCH%", "%REQ%", "%REQ(a?b?c)%", "%lower%", "%REQ(x)"])
def test_formatters_that_cannot_be_honoured_are_refused(value: str) -> None:
    with pytest.raises(ResourceError) as refused:
        compile_mutations(adding("x-n", value))
    assert refused.value.path == "headers_to_add[0].value"


@pytest.mark.parametrize("name", [":path", ":authority", "host", "Host"])
def test_pseudo_headers_and_host_are_refused(name: str) -> None:
    with pytest.raises(ResourceError):
        compile_mutations(adding(name, "v"))
    with pytest.raises(ResourceError):
        compile_mutations(HeaderMutations(remove=(name,)))


def test_nothing_to_do_is_none() -> None:
    assert compile_mutations(NO_MUTATIONS, NO_MUTATIONS, NO_MUTATIONS) is None


@pytest.mark.parametrize("query, added", [("x=fine", [(b"x-said", b"fine")]), ("x=a%0d%0aevil:1", []), ("x=%00", [])])
def test_what_a_request_says_makes_no_headers_in_a_response(query: str, added: list[tuple[bytes, bytes]]) -> None:
    mutate = compile_mutations(adding("x-said", "%QUERY_PARAM(x)%"), target="response")
    assert mutate is not None
    head = RequestHead("GET", "http", "shop", f"/?{query}", [])
    assert mutate([], head) == added
