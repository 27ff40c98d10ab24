"""The little Markdown the tables need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(words: Iterable[str]) -> str:
    """Words as code, separated by commas."""
    return ", ".join(f"`{word}`" for word in words)


def complete(what: str, wanted: Iterable[str], given: Iterable[str]) -> None:
    """Stop when the words written here are not exactly those the code has."""
    missing, surplus = set(wanted) - set(given), set(given) - set(wanted)
    if missing or surplus:
        raise SystemExit(f"{what}: missing {sorted(missing)}, not in the code {sorted(surplus)}")
