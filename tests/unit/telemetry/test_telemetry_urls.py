"""URLs on spans: no credentials, no secret query values, no endless ones."""

import pytest

from meshlib.telemetry.urls import full_url, shown_query, split_authority


@pytest.mark.parametrize(
    "authority, target, shown",
    [
        ("payments", "/charge", "http://payments/charge"),
        ("user:secret@payments:80", "/", "http://REDACTED:REDACTED@payments:80/"),
        ("p", "/a?token=x&page=2&Sig=y", "http://p/a?token=REDACTED&page=2&Sig=REDACTED"),
        ("p", "/a?token", "http://p/a?token"),
        ("p", "/a#f", "http://p/a"),
        ("p", "*", "http://p"),
        ("p", "http://elsewhere/", "http://p"),
    ],
)
def test_full_url(authority: str, target: str, shown: str) -> None:
    assert full_url("http", authority, target) == shown


@pytest.mark.parametrize(
    "policy, shown", [("keep", "a=1&token=2"), ("drop", ""), ("redact", "a=REDACTED&token=REDACTED")]
)
def test_query_values_by_policy(policy, shown: str) -> None:
    assert shown_query("a=1&token=2", policy) == shown


def test_a_url_is_cut() -> None:
    assert len(full_url("http", "p", "/" + "x" * 100_000)) == 2048


@pytest.mark.parametrize(
    "scheme, authority, server",
    [
        ("http", "payments", ("payments", 80)),
        ("https", "payments", ("payments", 443)),
        ("http", "payments:8080", ("payments", 8080)),
        ("http", "[::1]:8080", ("::1", 8080)),
        ("http", "[::1]", ("::1", 80)),
        ("http", "p:port", ("p:port", 80)),
        ("http", "u:p@host:1", ("host", 1)),
        ("http", "", ("", 80)),
    ],
)
def test_the_server_of_an_authority(scheme: str, authority: str, server: tuple[str, int]) -> None:
    assert split_authority(scheme, authority) == server
