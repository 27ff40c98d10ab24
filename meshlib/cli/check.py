"""`meshlib check FILE...`: every mistake of a configuration, with resource, field path, reason, fix, file and line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meshlib.cli.output import print_issues
from meshlib.model.report import Issue

if TYPE_CHECKING:
    from meshlib.sources.files.resources import Loaded

DESCRIPTION = """\
Validates configuration files: Envoy-format YAML and JSON (a bootstrap or single resources), Istio's VirtualService,
DestinationRule, ServiceEntry, WorkloadEntry and Sidecar, and lanes (LaneGroup, NearbyRouting). Errors are what no data
plane would take; 'degraded' is valid configuration that meshlib does not apply, with what happens instead.
"""
EPILOG = """\
examples:
  meshlib check conf/                  a directory: *.yaml, *.yml and *.json, recursively
  meshlib check --strict conf/         degraded fields are errors too
  meshlib check --json a.yaml | jq     {"ok": ..., "errors": 1, "degraded": 0, "resources": {...}, "issues": [...]}
  meshlib check conf/ --traffic        are canaries shared as written? weighted routes and lanes, by a chi-squared test
  meshlib check conf/ --observed counts.json    the same for what was counted in production

exit code: 0 fine, 1 errors, 2 called wrongly
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("paths", nargs="+", metavar="FILE", help="files and directories, read as one configuration")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--strict", action="store_true", help="treat degraded fields as errors")
    parser.add_argument(
        "--traffic",
        type=_requests,
        nargs="?",
        const=100_000,
        metavar="N",
        help="draw N requests (default %(const)s) for each place that shares traffic, and test the shares",
    )
    parser.add_argument(
        "--observed", metavar="FILE", help="test what was counted instead: {route: {cluster: count}}, YAML or JSON"
    )
    parser.add_argument("--seed", type=int, default=0, help="makes --traffic repeatable (default %(default)s)")


def _requests(text: str) -> int:
    """At least one: shares of nothing are always kept."""
    requests = int(text)
    if requests < 1:
        raise argparse.ArgumentTypeError(f"{text} requests show nothing")
    return requests


@dataclass(frozen=True, slots=True)
class Checked:
    """What was read, and everything there is to say about it, by file and line."""

    loaded: Loaded
    issues: tuple[Issue, ...]


def check(paths: Iterable[str]) -> Checked:
    """Read files and directories as one configuration, compile it, and put nothing into force."""
    from meshlib.cli.compiled import compile_issue
    from meshlib.sources.files.loader import load
    from meshlib.sources.files.snapshot import build_snapshot

    loaded = load(tuple(paths))
    snapshot, issues = build_snapshot(loaded)
    if not any(issue.severity == "error" for issue in issues) and (refused := compile_issue(snapshot)) is not None:
        issues = (*issues, refused)
    return Checked(
        loaded, tuple(sorted(issues, key=lambda issue: (issue.file, issue.line, issue.resource, issue.path)))
    )


def run(options: argparse.Namespace) -> int:
    """Check and print; the exit code says whether there were errors."""
    from meshlib.sources.files.type_registry import short_name

    checked = check(options.paths)
    loaded, issues = checked.loaded, checked.issues
    if options.traffic is not None or options.observed is not None:
        from meshlib.cli.traffic import run_traffic

        return run_traffic(options, checked)
    failing = [issue for issue in issues if options.strict or issue.severity == "error"]
    counts: dict[str, int] = {}
    for resource in loaded.resources:
        kind = short_name(resource.type_name)
        counts[kind] = counts.get(kind, 0) + 1
    if options.json:
        print(_as_json(issues, counts, ok=not failing))
    else:
        print_issues(issues, sys.stdout)
        print(_summary(issues, counts, len(loaded.files)))
    return 1 if failing else 0


def _as_json(issues: Sequence[Issue], counts: dict[str, int], *, ok: bool) -> str:
    return json.dumps(
        {
            "ok": ok,
            "errors": sum(issue.severity == "error" for issue in issues),
            "degraded": sum(issue.severity == "degraded" for issue in issues),
            "resources": counts,
            "issues": [dataclasses.asdict(issue) for issue in issues],
        },
        indent=2,
    )


def _summary(issues: Sequence[Issue], counts: dict[str, int], files: int) -> str:
    found = ", ".join(f"{number} {kind}" for kind, number in sorted(counts.items())) or "no resources"
    errors = sum(issue.severity == "error" for issue in issues)
    return f"{files} file(s): {found}; {errors} error(s), {len(issues) - errors} degraded"
