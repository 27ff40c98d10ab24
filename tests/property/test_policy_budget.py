"""The retry budget is never exceeded, and a place that is free is given."""

from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.cluster import RetryBudget, Thresholds
from meshlib.policy.budget import admit_retry, release, retry_limit
from meshlib.state.cells import PriorityState

LIMITS = st.one_of(
    st.builds(Thresholds, max_retries=st.integers(0, 6)),
    st.builds(
        Thresholds,
        retry_budget=st.builds(RetryBudget, st.floats(0, 100), st.integers(0, 6)),
    ),
)
STEPS = st.lists(st.sampled_from(["request", "answer", "retry", "end"]), max_size=120)


@given(LIMITS, STEPS)
def test_a_retry_is_admitted_exactly_while_the_limit_has_room(limits: Thresholds, steps: list[str]) -> None:
    state, requests, retries = PriorityState(), [], []
    for step in steps:
        if step == "request":
            requests.append(object())
            state.requests[requests[-1]] = None
        elif step == "answer" and requests:
            state.requests.pop(requests.pop())
        elif step == "end" and retries:
            release(state, retries.pop())
        elif step == "retry":
            room = len(retries) < retry_limit(state, limits)
            token = object()
            assert admit_retry(state, limits, token) == room
            if room:
                retries.append(token)
        assert list(state.retries) == retries or set(state.retries) == set(retries)
