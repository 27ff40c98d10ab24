"""`meshlib route test CASES --config FILE...`: a table of requests and what a configuration should do with them."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from meshlib.cli.output import note, print_issues

if TYPE_CHECKING:
    from meshlib.explain.route_suite import CaseResult, Coverage

DESCRIPTION = """\
Tests of a configuration. 'meshlib route test' runs a table of requests over it and compares where each would go with
what the table says, decided by the code that calls run through. Nothing is sent anywhere. The table is YAML or JSON, in
our own words or in those of Envoy's router check tool (tests: [{test_name, input, validate}]).
"""
EPILOG = """\
a table:
  tests:
  - name: testers get the canary
    request: {method: POST, url: "http://payments/charge", headers: {x-canary: "1"}}
    expect: {cluster: payments-v2, path: /v2/charge, request_headers: {x-lane: canary, x-old: null}}
  - name: nine of ten stay
    request: {url: "http://payments/charge"}
    expect: {weights: {payments-v1: 90, payments-v2: 10}, timeout: 3s}
  - name: old links
    request: {url: "http://shop/old"}
    expect: {status: 301, location: "http://shop/new"}

what can be expected: virtual_host, virtual_cluster, route, cluster, weights, subset, endpoint, authority, path,
timeout, num_retries, status, location, body, response_flag, pass_through, request_headers and response_headers (a text,
null for a missing header, or one of exact, prefix, suffix, contains, safe_regex). A random_value beside the request
stands for chance.

examples:
  meshlib route test cases.yaml --config conf/
  meshlib route test cases.yaml --config conf/ --fail-under 100    every route must be reached by a case
  meshlib route test cases.yaml --config routes.yaml --json | jq '.cases[] | select(.passed | not)'

exit code: 0 every case passed, 1 one failed, the coverage is too low, or a file has errors, 2 called wrongly
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's own commands and their options."""
    parser.description = "Tests of a configuration's routes."
    commands = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    test = commands.add_parser(
        "test",
        help="run a table of requests over a configuration",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    test.add_argument("cases", nargs="+", metavar="CASES", help="files with tables of cases")
    test.add_argument(
        "--config",
        action="extend",
        nargs="+",
        required=True,
        metavar="FILE",
        help="the configuration, files and folders",
    )
    test.add_argument("--only-failures", action="store_true", help="print no line for a case that passed")
    test.add_argument("--details", action="store_true", help="explain the decision of each case that failed")
    test.add_argument("--fail-under", type=float, default=0.0, metavar="PERCENT", help="of the routes to be reached")
    test.add_argument("--json", action="store_true", help="print one JSON object")
    test.add_argument("--junit", metavar="FILE.xml", help="write a JUnit report too")
    test.add_argument("--seed", type=int, default=0, help="makes chance repeatable (default %(default)s)")


def run(options: argparse.Namespace) -> int:
    """Run the cases and print what came of them."""
    from meshlib.cli.explain import explainer_of
    from meshlib.explain.route_cases import read_cases
    from meshlib.explain.route_suite import RouteSuite

    explainer, issues = explainer_of(options.config, seed=options.seed)
    cases, wrong = [], list[Any]()
    for name in options.cases:
        found, problems = read_cases(Path(name))
        cases += found
        wrong += problems
    print_issues([*issues, *wrong], sys.stderr)
    if explainer is None:
        return 1
    suite = RouteSuite(explainer)
    results = list(suite.run(cases))
    if options.json:
        print(json.dumps(_as_json(results, suite.coverage), indent=2))
    else:
        _print(results, suite.coverage, options)
    if options.junit:
        _junit(results).write(options.junit, encoding="utf-8", xml_declaration=True)
    covered = suite.coverage.percent >= options.fail_under
    if not covered:
        note(
            f"meshlib route test: {suite.coverage.percent:.1f} % of the routes reached, wanted {options.fail_under:g} %"
        )
    return 0 if covered and not wrong and not any(result.failures for result in results) else 1


def _print(results: Iterable[CaseResult], coverage: Coverage, options: argparse.Namespace) -> None:
    from meshlib.explain.text import lines

    failed = total = 0
    for result in results:
        total += 1
        case = result.case
        if not result.failures:
            if not options.only_failures:
                print(f"ok    {case.name}")
            continue
        failed += 1
        print(f"FAIL  {case.name}  ({case.file}:{case.line})")
        for failure in result.failures:
            print(f"        {failure}")
        if options.details:
            for line in lines(result.explanation):
                print(f"        | {line}")
    for place in coverage.missing:
        print(f"no case reaches {place}")
    print(
        f"{total} case(s), {failed} failed; {len(coverage.reached)} of {len(coverage.places)} routes reached "
        f"({coverage.percent:.1f} %)"
    )


def _as_json(results: Iterable[CaseResult], coverage: Coverage) -> dict[str, Any]:
    cases = [
        {
            "name": result.case.name,
            "file": result.case.file,
            "line": result.case.line,
            "passed": not result.failures,
            "failures": list(result.failures),
            "explanation": result.explanation.to_dict(),
        }
        for result in results
    ]
    return {
        "passed": all(case["passed"] for case in cases),
        "cases": cases,
        "coverage": {
            "percent": coverage.percent,
            "routes": len(coverage.places),
            "reached": len(coverage.reached),
            "missing": coverage.missing,
        },
    }


def _junit(results: Iterable[CaseResult]) -> ElementTree.ElementTree[ElementTree.Element]:
    suite = ElementTree.Element("testsuite", name="meshlib route test")
    failed = total = 0
    for result in results:
        total += 1
        case = ElementTree.SubElement(suite, "testcase", name=result.case.name, file=result.case.file)
        case.set("line", str(result.case.line))
        if result.failures:
            failed += 1
            ElementTree.SubElement(case, "failure", message=result.failures[0]).text = "\n".join(result.failures)
    suite.set("tests", str(total))
    suite.set("failures", str(failed))
    return ElementTree.ElementTree(suite)
