"""Path templates: `/videos/{id}/*/**.mp4` (`envoy.path.match.uri_template`), as regular expressions, for those who
decode one and those who run it; and the paths that are made of what they captured.

Segments are literals, `*` (one segment), `**` (the rest, at most one and the last of the globs), `{name}` (as `*`) and
`{name=a/*/**}`. Literal text may stand around a variable (`v{id}.mp4`), and behind a glob that is the last segment
(`**.mp4`). The rules are Envoy 1.40's, which makes a regular expression of a template. That is why a `*` within a
literal repeats the character before it: `/a*` matches `/`, `/a`, `/aa`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from meshlib.model.report import ResourceError

__all__ = ["UriTemplate", "parse_template", "rewrite_parts"]

MAX_VARIABLES = 5
MAX_NAME_LENGTH = 16
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_NAME = _LETTERS | frozenset("0123456789_")
_LITERAL = _NAME | frozenset("-.~%!$&'()+,;:@*=")
_SEGMENT = "[a-zA-Z0-9-._~%!$&'()+,;:@*=]+"
_REST = "[a-zA-Z0-9-._~%!$&'()+,;:@*=/]*"
_ESCAPED = str.maketrans({character: f"\\{character}" for character in "$()+."})


@dataclass(frozen=True, slots=True)
class UriTemplate:
    """A template as a regular expression of whole paths; the n-th variable is its n-th group."""

    regex: str
    variables: tuple[str, ...]


@lru_cache(maxsize=4096)
def parse_template(template: str) -> UriTemplate:
    """Raises `ResourceError`, saying what is wrong with the template."""
    reader = _Reader(template)
    parts = reader.path()
    return UriTemplate("".join(parts), tuple(reader.variables))


class _Reader:
    """Reads a template from left to right."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._rest = template
        self.variables: list[str] = []
        self._rest_globbed = False

    def _refused(self, reason: str) -> ResourceError:
        return ResourceError("path_template", f"{self._template!r}: {reason}")

    def path(self) -> list[str]:
        """The regular expression, in parts."""
        if not self._template.startswith("/") or not self._is_graphic():
            raise self._refused("a template begins with / and has neither spaces nor anything beyond ASCII")
        parts = []
        while self._rest:
            self._rest = self._rest[1:]  # the slash
            parts.append("/")
            if self._rest:
                parts.append(self._segment())
        return parts

    def _is_graphic(self) -> bool:
        return all("!" <= character <= "~" for character in self._template)

    def _segment(self) -> str:
        if self._rest[0] == "*":
            return self._glob() + self._ending()
        before, brace, _ = self._rest.partition("{")
        if not brace or "/" in before:
            return self._literal()
        self._rest = self._rest[len(before) :]
        return self._escaped(before) + self._variable() + self._behind_variable()

    def _ending(self) -> str:
        """Text behind a glob, which ends the template."""
        if not self._rest or self._rest[0] == "/":
            return ""
        literal = self._literal()
        if self._rest:
            raise self._refused("text behind a glob is the end of the template")
        return literal

    def _behind_variable(self) -> str:
        return self._literal() if self._rest and self._rest[0] != "/" else ""

    def _literal(self) -> str:
        literal, slash, rest = self._rest.partition("/")
        if not literal:
            raise self._refused("a segment is not empty")
        self._rest = slash + rest
        return self._escaped(literal)

    def _escaped(self, literal: str) -> str:
        if not _LITERAL.issuperset(literal):
            raise self._refused(f"{literal!r} is no literal")
        return literal.translate(_ESCAPED)

    def _glob(self) -> str:
        if self._rest_globbed:
            raise self._refused("nothing may be globbed behind **")
        if self._rest.startswith("**"):
            self._rest, self._rest_globbed = self._rest[2:], True
            return _REST
        self._rest = self._rest[1:]
        return _SEGMENT

    def _variable(self) -> str:
        inside, brace, rest = self._rest[1:].partition("}")
        name, equals, pattern = inside.partition("=")
        if not brace or not _is_name(name):
            raise self._refused(f"{self._rest!r} does not begin with a variable")
        if len(name) > MAX_NAME_LENGTH or name in self.variables or len(self.variables) == MAX_VARIABLES:
            raise self._refused(
                f"at most {MAX_VARIABLES} variables of different names, none longer than {MAX_NAME_LENGTH} characters"
            )
        self.variables.append(name)
        self._rest = pattern if equals else "*"
        matched = self._captured()
        self._rest = rest
        return f"(?P<{name}>{matched})"

    def _captured(self) -> str:
        """What a variable stands for: literals and globs, with slashes between them."""
        if not self._rest:
            raise self._refused("a variable's pattern is not empty")
        parts = []
        while True:
            parts.append(self._glob() if self._rest.startswith("*") else self._literal())
            if not self._rest:
                return "/".join(parts)
            if self._rest[0] != "/" or len(self._rest) == 1:
                raise self._refused("the segments of a variable's pattern have slashes between them")
            self._rest = self._rest[1:]


def _is_name(text: str) -> bool:
    return bool(text) and text[0] in _LETTERS and _NAME.issuperset(text)


def rewrite_parts(template: UriTemplate, rewrite: str) -> list[str | int]:
    """A rewrite, `/archive/{id}`, as literals and the numbers of the template's groups. Raises `ResourceError` where
    it is no rewrite, or names a variable that the template does not have.
    """
    if not rewrite.startswith("/") or "//" in rewrite:
        raise ResourceError("path_template_rewrite", f"{rewrite!r}: begins with one slash, and never has two")
    parts: list[str | int] = []
    rest = rewrite
    while rest:
        literal, brace, behind = rest.partition("{")
        if literal:
            if not (_LITERAL | {"/"}).issuperset(literal):
                raise ResourceError("path_template_rewrite", f"{rewrite!r}: {literal!r} is no literal")
            parts.append(literal)
        if not brace:
            break
        name, closed, rest = behind.partition("}")
        if not closed or name not in template.variables:
            raise ResourceError("path_template_rewrite", f"{rewrite!r}: the template has no variable {name!r}")
        parts.append(template.variables.index(name) + 1)
    return parts
