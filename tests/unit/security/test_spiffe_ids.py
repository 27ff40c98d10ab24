"""SPIFFE IDs by the letter of the specification: what is none, and that one ID has one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.security.spiffe import SpiffeId, SpiffeIdError, SpiffePattern, sole_id

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_domains = st.text(LETTERS + "0123456789._-", min_size=1, max_size=60)
_segments = st.text(LETTERS + LETTERS.upper() + "0123456789._-", min_size=1, max_size=20).filter(
    lambda segment: segment not in (".", "..")
)
_ids = st.builds(
    lambda domain, segments: SpiffeId(domain, "".join(f"/{segment}" for segment in segments)),
    _domains,
    st.lists(_segments, max_size=6),
)


@given(_ids)
def test_an_id_reads_as_it_was_written(spiffe_id: SpiffeId) -> None:
    assert SpiffeId.parse(str(spiffe_id)) == spiffe_id


@given(st.text(max_size=60).map(lambda text: f"spiffe://{text}") | st.text(max_size=60))
def test_any_text_is_an_id_spelled_exactly_so_or_none(text: str) -> None:
    try:
        assert str(SpiffeId.parse(text)) == text
    except SpiffeIdError:
        return


@pytest.mark.parametrize(
    "text,reason",
    [
        ("", "does not begin with spiffe://"),
        ("https://demo.test/a", "does not begin with spiffe://"),
        ("SPIFFE://demo.test/a", "does not begin with spiffe://"),
        ("spiffe:/demo.test", "does not begin with spiffe://"),
        ("spiffe://", "trust domain is empty"),
        ("spiffe:///a", "trust domain is empty"),
        ("spiffe://Demo.test/a", "trust domain"),
        ("spiffe://demo.test:443/a", "trust domain"),
        ("spiffe://user@demo.test/a", "trust domain"),
        ("spiffe://demo%2Etest/a", "trust domain"),
        ("spiffe://d\u00e9mo.test/a", "trust domain"),
        ("spiffe://demo.test\n/a", "trust domain"),
        ("spiffe://demo.test/", "empty segment"),
        ("spiffe://demo.test/a/", "empty segment"),
        ("spiffe://demo.test/a//b", "empty segment"),
        ("spiffe://demo.test/a/../b", "one of dots"),
        ("spiffe://demo.test/./b", "one of dots"),
        ("spiffe://demo.test/a?b=c", "path segment"),
        ("spiffe://demo.test/a#b", "path segment"),
        ("spiffe://demo.test/%61", "path segment"),
        ("spiffe://demo.test/a b", "path segment"),
        ("spiffe://demo.test/a\n", "path segment"),
        ("spiffe://demo.test/\u0430", "path segment"),
        (f"spiffe://{'a' * 256}", "longer than 255"),
        (f"spiffe://demo.test/{'a' * 2048}", "longer than 2048"),
    ],
)
def test_what_is_no_id_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(SpiffeIdError, match=reason):
        SpiffeId.parse(text)


def test_the_longest_ids_are_ids() -> None:
    assert SpiffeId.parse(f"spiffe://{'a' * 255}").trust_domain == "a" * 255
    longest = "spiffe://demo.test/" + "a" * (2048 - len("spiffe://demo.test/"))
    assert str(SpiffeId.parse(longest)) == longest


@given(st.lists(_ids.map(str), max_size=4))
def test_a_certificate_has_one_uri_or_nobody(uris: list[str]) -> None:
    if len(uris) == 1:
        assert str(sole_id(uris)) == uris[0]
    else:
        with pytest.raises(SpiffeIdError, match=f"has {len(uris)}"):
            sole_id(uris)


@given(_ids, _ids)
def test_a_pattern_for_one_matches_only_that_one(one: SpiffeId, other: SpiffeId) -> None:
    pattern = SpiffePattern.parse(str(one))
    assert pattern.matches(one)
    assert pattern.matches(other) is (one == other)


@given(_ids, _segments)
def test_a_pattern_for_all_below_matches_what_is_below(parent: SpiffeId, segment: str) -> None:
    pattern = SpiffePattern.parse(f"{parent}/*")
    assert str(pattern) == f"{parent}/*"
    assert pattern.matches(SpiffeId(parent.trust_domain, f"{parent.path}/{segment}"))
    assert not pattern.matches(parent)
    assert not pattern.matches(SpiffeId(f"{parent.trust_domain}x", f"{parent.path}/{segment}"))
    assert not pattern.matches(SpiffeId(parent.trust_domain, f"{parent.path}x/{segment}")) or not parent.path


@pytest.mark.parametrize("text", ["*", "spiffe://*", "spiffe://*/a", "spiffe://demo.test/*/a", "spiffe://demo.test/a*"])
def test_a_star_stands_at_the_end_of_a_path_only(text: str) -> None:
    with pytest.raises(SpiffeIdError):
        SpiffePattern.parse(text)
