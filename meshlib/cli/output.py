"""How issues are printed: plain lines that editors can jump from, coloured on a terminal when rich is there."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TextIO

from meshlib.model.report import Issue

_STYLES = {"error": "bold red", "degraded": "yellow"}


def print_issues(issues: Iterable[Issue], stream: TextIO) -> None:
    """One line an issue, `file:line: severity: resource: path: reason (fix)`."""
    console = _console(stream)
    for issue in issues:
        if console is None:
            print(issue, file=stream)
        else:
            from rich.text import Text

            console.print(Text(str(issue), _STYLES[issue.severity]), soft_wrap=True)


def _console(stream: TextIO):  # type: ignore[no-untyped-def]
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False)


def note(text: str) -> None:
    """A line for people who watch a running command; standard output stays free of it."""
    print(text, file=sys.stderr, flush=True)
