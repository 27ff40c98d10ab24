"""Which baggage passes: the allowed keys, well-formed, within W3C's limits; by default none."""

import pytest

from meshlib.telemetry.baggage import MAX_BYTES, MAX_MEMBERS, BaggagePolicy

HEADER = "tenant=acme;ttl=3, region=eu%20west ,secret=s3cr3t"


def test_by_default_nothing_passes() -> None:
    assert BaggagePolicy().filtered(HEADER) == ""
    assert BaggagePolicy().values(HEADER) == {}
    assert BaggagePolicy().render([("tenant", "acme")]) == ""
    assert not BaggagePolicy()


def test_allowed_keys_pass_as_they_were_written() -> None:
    policy = BaggagePolicy(["tenant", "region"])
    assert policy.filtered(HEADER) == "tenant=acme;ttl=3,region=eu%20west"
    assert policy.values(HEADER) == {"tenant": "acme", "region": "eu west"}


def test_all_may_be_allowed() -> None:
    assert BaggagePolicy("*").filtered(HEADER) == "tenant=acme;ttl=3,region=eu%20west,secret=s3cr3t"


@pytest.mark.parametrize(
    "member",
    [
        *("", "tenant", "=acme", "ten ant=a", "tenant=a b", 'tenant="a"', "tenant=a\\", "tenant=\x00", "tenant=é"),
        *("tenant=a;x=\r\nhost: evil", "tenänt=a", "tenant=a\r\nx: y"),
    ],
)
def test_a_malformed_member_is_left_out_alone(member: str) -> None:
    assert BaggagePolicy("*").filtered(f"a=1,{member},b=2") == "a=1,b=2"


def test_members_and_bytes_are_bounded() -> None:
    many = ",".join(f"k{number}=v" for number in range(1000))
    assert BaggagePolicy("*").filtered(many).count(",") == MAX_MEMBERS - 1
    long = ",".join(f"k{number}={'v' * 1000}" for number in range(60))
    passed = BaggagePolicy("*").filtered(long)
    assert MAX_BYTES - 1100 < len(passed) <= MAX_BYTES
    assert passed.split(",")[-1] == f"k7={'v' * 1000}"  # whole members only


def test_a_single_member_that_is_too_long_is_no_member() -> None:
    assert BaggagePolicy("*").filtered("k=" + "v" * MAX_BYTES) == ""


def test_values_are_escaped_when_written() -> None:
    header = BaggagePolicy("*").render([("k", "a b,c;d\r\n%"), ("bad key", "x")])
    assert header == "k=a%20b%2Cc%3Bd%0D%0A%25"
    assert BaggagePolicy("*").values(header) == {"k": "a b,c;d\r\n%"}
