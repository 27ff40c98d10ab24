"""Writes the parts of these pages that the code knows best: `python docs/generate.py`; `--check` only compares.

A page names such a part by a pair of comments, `<!-- generated: NAME -->` and `<!-- /generated -->`; what stands
between them is replaced by what `tables` says under that name. tests/e2e/test_docs.py holds the pages to it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent), str(DOCS.parent / "tests")]

from tables import differences, envoy_fields, errors, events, explanation, istio_fields, metrics, retry_on  # noqa: E402

PARTS: dict[str, Callable[[], str]] = {
    "envoy-fields": envoy_fields.tables,
    "istio-fields": istio_fields.tables,
    "errors": errors.by_flag,
    "errors-kinds": errors.by_kind,
    "errors-body": errors.of_bodies,
    "events": events.table,
    "metrics-measured": metrics.measured,
    "metrics-clusters": metrics.clusters,
    "metrics-control": metrics.control,
    "explanation": explanation.table,
    "issue": explanation.issue,
    "retry-on": retry_on.table,
    "differences": differences.lists,
}
_PART = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)


def render(text: str) -> str:
    """The page with its generated parts as they should be. KeyError for a part nobody makes."""
    return _PART.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]().strip()}\n\n{found[3]}", text)


def main(check: bool) -> int:
    """Write, or compare; 1 when a page is out of date or a part is on no page."""
    pages = {page: page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.md"))}
    stale = {page: new for page, old in pages.items() if (new := render(old)) != old}
    unused = set(PARTS) - {found[2] for text in pages.values() for found in _PART.finditer(text)}
    for page, text in stale.items():
        if not check:
            page.write_text(text, encoding="utf-8")
        print(f"{page.relative_to(DOCS.parent)}: {'out of date, run python docs/generate.py' if check else 'written'}")
    for name in sorted(unused):
        print(f"no page shows {name}")
    return 1 if unused or (check and stale) else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
