"""The very host before the longest wildcard, found without trying every host there is."""

import pytest

from meshlib.sources.istio import hosts
from meshlib.sources.istio.hosts import HostIndex, is_covered

INDEX = HostIndex([("a.test", 1), ("*.test", 2), ("*.b.test", 3), ("a.test", 4), ("*", 5), ("*.c.test", 6)])


@pytest.mark.parametrize(
    "host, expected",
    [
        ("a.test", (1, 4)),
        ("z.test", (2,)),
        ("z.b.test", (3,)),
        ("*.b.test", (3,)),
        ("*.z.c.test", (6,)),
        ("elsewhere", (5,)),
    ],
)
def test_the_most_specific_speaks(host: str, expected: tuple[int, ...]) -> None:
    assert INDEX.of(host) == expected
    assert HostIndex([("a.test", 1)]).of("b.test") == ()


def test_a_host_or_a_wildcard_covers() -> None:
    assert is_covered("a.test", {"a.test"})
    assert is_covered("*.test", {"a.test"})
    assert not is_covered("*.other", {"a.test"})
    assert not is_covered("a.test", {"*.test"})


def test_a_host_that_is_named_is_compared_with_no_wildcard(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(hosts, "matches", lambda pattern, host: compared.append(pattern) or False)
    index = HostIndex([(f"{number}.test", number) for number in range(1000)] + [("*.other", -1)])
    assert index.of("7.test") == (7,)
    assert compared == []
    assert index.of("absent") == ()
    assert compared == ["*.other"], "only wildcards are tried"
