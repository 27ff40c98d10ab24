"""The arrows between meshlib's packages, and who may act, read from the imports: no arrow turns round unseen."""

import ast
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

VALUES = {"flags", "errors", "model"}
DECIDES = VALUES | {"state", "routing", "balancing", "policy", "security"}
ENGINE = DECIDES | {"engine"}
DOORS = ENGINE | {"context", "drain", "drivers", "telemetry"}
EVERYTHING = {"*"}

# Each part of meshlib -> the parts it may import beside itself. A new part gets a line, with the smallest set it needs.
MAY_IMPORT: dict[str, set[str]] = {
    "flags": set(),
    "errors": {"flags"},
    "model": {"flags", "errors"},
    "drain": set(),  # on the way out
    "context": {"flags", "model"},  # what a request in progress hands on to the calls it makes
    "state": {"flags", "model"},
    "routing": {"flags", "model"},
    "security": {"flags", "model"},
    "policy": {"flags", "model", "state"},
    "plugins": {"flags", "model"},  # what an application adds; asked by name
    "balancing": {"flags", "model", "plugins", "state"},
    "telemetry": VALUES | {"context", "state"},  # how things are said and passed on; the engine says them
    "engine": DECIDES | {"context", "telemetry"},
    "drivers": ENGINE | {"context", "telemetry"},
    # Certificates in use: files, contexts, an authority.
    "identity": {"flags", "errors", "model", "routing", "security"},
    "load_reports": {"flags", "model", "state"},  # what a server says of its load
    "http": DOORS | {"identity", "load_reports"},
    "grpc": DOORS | {"identity", "load_reports"},
    "decorators": DOORS,
    "health": ENGINE | {"http", "identity"},  # what the mesh finds out about endpoints beside the calls to them
    "explain": ENGINE | {"sources"},  # the hot path's own decision over a configuration just read
    "resolve": VALUES,  # names to addresses, on threads of its own; the mesh puts what it finds into snapshots
    "sources": VALUES | {"plugins"},
    "registration": VALUES | {"sources"},  # speaks to a registry as the source of it does
    "control": VALUES | {"sources"},  # validates and decodes with what the sources decode with
    "admin": DOORS | {"explain", "sources"},
    "mesh": EVERYTHING,  # the one place that knows all parts, in a few files
    "mesh_breakers": EVERYTHING,
    "mesh_doors": EVERYTHING,
    "mesh_health": EVERYTHING,
    "mesh_limits": EVERYTHING,
    "mesh_names": EVERYTHING,
    "mesh_sources": EVERYTHING,
    "mesh_telemetry": EVERYTHING,
    "__init__": EVERYTHING,  # lazy names only, see test_project_import
    "cli": EVERYTHING,
    "__main__": {"cli"},
    "testing": EVERYTHING,
    "zero_code": EVERYTHING,  # `meshlib run`: puts a mesh under a program's own clients and servers
    "settings": {"cli", "errors", "mesh", "model", "policy", "sources"},  # a mesh from names and values
    "process": {"http", "mesh", "settings"},
    "integrations": {
        "__init__",
        "context",
        "decorators",
        "errors",
        "grpc",
        "http",
        "identity",
        "mesh",
        "process",
        "security",
        "settings",
    },
}

# A door takes a Mesh as its first argument, and may name the type without importing the module when it runs.
MAY_NAME = {"http": {"mesh"}, "grpc": {"mesh"}, "decorators": {"mesh"}}

# Pure parts: they get `now` and an `rng`, and cannot reach a clock, a loop, a thread or a socket.
PURE = ("flags", "errors", "model", "routing", "balancing", "policy", "security", "engine")
ACTING = {
    "_thread",
    "asyncio",
    "concurrent",
    "http.client",
    "http.server",
    "multiprocessing",
    "random",
    "secrets",
    "select",
    "selectors",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
    "urllib.request",
}
MAY_ACT: dict[str, set[str]] = {
    "policy/rate_limit.py": {"threading"},  # a lock over a few float operations, never over a call; so the next five
    "policy/admission.py": {"threading"},
    "policy/bulkhead.py": {"threading"},
    "policy/codel.py": {"threading"},
    "policy/concurrency.py": {"threading"},
    "policy/limiters.py": {"threading"},
    "policy/keyed.py": {"threading"},  # a lock over a few steps of a dict
    "policy/limit_store.py": {"asyncio", "time"},  # the client of a store on the network: a shared limit is I/O
    "policy/remote_storage.py": {"threading", "time"},  # asks a breaker's store on the network, beside the calls
    "policy/shared_limit.py": {"time"},  # measures that store, to stop asking it when it is gone
}

# Third-party packages -> where they may be imported. What is not named here is imported nowhere in meshlib.
THIRD_PARTY: dict[str, set[str]] = {
    "asgiref": {"integrations"},
    "consul": {"sources"},
    "django": {"integrations"},
    "dns": {"resolve"},
    "cryptography": {"identity"},
    "envoy": {"sources", "control", "explain", "testing", "admin"},
    "fastapi": {"integrations"},
    "flask": {"integrations"},
    "google": {"sources", "control", "explain", "testing", "admin"},
    "grpc": {"sources", "control", "grpc", "testing", "admin", "errors"},
    "gunicorn": {"integrations"},
    "httptools": {"http"},
    "httpx": {"http", "errors", "integrations", "process", "testing"},
    "httpx2": {"http", "errors", "integrations", "testing"},
    "limits": {"policy", "drivers"},
    "opentelemetry": {"telemetry", "mesh_telemetry"},
    "prometheus_client": {"telemetry"},
    "pybreaker": {"policy", "errors"},
    "pytest": {"testing"},
    "re2": {"model"},  # one file of it: what an expression must be
    "redis": {"drivers", "policy"},
    "rich": {"cli"},
    "starlette": {"integrations"},
    "validate": {"sources", "control"},
    "udpa": {"sources", "control", "testing"},
    "uvicorn": {"integrations", "cli"},
    "watchfiles": {"sources", "control", "cli"},
    "xds": {"sources", "control", "testing"},
    "xxhash": {"balancing", "routing"},
    "yaml": {"sources", "control", "cli"},
}


@dataclass(frozen=True)
class Import:
    file: str  # relative to the package, as "engine/call.py"
    line: int
    module: str  # as written: "meshlib.model.route", "time"
    for_types: bool = False  # under "if TYPE_CHECKING": never executed

    @property
    def part(self) -> str:
        """The part of meshlib that imports."""
        return part_of_path(self.file)

    @property
    def target(self) -> str | None:
        """The part of meshlib that is imported, or None for anything else."""
        first, _, rest = self.module.partition(".")
        if first != "meshlib":
            return None
        return rest.split(".")[0] or "__init__"

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def part_of_path(file: str) -> str:
    return file.partition("/")[0].removesuffix(".py")


def imports_of(source: str, file: str) -> Iterator[Import]:
    """Every import in the file, at any depth: a lazy import is knowledge too."""
    tree = ast.parse(source, filename=file)
    for_types = {inner for node in ast.walk(tree) if _is_type_checking(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        for module in _modules(node):
            yield Import(file, node.lineno, module, node in for_types)


def _modules(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        if node.level == 1:
            return []  # a module of the same folder: no arrow
        base = node.module or ""
        # "from meshlib import errors" reaches the part errors; "from urllib import request" the module.
        deeper = base in {"meshlib", "urllib"}
        return [f"{base}.{alias.name}" for alias in node.names] if deeper else [base]
    return []


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def sources() -> Iterator[tuple[str, str]]:
    for folder, prefix in ((ROOT / "meshlib", ""), (ROOT / "integrations", "integrations/")):
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder).as_posix()
            yield f"{prefix}{relative}", path.read_text()


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return [found for file, source in sources() for found in imports_of(source, file)]


def wrong_arrow(found: Import) -> bool:
    if found.target is None or found.target == found.part:
        return False
    allowed = MAY_IMPORT[found.part]
    if found.for_types and found.target in MAY_NAME.get(found.part, set()):
        return False
    return allowed != EVERYTHING and not allowed & {found.target, names_public(found.module)}


def names_public(module: str) -> str:
    """``from meshlib import Mesh`` takes a public name from the package, which is not a part of its own."""
    rest = module.removeprefix("meshlib.")
    return "__init__" if rest[:1].isupper() else rest.split(".")[0]


def acts(found: Import) -> bool:
    first = found.module.split(".")[0]
    return not found.for_types and (first in ACTING or found.module in ACTING)


def stranger(found: Import) -> bool:
    first = found.module.split(".")[0]
    if found.target is not None or first in sys.stdlib_module_names:
        return False
    return found.part not in THIRD_PARTY.get(first, set())


def listing(found: Iterable[Import]) -> str:
    return "\n".join(sorted(map(str, found)))


def test_every_part_has_its_place():
    parts = {part_of_path(file) for file, _ in sources()}
    assert parts - set(MAY_IMPORT) == set(), "give the new part a line in MAY_IMPORT"


def test_arrows_point_one_way(imports):
    assert listing(found for found in imports if found.part in MAY_IMPORT and wrong_arrow(found)) == ""


def test_pure_parts_cannot_act(imports):
    acting = [found for found in imports if found.part in PURE and acts(found)]
    assert listing(found for found in acting if found.module not in MAY_ACT.get(found.file, set())) == ""


def test_third_party_packages_stay_where_they_belong(imports):
    assert listing(found for found in imports if stranger(found)) == ""


def test_the_wire_knows_nothing_of_the_mesh(imports):
    wire = [found for found in imports if found.file.startswith("http/wire/")]
    assert listing(found for found in wire if found.target and not found.module.startswith("meshlib.http.wire")) == ""


def test_exceptions_are_still_needed(imports):
    needed = {(found.file, found.module) for found in imports if found.part in PURE and acts(found)}
    granted = {(file, module) for file, modules in MAY_ACT.items() for module in modules}
    assert granted - needed == set()


def test_no_arrow_makes_a_circle():
    """The table itself is a set of layers: a part may not allow what allows it back."""
    closed = {part for part, allowed in MAY_IMPORT.items() if allowed != EVERYTHING}
    circles = [(a, b) for a in closed for b in MAY_IMPORT[a] & closed if a in MAY_IMPORT[b]]
    assert circles == []


@pytest.mark.parametrize(
    ("source", "file", "check"),
    [
        ("from meshlib.engine.plan import Plan", "model/route.py", wrong_arrow),
        ("def f():\n    import meshlib.http.client", "engine/call.py", wrong_arrow),
        ("from meshlib import engine", "sources/base.py", wrong_arrow),
        ("from meshlib.mesh import Mesh", "http/httpx.py", wrong_arrow),
        ("from meshlib.engine.plan import Plan", "integrations/fastapi.py", wrong_arrow),
        ("from time import monotonic", "policy/retry.py", acts),
        ("import asyncio.events", "engine/call.py", acts),
        ("from urllib import request", "routing/router.py", acts),
        ("import grpc", "engine/call.py", stranger),
        ("import requests", "sources/consul.py", stranger),
    ],
)
def test_the_checks_see_what_they_forbid(source, file, check):
    assert [found for found in imports_of(source, file) if check(found)]


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("from meshlib import Mesh", "integrations/fastapi.py"),
        ("from urllib.parse import quote", "routing/rewrite.py"),
        ("from meshlib.model.route import Route", "engine/plan.py"),
        ("import meshlib.engine.plan", "mesh.py"),
        ("if TYPE_CHECKING:\n    from meshlib.mesh import Mesh", "http/httpx.py"),
    ],
)
def test_the_checks_allow_what_is_right(source, file):
    assert not [found for found in imports_of(source, file) if wrong_arrow(found) or acts(found) or stranger(found)]
