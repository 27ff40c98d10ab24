"""Which idle limit is in force, and what exceeding it means."""

import pytest

from meshlib.model.outcome import Failure, Outcome
from meshlib.model.route import RetryPolicy
from meshlib.policy.classify import classify
from meshlib.policy.idle import IdleLimit, compile_idle
from meshlib.policy.retry import compile_retry


@pytest.mark.parametrize(
    "route,manager,per_try,expected",
    [
        (None, None, None, None),
        (None, 300.0, None, IdleLimit(300.0, Failure.IDLE)),
        (2.0, 300.0, None, IdleLimit(2.0, Failure.IDLE)),
        (900.0, 300.0, None, IdleLimit(900.0, Failure.IDLE)),
        (0.0, 300.0, None, None),
        (None, 300.0, 1.0, IdleLimit(1.0, Failure.PER_TRY_TIMEOUT)),
        (0.5, 300.0, 1.0, IdleLimit(0.5, Failure.IDLE)),
        (0.0, 300.0, 1.0, IdleLimit(1.0, Failure.PER_TRY_TIMEOUT)),
        (0.0, 300.0, 0.0, None),
    ],
)
def test_the_limit_in_force(
    route: float | None, manager: float | None, per_try: float | None, expected: IdleLimit | None
) -> None:
    assert compile_idle(route, manager, per_try) == expected


def test_a_silent_stream_is_final_and_a_silent_try_is_not() -> None:
    rules = compile_retry(RetryPolicy(("5xx", "gateway-error", "reset", "connect-failure", "retriable-4xx")))
    assert rules is not None
    idle, silent_try = (Outcome(failure=failure) for failure in (Failure.IDLE, Failure.PER_TRY_TIMEOUT))
    assert (classify(idle).flag, classify(idle).status, rules.reason(idle, classify(idle))) == ("SI", 504, None)
    assert (classify(silent_try).flag, rules.reason(silent_try, classify(silent_try))) == ("UT", "reset")
