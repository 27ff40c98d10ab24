"""Texts with operators: any text compiles or is refused, and what compiles makes a text of any request."""

from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.metadata import Metadata, Struct
from meshlib.model.operators import KNOWN, NO_VALUE, unknown_operators
from meshlib.model.report import ResourceError
from meshlib.model.request import RequestHead
from meshlib.routing.facts import CallFacts, Scene
from meshlib.routing.formatters import compile_format, compile_json
from meshlib.routing.text import wire_bytes

ARGUMENTS = st.one_of(
    st.sampled_from(
        (
            *("x-a", "x-a?x-b", "a?b?c", ":path", "ORIG", "NQ:PATH", "WQ", "m:k", "ROUTE:m:k", "ROUTE", "16", "999"),
            *("%s.%3f", "%Y %Ez %j %E9S", "%", "DS_RX_BEG:US_RX_BEG:us", "NUMBER", "SNI_FIRST", "HOME", ""),
            *('{"operators": ["PATH", {"command": "REQ", "param": "x-a"}]}', '{"operators": [1]}', "{}", "[]"),
        )
    ),
    st.text(max_size=12),
)
operators = st.builds(
    lambda name, arguments, length: f"%{name}{arguments}{length}%",
    st.sampled_from(sorted(KNOWN | NO_VALUE)),
    st.one_of(st.just(""), ARGUMENTS.map(lambda text: f"({text})")),
    st.sampled_from(("", "", ":3", ":0", ":999999999")),
)
texts = st.lists(st.one_of(operators, st.text(max_size=8), st.just("%%"), st.just("%")), max_size=4).map("".join)
BYTES = st.binary(max_size=8)
heads = st.builds(
    lambda path, value: RequestHead("GET", "http", "a.test:80", "/" + path, [(b"x-a", value), (b"traceparent", value)]),
    st.text(st.characters(max_codepoint=255), max_size=12),
    BYTES,
)
facts = st.builds(
    CallFacts,
    route=st.text(max_size=4),
    route_metadata=st.just(Metadata.of({"m": {"k": [1.5, "é", {"a": None}], "n": True}})),
    attempted=st.lists(
        st.tuples(st.sampled_from(("1.2.3.4:5", "[::1]:6", "/a/socket", "")), st.text(max_size=4)), max_size=2
    ),
    status=st.integers(0, 599),
    grpc_status=st.one_of(st.none(), st.integers(-1, 99)),
    flag=st.sampled_from(("", "UH", "XX")),
    started=st.floats(0, 4e9),
    now=st.floats(0, 4e9),
    elapsed=st.floats(0, 1e6),
    first_byte=st.one_of(st.none(), st.floats(0, 1e6)),
)


@given(texts, heads, BYTES, facts)
def test_any_text_compiles_or_is_refused(text: str, head: RequestHead, value: bytes, known: CallFacts) -> None:
    try:
        made = compile_format(text, "-")
        json = compile_json(Struct.of({"a": text, "b": [text, 1, None]}))
    except ResourceError:
        return
    assert not unknown_operators(text)
    scene = Scene(head, head.headers, [(b"x-a", value)], lambda: known)
    assert wire_bytes(made if isinstance(made, str) else made(scene)) is not None
    assert json(scene).endswith("\n")
