"""``@pytest.mark.needs("redis", ...)``: skip where a part is missing, fail where it is required, and say so at the end.

``MESHLIB_REQUIRE_PARTS`` names the parts that must be there, separated by commas; ``1`` means all that any test needs.
"""

import os
from collections import Counter

import pytest

from parts.registry import PARTS, find

# A test that asks for one of these fixtures needs the part, marked or not.
PART_OF_FIXTURE = {
    "envoy": "envoy",
    "redis_server": "redis",
    "redis_factory": "redis",
    "go_control_plane": "go_control_plane",
    "istio_generator": "istio_generator",
}

_missing_of_item = pytest.StashKey[tuple[str, ...]]()
_untested = pytest.StashKey[Counter[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs(*parts): outside parts the test runs against; one of {', '.join(PARTS)}")
    config.stash[_untested] = Counter()
    if unknown := _required() - set(PARTS):
        raise pytest.UsageError(f"MESHLIB_REQUIRE_PARTS names unknown parts: {', '.join(sorted(unknown))}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    untested = config.stash[_untested]
    if not untested:
        return
    terminalreporter.section("not tested", yellow=True)
    for name, count in sorted(untested.items()):
        noun = "test" if count == 1 else "tests"
        terminalreporter.line(f"NOT TESTED for want of {name} ({PARTS[name].remedy}): {count} {noun}")


def _needed(item: pytest.Item) -> set[str]:
    marked = {str(name) for marker in item.iter_markers("needs") for name in marker.args}
    fixtures = getattr(item, "fixturenames", ())
    return marked | {PART_OF_FIXTURE[name] for name in fixtures if name in PART_OF_FIXTURE}


def _required() -> set[str]:
    value = os.environ.get("MESHLIB_REQUIRE_PARTS", "").strip()
    if value == "1":
        return set(PARTS)
    return {name.strip() for name in value.split(",") if name.strip()}
