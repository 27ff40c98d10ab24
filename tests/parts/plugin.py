"""``@pytest.mark.needs("redis", ...)``: skip where a part is missing, fail where it is required, and say so at the end.

``@pytest.mark.slow``: what is long by nature. Left out, and counted at the end, unless ``-m`` says what to run.
``MESHLIB_REQUIRE_PARTS`` names the parts that must be there, separated by commas; ``1`` means all that any test needs.

With ``-n`` (pytest-xdist) the workers know what was not tested, and tell the process that reports.
"""

import os
from collections import Counter
from typing import Any

import pytest

from parts.registry import PARTS, find

# A test that asks for one of these fixtures needs the part, marked or not.
PART_OF_FIXTURE = {
    "envoy": "envoy",
    "redis_server": "redis",
    "redis_factory": "redis",
    "ratelimit_server": "ratelimit",
    "go_control_plane": "go_control_plane",
    "istio_generator": "istio_generator",
}

_missing_of_item = pytest.StashKey[tuple[str, ...]]()
_untested = pytest.StashKey[Counter[str]]()
_slow = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(*parts): outside parts the test runs against; one of {', '.join(PARTS)}")
    config.addinivalue_line("markers", "slow: long by nature, run by make soak")
    config.stash[_untested] = Counter()
    config.stash[_slow] = 0
    if unknown := _required() - set(PARTS):
        raise pytest.UsageError(f"MESHLIB_REQUIRE_PARTS names unknown parts: {', '.join(sorted(unknown))}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.option.markexpr:
        slow = [item for item in items if item.get_closest_marker("slow")]
        config.stash[_slow] = len(slow)
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    for item in items:
        needed = _needed(item)
        if unknown := needed - set(PARTS):
            raise pytest.UsageError(f"{item.nodeid} needs unknown parts: {', '.join(sorted(unknown))}")
        item.stash[_missing_of_item] = tuple(name for name in sorted(needed) if find(name) is None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = item.stash.get(_missing_of_item, ())
    if not missing:
        return
    item.config.stash[_untested].update(missing)
    text = ", ".join(f"{name} ({PARTS[name].remedy})" for name in missing)
    if required := _required().intersection(missing):
        pytest.fail(f"required but not on this machine: {text}; required: {', '.join(sorted(required))}", pytrace=False)
    pytest.skip(f"needs {text}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["untested"], output["slow"] = dict(session.config.stash[_untested]), session.config.stash[_slow]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told: dict[str, Any] = getattr(node, "workeroutput", {})  # none from a worker that crashed
    config: pytest.Config = node.config
    config.stash[_untested].update(told.get("untested", {}))
    config.stash[_slow] = max(config.stash[_slow], told.get("slow", 0))  # every worker collects every test


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    untested, slow = config.stash[_untested], config.stash[_slow]
    if not untested and not slow:
        return
    terminalreporter.section("not tested", yellow=True)
    for name, count in sorted(untested.items()):
        terminalreporter.line(f"NOT TESTED for want of {name} ({PARTS[name].remedy}): {_tests(count)}")
    if slow:
        terminalreporter.line(f"NOT TESTED because slow (make soak, or pytest -m slow): {_tests(slow)}")


def _tests(count: int) -> str:
    return f"{count} test" if count == 1 else f"{count} tests"


def _needed(item: pytest.Item) -> set[str]:
    marked = {str(name) for marker in item.iter_markers("needs") for name in marker.args}
    fixtures = getattr(item, "fixturenames", ())
    return marked | {PART_OF_FIXTURE[name] for name in fixtures if name in PART_OF_FIXTURE}


def _required() -> set[str]:
    value = os.environ.get("MESHLIB_REQUIRE_PARTS", "").strip()
    if value == "1":
        return set(PARTS)
    return {name.strip() for name in value.split(",") if name.strip()}
