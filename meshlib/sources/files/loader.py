"""Paths → everything they say. Files that have not changed are not read again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshlib.model.report import Issue
from meshlib.model.zones import NOWHERE, Local
from meshlib.sources.files.documents import read_document
from meshlib.sources.files.paths import MAX_FILES, SUFFIXES, Signature, find_files, read_text, signature
from meshlib.sources.files.resources import Content, IstioDocument, Loaded, LoadedResource, MeshDocument, Origin
from meshlib.sources.files.yaml_tree import Document, YamlSyntaxError, parse_documents

if TYPE_CHECKING:
    from meshlib.sources.xds.node import Node

_ESCAPED_PAIR = re.compile(r"\\\\|\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)


class Loader:
    """Loads the same paths again and again; remembers each file's content by its signature. Not thread-safe.

    `node`: the workload that Istio's objects are read for (its namespace, labels and locality).
    """

    def __init__(self, paths: Iterable[str | Path], node: Node | None = None) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._node = node
        self._known: dict[Path, tuple[Signature, str, Content]] = {}

    def load(self) -> Loaded:
        """Read what changed and put everything together. Never raises for what is in the files."""
        files = find_files(self._paths)
        vanished = not self._known.keys() <= set(files)
        self._known = {file: self._read(file) for file in files}
        contents = [content for _, _, content in self._known.values()]
        resources = [resource for content in contents for resource in content.resources]
        issues = [issue for content in contents for issue in content.issues]
        if len(files) >= MAX_FILES:
            issues.append(Issue("error", "files", "", f"{MAX_FILES} files or more", "name fewer paths"))
        if not issues and not any(content.resources or content.istio for content in contents):
            issues.append(self._nothing())
        translated = _translate([document for content in contents for document in content.istio], self._node)
        every, mislabelled = _label((*resources, *translated.resources), contents)
        return Loaded(
            every,
            (*issues, *translated.issues, *mislabelled),
            tuple(map(str, files)),
            self._version(),
            vanished or any(content.transient for content in contents),
            next((content.local for content in contents if content.local != NOWHERE), NOWHERE),
        )

    def signatures(self) -> dict[Path, Signature]:
        """The signatures of the files there are now, to be compared with an earlier answer."""
        return {file: signature(file) for file in find_files(self._paths)}

    def _read(self, file: Path) -> tuple[Signature, str, Content]:
        now = signature(file)
        known = self._known.get(file)
        if known is not None and known[0] == now and now.size >= 0:
            return known
        text = read_text(file)
        if isinstance(text, Issue):
            return now, "", Content(issues=(text,), transient=known is not None)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        if known is not None and known[1] == digest:
            return now, digest, known[2]
        content = parse_text(text, str(file))
        if known is not None and not text.strip():  # as between the truncation and the writing of a save
            content = replace(content, transient=True)
        return now, digest, content

    def _nothing(self) -> Issue:
        where = ", ".join(map(str, self._paths)) or "no path"
        fix = f"files end in {', '.join(SUFFIXES)}" if any(path.is_dir() for path in self._paths) else ""
        return Issue("error", "files", "", f"no configuration in {where}", fix)

    def _version(self) -> str:
        whole = hashlib.sha256()
        for file, (_, digest, _) in self._known.items():
            whole.update(f"{file}\0{digest}\0".encode("utf-8", "surrogatepass"))
        return whole.hexdigest()[:12]


def load(paths: Iterable[str | Path], node: Node | None = None) -> Loaded:
    """Everything that the files and directories hold; what is wrong is in `issues`, with file and line."""
    return Loader(paths, node).load()


def parse_text(text: str, file: str) -> Content:
    """The content of one file's text; `.json` by the strict grammar of JSON, everything else as YAML."""
    try:
        documents = _documents(text, file)
    except YamlSyntaxError as error:
        issue = Issue("error", "file", "", error.reason, error.fix, file, error.line)
        return Content(issues=(issue,), transient=error.transient)
    items = [item for document in documents for item in read_document(document.value, Origin(file, document.value))]
    return Content(
        tuple(item for item in items if isinstance(item, LoadedResource)),
        tuple(item for item in items if type(item) is IstioDocument),
        tuple(item for item in items if isinstance(item, Issue)),
        mesh=tuple(item for item in items if isinstance(item, MeshDocument)),
        local=next((item for item in items if isinstance(item, Local)), NOWHERE),
    )


def parse_values(path: Path) -> tuple[list[Any], list[Issue]]:
    """The documents of a file that holds no resources, as located values; what is wrong with it as issues."""
    text = read_text(path)
    if isinstance(text, Issue):
        return [], [text]
    try:
        return [document.value for document in _documents(text, str(path))], []
    except YamlSyntaxError as error:
        return [], [Issue("error", "file", "", error.reason, error.fix, str(path), error.line)]


def _documents(text: str, file: str) -> list[Document]:
    return parse_documents(_checked_json(text) if file.lower().endswith(".json") else text)


def _checked_json(text: str) -> str:
    """JSON as text that YAML reads the same way: outside strings a tab is only white space, inside it is not JSON."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise YamlSyntaxError(error.lineno, error.msg, transient=True) from None
    except RecursionError:
        raise YamlSyntaxError(1, "nested too deeply") from None
    except ValueError as error:  # an integer of thousands of digits
        raise YamlSyntaxError(0, str(error)) from None
    return _ESCAPED_PAIR.sub(_joined, text.replace("\t", " "))


def _joined(match: re.Match[str]) -> str:
    """JSON writes a character beyond U+FFFF as the escapes of two halves, which YAML does not take."""
    if match[1] is None:
        return match[0]  # an escaped backslash, whatever comes after it
    return bytes.fromhex(match[1] + match[2]).decode("utf-16-be")


def _label(
    resources: tuple[LoadedResource, ...], contents: list[Content]
) -> tuple[tuple[LoadedResource, ...], tuple[Issue, ...]]:
    documents = [document for content in contents for document in content.mesh]
    if not documents:
        return resources, ()
    from meshlib.sources.files.labels import label

    return label(resources, documents)


def _translate(documents: list[IstioDocument], node: Node | None) -> Content:
    if not documents:
        return Content()
    from meshlib.sources.istio.caller import caller_of
    from meshlib.sources.istio.translate import translate

    return translate(documents, caller_of(node))
