"""`meshlib explain METHOD URL --config FILE...`: where a request would go, and why."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from meshlib.cli.output import note, print_issues
from meshlib.cli.request_lines import answers

if TYPE_CHECKING:
    from meshlib.explain import Explainer
    from meshlib.model.report import Issue

DESCRIPTION = """\
Says where a request would go and why, decided by the code that calls run through: the virtual host, each route tried
and why not, weights, filters, endpoints, the request as the upstream would see it, timeouts and retries; or the
redirect, the direct response, the response flag. Nothing is sent anywhere.
"""
EPILOG = """\
examples:
  meshlib explain GET http://payments/charge -H 'x-canary: 1' --config conf/
  meshlib explain GET http://payments/charge --json --config a.yaml --config b.yaml | jq .cluster
  meshlib explain --requests requests.jsonl --config conf/ > decisions.jsonl
  meshlib explain GET http://payments/charge --live /run/checkout/7.sock    as a running process would, with the state
                                                                            of its endpoints (Mesh(admin=...))

--requests reads one object a line ('-': standard input) and writes one a line, in order:
  {"method": "GET", "url": "http://payments/charge", "headers": {"x-canary": "1"}}
Method (GET) and headers may be left out; headers may also be [["name", "value"], ...]. A line that is no request is
answered by {"line": 3, "error": "..."}, and the rest goes on.

exit code: 0 every request was answered (by whatever decision), 1 the configuration has errors or a line of --requests
is no request, 2 called wrongly. Degraded fields are told on standard error and do not change the exit code.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("method", nargs="?", metavar="METHOD", help="GET, POST, ...")
    parser.add_argument("url", nargs="?", metavar="URL", help="absolute: http://payments/charge?x=1")
    parser.add_argument(
        "-H", dest="headers", action="append", default=[], metavar="'NAME: VALUE'", help="a header; may be repeated"
    )
    parser.add_argument(
        "--config",
        action="extend",
        nargs="+",
        metavar="FILE",
        help="files and directories, read as one configuration; may be repeated",
    )
    parser.add_argument(
        "--live", metavar="SOCKET", help="ask a running process by its admin socket, in place of --config"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--requests", metavar="FILE.jsonl", help="answer each line of a file ('-': standard input)")
    parser.add_argument("--seed", type=int, default=0, help="makes weighted choices repeatable (default %(default)s)")
    parser.add_argument("--reject-unknown", action="store_true", help="hosts nothing speaks for are refused")
    parser.add_argument("--brief", action="store_true", help="leave out the routes tried and the endpoints (faster)")


def run(options: argparse.Namespace) -> int:
    """Explain and print."""
    if (problem := _misuse(options)) is not None:
        note(f"meshlib explain: {problem}")
        return 2
    if options.live is not None:
        from meshlib.cli.live import explain_live

        return explain_live(options)
    with ExitStack() as stack:
        try:
            lines = _requests(options.requests, stack)
        except OSError as error:
            note(f"meshlib explain: {error}")
            return 2
        explainer, issues = explainer_of(
            options.config, seed=options.seed, reject_unknown=options.reject_unknown, brief=options.brief
        )
        print_issues(issues, sys.stderr)
        if explainer is None:
            return 1
        if lines is not None:
            return _answer_lines(explainer, lines, sys.stdout)
        return _answer_one(explainer, options)


def _misuse(options: argparse.Namespace) -> str | None:
    if (options.live is None) is (options.config is None):
        return "--config FILE or --live SOCKET says where the configuration is"
    if options.live is not None and options.requests is not None:
        return "--requests reads a configuration: it takes --config"
    if options.requests is None:
        if options.method is None or options.url is None:
            return "METHOD and URL, or --requests FILE, say what to explain"
    elif options.method is not None or options.headers:
        return "--requests takes the place of METHOD, URL and -H"
    bad = next((header for header in options.headers if ":" not in header), None)
    return None if bad is None else f"-H {bad!r} is not 'name: value'"


def _requests(path: str | None, stack: ExitStack) -> Iterable[str] | None:
    if path is None or path == "-":
        return None if path is None else sys.stdin
    return stack.enter_context(Path(path).open(encoding="utf-8", errors="surrogateescape"))


def explainer_of(paths: Iterable[str], **options: Any) -> tuple[Explainer | None, list[Issue]]:
    """The explainer of a configuration, None when that has errors; and every issue. `options` are the explainer's."""
    from meshlib.cli.compiled import compile_issue
    from meshlib.explain import Explainer
    from meshlib.sources.files.loader import load
    from meshlib.sources.files.snapshot import build_snapshot

    snapshot, found = build_snapshot(load(paths))
    issues = list(found)
    failed = any(issue.severity == "error" for issue in issues)
    if not failed and (refused := compile_issue(snapshot)) is not None:
        failed = True
        issues.append(refused)
    if failed:
        return None, issues
    return Explainer(snapshot, **options), issues


def _answer_one(explainer: Explainer, options: argparse.Namespace) -> int:
    from meshlib.explain.text import lines

    pairs = [header.partition(":") for header in options.headers]
    try:
        result = explainer.explain(
            options.method, options.url, [(name.strip(), value.strip()) for name, _, value in pairs]
        )
    except ValueError as error:
        note(f"meshlib explain: {error}")
        return 2
    print(json.dumps(result.to_dict(), indent=2) if options.json else "\n".join(lines(result)))
    return 0


def _answer_lines(explainer: Explainer, requests: Iterable[str], out: TextIO) -> int:
    """A line of JSON for every line; 1 when there was one that is no request."""
    failed = 0
    encode = json.JSONEncoder().encode
    for number, answer in answers(explainer, requests):
        if isinstance(answer, str):
            failed = 1
            out.write(encode({"line": number, "error": answer}) + "\n")
        else:
            out.write(encode(answer.to_dict()) + "\n")
    return failed
