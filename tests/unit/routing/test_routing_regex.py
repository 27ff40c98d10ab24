"""Configured regexes: RE2 only, whole-value tests, substitution as RE2's GlobalReplace."""

import sys

import pytest

from meshlib.model.matchers import RegexRewrite
from meshlib.model.report import ResourceError
from meshlib.routing import regex
from meshlib.routing.regex import compile_regex, compile_substitution


@pytest.mark.parametrize(
    "pattern, text, expected",
    [
        ("a.*", "abc", True),
        ("a", "ab", False),  # the whole value, not a part of it
        ("", "", True),
        ("[0-9]+", "12", True),
        ("[0-9]+", "12x", False),
        ("(a|b)+", "abba", True),
        ("é", "é".encode().decode("latin-1"), True),  # wire text: a character per byte
        ("é", "e", False),
    ],
)
def test_a_regex_matches_the_whole_value(pattern: str, text: str, expected: bool) -> None:
    assert compile_regex(pattern).fullmatch(text) is expected


@pytest.mark.parametrize(
    "pattern, substitution, text, expected",
    [
        ("a", "b", "banana", "bbnbnb"),
        ("b*", "-", "abc", "-a-c-"),  # empty matches count once between characters
        ("^/", "//", "/x/y", "//x/y"),
        ("/(.)(.*)", r"/\2\1", "/abc", "/bca"),
        ("(a)|(b)", r"[\1\2]", "ab", "[a][b]"),  # a group that took no part is empty
        ("x", r"\0\0", "axb", "axxb"),
        ("x", r"\\", "axb", "a\\b"),
        ("x", "é", "x", "é".encode().decode("latin-1")),
        ("q", "r", "abc", "abc"),
        ("z*", "-", "é".encode().decode("latin-1"), "-" + "é".encode().decode("latin-1") + "-"),
    ],
)
def test_every_match_is_replaced(pattern: str, substitution: str, text: str, expected: str) -> None:
    assert compile_substitution(RegexRewrite(pattern, substitution))(text) == expected
    assert compile_regex(pattern).substitute(text, substitution) == expected


def test_a_pattern_re2_refuses_says_why() -> None:
    with pytest.raises(ResourceError, match=r"RE2 refuses '\(a'.*missing \)"):
        compile_regex("(a")


def test_backreferences_and_lookaround_are_refused() -> None:
    for pattern in (r"(a)\1", "(?=a)"):
        with pytest.raises(ResourceError):
            compile_regex(pattern)


def test_a_catastrophic_pattern_is_linear() -> None:
    assert compile_regex("(a+)+b").fullmatch("a" * 20_000) is False


def test_program_size_is_capped() -> None:
    with pytest.raises(ResourceError, match="program of size"):
        compile_regex(r"\pL{200}")


@pytest.mark.parametrize("substitution", [r"\2", "\\", r"\x"])
def test_a_substitution_that_cannot_be_made_is_refused(substitution: str) -> None:
    with pytest.raises(ResourceError, match="substitution"):
        compile_substitution(RegexRewrite("(a)", substitution))


def test_without_re2_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    regex.compile_regex.cache_clear()
    with pytest.raises(ResourceError, match=r"pip install 'meshlib\[re2\]'"):
        compile_regex("never compiled before")
