"""The thresholds of health checks under any sequence of results, against a reckoning from the whole history."""

from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.health import HealthCheck, HttpHealthCheck
from meshlib.policy.health import PASSED, FailureKind, Finding, HealthMonitor

FINDINGS = [PASSED, Finding(degraded=True), *(Finding(kind) for kind in FailureKind)]
FINDINGS.append(Finding(FailureKind.ACTIVE, retriable=True))


def plain(finding: Finding) -> bool:
    return finding.kind is not None and not finding.kind.network and not finding.retriable


def expected(history: list[Finding], unhealthy: int, healthy: int) -> bool:
    """Whether the endpoint has failed: told without a state, by the last stretch that was long enough to decide."""
    if history[0].kind is None:
        failed, since = False, 0
    else:
        failed, since = True, 0
    for end in range(1, len(history)):
        run = history[since + 1 : end + 1]
        if failed:
            last = run[-healthy:]
            if len(last) == healthy and all(each.kind is None for each in last):
                failed, since = False, end
        else:
            last = run[-unhealthy:]
            if plain(run[-1]) or (len(last) == unhealthy and all(each.kind is not None for each in last)):
                failed, since = True, end
    return failed


@given(
    history=st.lists(st.sampled_from(FINDINGS), min_size=1, max_size=40),
    unhealthy=st.integers(1, 4),
    healthy=st.integers(1, 4),
)
def test_health_is_what_the_history_says(history: list[Finding], unhealthy: int, healthy: int) -> None:
    monitor = HealthMonitor(HealthCheck(HttpHealthCheck(), 1.0, 1.0, unhealthy, healthy))
    for number, finding in enumerate(history, 1):
        before = monitor.flags
        transition = monitor.take(finding)
        assert monitor.flags.failed == expected(history[:number], unhealthy, healthy)
        turned = before.failed != monitor.flags.failed
        assert not turned or transition == "changed"
        assert transition != "pending" or not turned
        assert transition != "unchanged" or before[:4] == monitor.flags[:4]
        passes = [each for each in history[:number] if each.kind is None]
        assert monitor.flags.degraded == (bool(passes) and passes[-1].degraded)
        assert not monitor.flags.timeout or monitor.flags.failed
