"""Any text is a path template that runs, or is refused; so is any rewrite."""

from hypothesis import example, given
from hypothesis import strategies as st

from meshlib.model.report import ResourceError
from meshlib.model.uri_template import UriTemplate, parse_template
from meshlib.routing.regex import compile_regex
from meshlib.routing.uri_template import compile_template_rewrite

TEXTS = st.one_of(st.text(max_size=40), st.text("/*{}=ab.%$()+ü?", max_size=25).map(lambda text: "/" + text))


def parsed(text: str) -> UriTemplate | None:
    try:
        return parse_template(text)
    except ResourceError:
        return None


@given(TEXTS, TEXTS)
@example("/***", "/")
def test_templates_are_total(text: str, path: str) -> None:
    template = parsed(text)
    if template is None:
        return
    try:
        test = compile_regex(template.regex).fullmatch
    except ResourceError:  # what `*` in a literal makes of it (`/***`) is no regular expression; it is refused then
        assert "**" in text
        return
    assert test(path) in (True, False)
    if not set(text) & set("*{"):
        assert test(text)


@given(TEXTS, TEXTS)
def test_rewrites_are_total(rewrite: str, path: str) -> None:
    try:
        rewritten = compile_template_rewrite("/{a}/{b=**}", rewrite)(path)
    except ResourceError:
        return
    assert rewritten.startswith("/") or rewritten == path
