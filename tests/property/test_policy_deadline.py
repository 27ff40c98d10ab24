"""Deadline headers: what we write we read back never longer, and nothing a stranger sends is an error."""

import math

from hypothesis import given
from hypothesis import strategies as st

from meshlib.policy import deadline


@given(st.floats(0.0, 1e8))
def test_a_deadline_never_grows_on_its_way(seconds: float) -> None:
    for text, parse in (
        (deadline.format_grpc_timeout(seconds), deadline.parse_grpc_timeout),
        (deadline.format_expected_timeout(seconds), deadline.parse_expected_timeout),
    ):
        found = parse(text)
        assert found is not None
        floor = 1e-9 if parse is deadline.parse_grpc_timeout else 1e-3
        assert found <= max(seconds, floor) * (1 + 1e-9)
        assert (found > 0) == (seconds > 0)
        assert found >= seconds * 0.98 - 1e-3


@given(st.text())
def test_any_text_is_a_timeout_or_none(text: str) -> None:
    for parse in (deadline.parse_grpc_timeout, deadline.parse_expected_timeout):
        found = parse(text)
        assert found is None or (found >= 0 and math.isfinite(found))


@given(st.floats(0, 1e6), st.lists(st.none() | st.floats()))
def test_the_effective_deadline_is_never_in_the_past_nor_later_than_any_timeout(
    now: float, timeouts: list[float | None]
) -> None:
    found = deadline.effective(now, *timeouts)
    known = [value for value in timeouts if value is not None and not math.isnan(value)]
    assert (found is None) == (not known or min(known) == math.inf)
    if found is not None:
        assert found >= now
        assert all(found <= max(now, now + value) for value in known)
