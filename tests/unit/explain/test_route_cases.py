"""Route cases that are wrong, in either format: each is told of with its place, whatever it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.explain.route_cases import RouteCase, read_cases
from meshlib.model.report import Issue

OURS: dict[str, Any] = {"name": "a", "request": {"url": "http://a/"}, "expect": {"cluster": "a"}}
THEIRS: dict[str, Any] = {
    "test_name": "a",
    "input": {"authority": "a", "path": "/"},
    "validate": {"cluster_name": "a"},
}


def read(folder: Path, case: Any) -> tuple[list[RouteCase], list[Issue]]:
    file = folder / "cases.json"
    file.write_text(json.dumps({"tests": [case]}), encoding="utf-8")
    return read_cases(file)


@pytest.mark.parametrize(
    "case,path",
    [
        (OURS | {"expect": {"request_headers": {"x": {"safe_regex": "("}}}}, "expect.request_headers"),
        (OURS | {"random_value": "9" * 3000}, "random_value"),
        (OURS | {"random_value": 2**64}, "random_value"),
        (OURS | {"random_value": -1}, "random_value"),
        (THEIRS | {"input": {"authority": "a", "path": "/", "random_value": "9" * 5000}}, "input.random_value"),
        (THEIRS | {"validate": {"cluster_name": "a", "request_header_fields": {"key": "x"}}}, "request_header_fields"),
        (
            THEIRS
            | {
                "validate": {
                    "request_header_matches": [{"name": "a", "string_match": {"safe_regex": {"regex": "("}}}],
                }
            },
            "request_header_matches.0",
        ),
    ],
)
def test_what_cannot_be_compared_is_told_with_its_place(case: Any, path: str, tmp_path: Path) -> None:
    cases, issues = read(tmp_path, case)
    assert cases == []
    assert len(issues) == 1
    assert path in issues[0].path


@pytest.mark.parametrize("text", ["é", "例"])
def test_texts_beyond_latin_1_are_the_bytes_that_envoys_tool_would_send(text: str, tmp_path: Path) -> None:
    pair = {"key": "x", "value": text}
    given = {"authority": text, "path": f"/{text}", "additional_request_headers": [pair]}
    (theirs,), no_issues = read(tmp_path, THEIRS | {"input": given | {"additional_response_headers": [pair]}})
    (ours,), _ = read(tmp_path, OURS | {"request": {"url": "http://a/", "headers": {"x": text}}})
    assert no_issues == []
    sent = text.encode()
    assert (
        dict(theirs.head.headers)[b"host"] == dict(theirs.head.headers)[b"x"] == dict(ours.head.headers)[b"x"] == sent
    )
    assert theirs.head.path == "/" + sent.decode("latin-1")
    assert theirs.response_headers == (("x", sent.decode("latin-1")),)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(
    ["url", "method", "headers", "authority", "path", "random_value", "ssl", "additional_request_headers"]
)
CHECKS = st.sampled_from(
    [
        *("cluster", "weights", "timeout", "num_retries", "request_headers", "pass_through", "subset", "route"),
        *("cluster_name", "request_header_fields", "response_header_matches", "path_redirect"),
    ]
)


@given(
    ours=st.booleans(),
    asked=st.dictionaries(FIELDS, ANY, max_size=3),
    expected=st.dictionaries(CHECKS, ANY, min_size=1, max_size=3),
)
def test_any_case_is_read_or_told_of(
    ours: bool, asked: dict[str, Any], expected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base, names = (OURS, ("request", "expect")) if ours else (THEIRS, ("input", "validate"))
    case = base | {names[0]: base[names[0]] | asked, names[1]: expected}
    cases, issues = read(tmp_path_factory.getbasetemp(), case)
    assert len(cases) + len(issues) >= 1
