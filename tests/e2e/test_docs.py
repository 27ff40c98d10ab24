"""Every page of the documentation is followed as printed, and what is generated in it is up to date."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parts.doc_pages import ROOT, Reader, blocks
from parts.fixtures import Servers
from parts.registry import path_of

DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
RUN = ("python", "console")
NEEDS = re.compile(r"<!-- needs: ([a-z_]+) -->")
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:)([^)#\s]+)(?:#[^)]*)?\)")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def marks(page: Path) -> list[pytest.MarkDecorator]:
    """A page that says `<!-- needs: consul -->` is followed where that part is, and finds its program on PATH."""
    return [pytest.mark.needs(*NEEDS.findall(page.read_text(encoding="utf-8")))]


def followed() -> list[Any]:
    run = (page for page in PAGES if any(block.language in RUN for block in blocks(page)))
    return [pytest.param(page, marks=marks(page), id=name(page)) for page in run]


@pytest.mark.parametrize("page", followed())
def test_the_page_holds_as_printed(
    page: Path, tmp_path: Path, servers: Servers, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in NEEDS.findall(page.read_text(encoding="utf-8")):
        monkeypatch.setenv("PATH", f"{Path(path_of(part)).parent}{os.pathsep}{os.environ['PATH']}")
    runnable = [block for block in blocks(page) if block.language in RUN and not block.title and not block.skipped]
    assert Reader(page, tmp_path, servers, free_port).follow() == len(runnable)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_local_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert [link for link in LINK.findall(text) if not (page.parent / link).exists()] == []


def test_generated_parts_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_quickstart_and_the_readme_are_run() -> None:
    run = {page.name: sum(b.language in RUN and not b.skipped for b in blocks(page)) for page in PAGES}
    assert run["quickstart.md"] > 3
    assert run["README.md"] > 0


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "quickstart" / "index.html").exists()


def test_a_page_that_lies_fails(tmp_path: Path, servers: Servers, free_port: Callable[[], int]) -> None:
    page = tmp_path / "lie.md"
    page.write_text("```python\nprint(40 + 2)\n```\n\n```text\n...\n43\n```\n")
    with pytest.raises(AssertionError, match=r"lie\.md:5: the page says:\n\.\.\.\n43\n\nthe output is:\n42"):
        Reader(page, tmp_path, servers, free_port).follow()
