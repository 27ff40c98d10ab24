"""Where meshlib differs from Envoy on purpose: the lists the differential tests make their exceptions by."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "tests" / "differential"


def lists() -> str:
    """The docstring of each `*_differences.py`, under the name of its subject."""
    parts = []
    for path in sorted(TESTS.glob("*_differences.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        subject = path.stem.removesuffix("_differences").replace("_", " ").capitalize()
        parts.append(f"### {subject}\n\n{text}")
    return "\n\n".join(parts)
