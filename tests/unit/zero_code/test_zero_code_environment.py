"""The environment of `meshlib run`: what it says, and what is said of what it cannot say."""

import os
from pathlib import Path

import pytest

from meshlib.errors import ConfigurationError
from meshlib.zero_code.environment import check, described, is_launched, launched, settings


def test_settings_are_read_by_their_kind():
    given = {
        "MESHLIB_CONFIG": os.pathsep.join(["a.yaml", "b/"]),
        "MESHLIB_UNKNOWN_HOSTS": "reject",
        "MESHLIB_RATE_LIMITS": "100/minute, 5/second",
        "MESHLIB_DRAIN_SECONDS": "2.5",
        "MESHLIB_READINESS_PATH": "",  # set and empty is not set
        "PATH": "/bin",
    }
    assert settings(given) == {
        "CONFIG": ["a.yaml", "b/"],
        "UNKNOWN_HOSTS": "reject",
        "RATE_LIMITS": ["100/minute", "5/second"],
        "DRAIN_SECONDS": 2.5,
    }


@pytest.mark.parametrize("variable", ["GRPC_XDS_BOOTSTRAP", "GRPC_XDS_BOOTSTRAP_CONFIG"])
def test_a_bootstrap_is_a_source(variable: str):
    assert settings({variable: "x"}) == {"XDS": True}


def test_a_source_of_ours_goes_before_a_bootstrap_meant_for_grpc():
    assert settings({"GRPC_XDS_BOOTSTRAP": "x", "MESHLIB_CONFIG": "conf"}) == {"CONFIG": ["conf"]}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "nothing says where the mesh's configuration comes from: set MESHLIB_CONFIG"),
        ({"MESHLIB_CONFG": "conf"}, "MESHLIB_CONFG: no such setting; did you mean MESHLIB_CONFIG?"),
        ({"MESHLIB_XDS": "a", "MESHLIB_DRAIN_SECONDS": "long"}, "MESHLIB_DRAIN_SECONDS: 'long' is no number"),
    ],
)
def test_what_cannot_be_read_is_named(environment: dict[str, str], said: str):
    with pytest.raises(ConfigurationError) as caught:
        settings(environment)
    assert said in str(caught.value)


def test_variables_of_others_are_left_to_them():
    assert settings({"MESHLIB_XDS": "a:1", "MESHLIB_DEMO_PACE": "2"}) == {"XDS": "a:1"}


def test_files_that_are_not_there_are_named_before_the_program_starts(tmp_path: Path):
    check({"MESHLIB_CONFIG": str(tmp_path)})
    with pytest.raises(ConfigurationError, match="missing: no such file or folder"):
        check({"MESHLIB_CONFIG": str(tmp_path / "missing")})


def test_values_are_held_against_the_schema_of_settings():
    with pytest.raises(ConfigurationError) as caught:
        check({"MESHLIB_XDS": "127.0.0.1:18000", "MESHLIB_UNKNOWN_HOSTS": "drop", "MESHLIB_RATE_LIMITS": "many"})
    assert "MESHLIB_UNKNOWN_HOSTS: 'drop'" in str(caught.value)
    assert "MESHLIB_RATE_LIMITS: 'many'" in str(caught.value)
    with pytest.raises(ConfigurationError, match="MESHLIB_CONSUL: False is a bool that cannot be used here"):
        check({"MESHLIB_CONSUL": "0"})
    with pytest.raises(ConfigurationError, match="a mesh has one source"):
        check({"MESHLIB_XDS": "127.0.0.1:18000", "MESHLIB_CONSUL": "1"})


def test_our_sitecustomize_comes_first_and_once():
    once = launched({"PYTHONPATH": os.pathsep.join(["lib", "src"]), "HOME": "x"})
    first, *rest = once["PYTHONPATH"].split(os.pathsep)
    assert (Path(first) / "sitecustomize.py").is_file()
    assert rest == ["lib", "src"]
    assert once["HOME"] == "x"
    assert launched(once)["PYTHONPATH"] == once["PYTHONPATH"]
    assert is_launched(once)
    assert not is_launched({})


def test_the_current_folder_stays_on_the_path_where_it_was():
    """An empty entry is that; an empty variable is none."""
    assert launched({"PYTHONPATH": os.pathsep.join(["", "lib"])})["PYTHONPATH"].split(os.pathsep)[1:] == ["", "lib"]
    assert os.pathsep not in launched({"PYTHONPATH": ""})["PYTHONPATH"]


def test_files_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program that changes its folder (`gunicorn --chdir`) reads the files that were checked."""
    monkeypatch.chdir(tmp_path)
    given = os.pathsep.join(["conf", str(tmp_path / "b.yaml")])
    named = launched({"MESHLIB_CONFIG": given})["MESHLIB_CONFIG"]
    assert named.split(os.pathsep) == [str(tmp_path / "conf"), str(tmp_path / "b.yaml")]
    assert "MESHLIB_CONFIG" not in launched({"MESHLIB_XDS": "a:1"})


def test_help_names_every_variable_without_an_option():
    assert [line.split()[0] for line in described().splitlines()] == [
        "MESHLIB_MESH",
        "MESHLIB_DECLARED",
        "MESHLIB_UNKNOWN_HOSTS",
        "MESHLIB_FETCH_TIMEOUT",
        "MESHLIB_NAME_SERVERS",
        "MESHLIB_LOCALITY",
        "MESHLIB_LOCAL_CLUSTER",
        "MESHLIB_FAULTS",
        "MESHLIB_FAILOVER_TIMEOUT",
        "MESHLIB_RATE_LIMITS",
        "MESHLIB_SHED",
        "MESHLIB_READINESS_PATH",
        "MESHLIB_DRAIN_SECONDS",
    ]
