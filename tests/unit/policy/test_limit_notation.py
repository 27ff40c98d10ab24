"""Limits as people write them."""

from __future__ import annotations

import random

import pytest

from meshlib import local_limit
from meshlib.engine.local_limit import LocalRateLimitFilter
from meshlib.model.filters import TokenBucket
from meshlib.model.request import RequestHead


def test_a_limit_from_code_holds_for_every_request() -> None:
    limit, rng, head = LocalRateLimitFilter(local_limit("3/minute")), random.Random(1), RequestHead("GET", "", "", "/")
    assert [limit.on_request(head, 1.0, rng) is None for _ in range(5)] == [True, True, True, False, False]
    assert limit.on_request(head, 21.0, rng) is None, "a third of a minute later one token is back"


@pytest.mark.parametrize(
    "text,bucket", [("100/minute", TokenBucket(100, 100, 60.0)), ("5 per 10 seconds", TokenBucket(5, 5, 10.0))]
)
def test_the_bucket_is_the_amount_filled_in_the_window(text: str, bucket: TokenBucket) -> None:
    assert local_limit(text).token_bucket == bucket
    assert local_limit(text).stat_prefix == text


def test_what_is_not_a_limit_is_told_how_to_be_one() -> None:
    with pytest.raises(ValueError, match="100/minute"):
        local_limit("a lot")
