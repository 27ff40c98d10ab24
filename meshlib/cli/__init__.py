"""The command line. The entry point is `main`; each command's module is imported when it is called."""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `meshlib ARGUMENTS` (default: the process's own) and return the exit code."""
    from meshlib.cli.main import run

    return run(arguments)
