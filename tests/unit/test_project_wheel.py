"""meshlib.integrations is the same package in a checkout, in a wheel, and in a wheel made from the sdist."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMPORT = """
import meshlib.integrations, pkgutil
print(sorted(module.name for module in pkgutil.iter_modules(meshlib.integrations.__path__)))
print(meshlib.integrations.__path__[0])
"""


def build(source: Path, kind: str, into: Path) -> Path:
    """Run the build backend itself: no isolation, so no network."""
    into.mkdir()
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(into)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = into.iterdir()
    return made


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist") / "out")


@pytest.fixture(scope="module", params=["tree", "sdist"])
def wheel(request, sdist, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    if request.param == "tree":
        return build(ROOT, "wheel", folder / "out")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    (source,) = (folder / "source").iterdir()
    return build(source, "wheel", folder / "out")


def imported(python_path: Path, cwd: Path) -> list[str]:
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(python_path)!r})\n{IMPORT}"]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=True).stdout.splitlines()


def adapters() -> list[str]:
    files = (path for path in (ROOT / "integrations").iterdir() if path.name != "__init__.py")
    return sorted(path.stem for path in files if path.suffix == ".py" or (path / "__init__.py").exists())


def test_the_checkout_bridges_to_the_folder(tmp_path):
    names, place = imported(ROOT, tmp_path)
    assert names == str(adapters())
    assert Path(place) == ROOT / "integrations"


def test_the_wheel_holds_the_folder(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    names, place = imported(tmp_path, tmp_path)
    assert names == str(adapters())
    assert Path(place) == tmp_path / "meshlib" / "integrations"
    real = (ROOT / "integrations" / "__init__.py").read_text()
    assert (tmp_path / "meshlib" / "integrations" / "__init__.py").read_text() == real


def test_the_wheel_works_without_being_unpacked(wheel, tmp_path):
    names, place = imported(wheel, tmp_path)
    assert names == str(adapters())
    assert place.startswith(str(wheel))


def test_the_wheel_holds_the_package_and_nothing_beside(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/", maxsplit=1)[0] for name in names}
    (info,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops == {"meshlib", info}
    assert {"meshlib/py.typed", f"{info}/licenses/LICENSE", f"{info}/entry_points.txt"} <= set(names)
    assert [name for name in names if "__pycache__" in name] == []


def test_an_editable_install_copies_nothing(tmp_path):
    hook = "import sys; from hatchling.build import build_editable; build_editable(sys.argv[1])"
    subprocess.run([sys.executable, "-c", hook, str(tmp_path)], cwd=ROOT, check=True, capture_output=True)
    (made,) = tmp_path.iterdir()
    with zipfile.ZipFile(made) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == {"_meshlib.pth"}
        assert archive.read("_meshlib.pth").decode().strip() == str(ROOT)


def test_the_sdist_holds_what_tests_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "Makefile",
        "pyproject.toml",
        "LICENSE",
        "integrations/__init__.py",
        "tests/conftest.py",
        "tests/servers/build",
    }
    assert wanted <= names


def test_types_reach_the_user_of_a_wheel(wheel, tmp_path):
    """A user's mypy, on the installed files, sees meshlib and meshlib.integrations as typed."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    user = tmp_path / "user.py"
    user.write_text(
        "import meshlib.integrations\nreveal_type(meshlib.integrations.__path__)\nmeshlib.integrations.nowhere\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent", str(user)]
    checked = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"MYPYPATH": str(tmp_path / "site")}
    )
    assert 'Module has no attribute "nowhere"' in checked.stdout, checked.stdout + checked.stderr
    assert "import-untyped" not in checked.stdout
