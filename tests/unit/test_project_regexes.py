"""No regular expression of a configuration ever runs on Python's `re`, which can take exponential time: read from the
code. What runs on `re` is written in the code itself; what is configured runs on RE2.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted([*(ROOT / "meshlib").rglob("*.py"), *(ROOT / "integrations").rglob("*.py")])
TAKES_A_PATTERN = {"compile", "match", "fullmatch", "search", "split", "findall", "finditer", "sub", "subn"}
NOT_CONFIGURED = {"meshlib/sources/xds/decode/rules.py: re.compile(rule.pattern)"}
"""Patterns that are no literals, each from the proto files that are installed."""


def patterns(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls of `re` that take a pattern."""
    names = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
        if name.name == "re"
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=attr)) if name in names:
                if attr in TAKES_A_PATTERN:
                    yield node


def constants(tree: ast.Module) -> set[str]:
    """Names of the module that stand for a text written in it."""
    found: set[str] = set()
    for node in tree.body:
        value = node.value if isinstance(node, ast.Assign | ast.AnnAssign) else None
        if value is not None and is_literal(value, found):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]  # type: ignore[union-attr]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def is_literal(node: ast.expr, names: set[str]) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name in names
        case ast.JoinedStr(values=values):
            return all(is_literal(value, names) for value in values)
        case ast.FormattedValue(value=value):
            return is_literal(value, names)
        case ast.BinOp(left=left, right=right):
            return is_literal(left, names) and is_literal(right, names)
    return False


def unfixed(source: str, name: str) -> set[str]:
    """Calls of `re` with a pattern that the module does not write out."""
    tree = ast.parse(source)
    known = constants(tree)
    return {f"{name}: {ast.unparse(call)}" for call in patterns(tree) if not is_literal(call.args[0], known)}


def test_what_runs_on_re_is_written_in_the_code() -> None:
    found = {line for module in MODULES for line in unfixed(module.read_text(), str(module.relative_to(ROOT)))}
    assert found == NOT_CONFIGURED


def test_re_is_only_used_by_its_name() -> None:
    """`from re import compile` would hide from the test above."""
    imported = {
        name.name
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "re"
        for name in node.names
    }
    assert imported <= {"Match", "Pattern"}


def test_a_configured_pattern_would_be_found() -> None:
    source = "import re\nA = 'x'\ndef f(config):\n    re.fullmatch(A + 'y', '')\n    return re.compile(config.regex)\n"
    assert unfixed(source, "m") == {"m: re.compile(config.regex)"}
