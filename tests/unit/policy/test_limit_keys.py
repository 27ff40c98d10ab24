"""Keys of shared limits from requests."""

import pytest

from meshlib.model.request import RequestHead
from meshlib.policy.limit_key import LONGEST_KEY, bounded, compile_key

HEAD = RequestHead("POST", "http", "payments", "/charge?x=1", [(b"X-User", b"ada")])


@pytest.mark.parametrize(
    "template,expected",
    [
        ("", ""),
        ("everybody", "everybody"),
        ("%REQ(x-user)%", "ada"),
        ("%REQ(X-User)%", "ada"),
        ("user:%REQ(x-user)% on %REQ(:method)%", "user:ada on POST"),
        ("%REQ(:authority)%%REQ(:path)%", "payments/charge?x=1"),
        ("%REQ(x-tenant)%", "-"),
        ("100%", "100%"),
    ],
)
def test_a_text_with_operators(template: str, expected: str) -> None:
    assert compile_key(template)(HEAD) == expected


def test_a_callable_is_taken_as_it_is() -> None:
    assert compile_key(lambda head: head.path_only)(HEAD) == "/charge"


@pytest.mark.parametrize("template", ["%DOWNSTREAM_REMOTE_ADDRESS%", "%RESP(x-user)%", "a%REQ%b"])
def test_an_operator_it_does_not_have_is_refused_when_it_is_written(template: str) -> None:
    with pytest.raises(ValueError, match="REQ"):
        compile_key(template)


def test_long_keys_become_digests_so_that_callers_do_not_choose_their_size() -> None:
    assert bounded("a" * LONGEST_KEY) == "a" * LONGEST_KEY
    long, other = bounded("a" * 10_000), bounded("a" * 9_999 + "b")
    assert len(long) < LONGEST_KEY
    assert long != other
    assert bounded("\udcff" * 1000).startswith("sha256:")
