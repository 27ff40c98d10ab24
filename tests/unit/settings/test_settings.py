"""A mesh from names and values, and what is said about names and values that make none."""

from __future__ import annotations

import math
import types
from pathlib import Path
from typing import Any

import pytest

from meshlib import ConfigurationError, Fault, Mesh, SharedRateLimit, local_limit
from meshlib.model.endpoint import Locality
from meshlib.model.limiters import ConcurrencyLimit, RequestLimit
from meshlib.model.shedding import Bulkhead
from meshlib.model.zones import Local
from meshlib.settings import SETTINGS, SOURCES, configuration_issues, mesh_from_settings, mistakes, server_options
from meshlib.sources.consul.source import ConsulSource
from meshlib.sources.files.source import FileSource
from meshlib.sources.static import StaticSource
from meshlib.sources.xds.source import XdsSource

MESH = Mesh.static({})


def make() -> Mesh:
    return MESH


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the application's own."""
    own = types.ModuleType("shop_mesh")
    own.mesh, own.make, own.wrong = MESH, make, 3  # type: ignore[attr-defined]
    monkeypatch.setitem(__import__("sys").modules, "shop_mesh", own)


@pytest.mark.parametrize(
    "settings, kind",
    [
        ({"CONFIG": "conf/"}, FileSource),
        ({"CONFIG": Path("conf")}, FileSource),
        ({"CONFIG": ["a.yaml", Path("b.yaml")]}, FileSource),
        ({"XDS": "127.0.0.1:18000", "DECLARED": ["payments"]}, XdsSource),
        ({"CONSUL": "127.0.0.1:8500", "DECLARED": ["payments"]}, ConsulSource),
        ({"CONSUL": {"ADDRESS": "127.0.0.1:8500", "DECLARED": ["payments"]}}, ConsulSource),
        ({"CONSUL": {"address": "127.0.0.1:8500", "token": "t", "SEED": 1}, "FETCH_TIMEOUT": 1}, ConsulSource),
        ({"STATIC": {"payments": ["127.0.0.1:1"]}}, StaticSource),
    ],
)
def test_every_source(settings: dict[str, Any], kind: type) -> None:
    assert mistakes(settings) == ()
    assert isinstance(mesh_from_settings(settings).source, kind)


@pytest.mark.parametrize("given", [MESH, make, "shop_mesh:mesh", "shop_mesh.mesh", "shop_mesh:make"])
def test_a_mesh_that_is_made_elsewhere(given: Any, module: None) -> None:
    assert mesh_from_settings({"MESH": given}) is MESH


def test_options_reach_the_mesh() -> None:
    mesh = mesh_from_settings({"STATIC": {"a": ["1.2.3.4:1"]}, "LOCALITY": "eu/eu-1a", "LOCAL_CLUSTER": "a"})
    assert mesh.runtime.attached.local == Local(Locality("eu", "eu-1a"), "a")
    mesh = mesh_from_settings({"STATIC": {"a": ["1.2.3.4:1"]}, "UNKNOWN_HOSTS": "reject", "FETCH_TIMEOUT": 3})
    assert (mesh.runtime.unknown_hosts, mesh.runtime.fetch_timeout) == ("reject", 3.0)
    mesh = mesh_from_settings({"STATIC": {"a": ["1.2.3.4:1"]}, "FAILOVER_TIMEOUT": 2.5})
    assert mesh.runtime.attached.reach.timeout == 2.5
    assert mesh.faults.enabled
    assert not mesh_from_settings({"STATIC": {"a": ["1.2.3.4:1"]}, "FAULTS": False}).faults.enabled


def test_faults_are_a_switch_or_the_servers() -> None:
    faults = [Fault(abort=503)]
    settings = {"STATIC": {"a": ["1.2.3.4:1"]}, "FAULTS": faults}
    assert server_options(settings) == {"faults": faults}
    assert mesh_from_settings(settings).faults.enabled
    assert server_options({"FAULTS": False}) == {}
    for wrong in ("off", [503], [Fault(abort=503), "x"], 1):
        assert [mistake.key for mistake in mistakes({"STATIC": {"a": ["1.2.3.4:1"]}, "FAULTS": wrong})] == ["FAULTS"]


def test_what_is_the_servers() -> None:
    assert server_options({"CONFIG": "x", "RATE_LIMITS": ["1/hour"], "READINESS_PATH": "/r", "DRAIN_SECONDS": 2}) == {
        "rate_limits": ["1/hour"],
        "readiness_path": "/r",
        "drain_seconds": 2,
    }


def test_load_shedding_is_a_text_a_policy_or_several() -> None:
    for given, shed in (
        ("adaptive", ("adaptive",)),
        (["adaptive", "bulkhead 5 /a"], ("adaptive", "bulkhead 5 /a")),
        (Bulkhead(3), (Bulkhead(3),)),
        ([Bulkhead(3), "queue"], (Bulkhead(3), "queue")),
    ):
        assert mistakes({**STATIC, "SHED": given}) == ()
        assert server_options({"SHED": given}) == {"shed": shed}


STATIC = {"STATIC": {"payments": ["127.0.0.1:1"]}}


@pytest.mark.parametrize(
    "settings, words",
    [
        ({}, "CONFIG: nothing says where configuration comes from (set one of CONFIG, XDS, CONSUL, STATIC, MESH)"),
        ({"CONFIG": None}, "nothing says where"),
        ({"CONFIG": "a", "XDS": True}, "XDS: CONFIG and XDS are set, and a mesh has one source"),
        ({**STATIC, "RATE_LIMIT": []}, "RATE_LIMIT: there is no such setting (did you mean RATE_LIMITS?)"),
        ({**STATIC, "rate_limits": []}, "rate_limits: there is no such setting (did you mean RATE_LIMITS?)"),
        ({**STATIC, "zzz": 1}, "zzz: there is no such setting (there are CONFIG, XDS"),
        ({**STATIC, 3: 1}, "3: there is no such setting"),
        ({"CONFIG": 3}, "CONFIG: 3 is a int that cannot be used here (give a path or a list of paths)"),
        ({"CONFIG": []}, "CONFIG: [] is a list"),
        ({"XDS": False}, "XDS: False is a bool"),
        ({"STATIC": {}}, "STATIC: {} is a dict"),
        (
            {**STATIC, "UNKNOWN_HOSTS": "pass"},
            "UNKNOWN_HOSTS: 'pass' is a str that cannot be used here (give 'pass_through'",
        ),
        ({**STATIC, "DRAIN_SECONDS": "10"}, "DRAIN_SECONDS: '10' is a str that cannot be used here (give seconds"),
        ({**STATIC, "DRAIN_SECONDS": True}, "DRAIN_SECONDS: True is a bool"),
        ({**STATIC, "DRAIN_SECONDS": -1}, "DRAIN_SECONDS: -1 is a int"),
        ({**STATIC, "READINESS_PATH": "ready"}, "READINESS_PATH: 'ready' is a str"),
        (
            {**STATIC, "RATE_LIMITS": "1/minute"},
            "RATE_LIMITS: '1/minute' is a str that cannot be used here (give a list",
        ),
        ({**STATIC, "SHED": []}, "SHED: [] is a list that cannot be used here (give a text or a list of texts such as"),
        ({**STATIC, "SHED": 100}, "SHED: 100 is a int"),
        ({**STATIC, "SHED": ["adaptive", "bulkhead"]}, "SHED: 'bulkhead' is no load shedding"),
        ({**STATIC, "SHED": "bulkhead 0"}, "SHED: max_concurrent must be more than 0"),
        ({**STATIC, "RATE_LIMITS": ["often"]}, "RATE_LIMITS: 'often': limit 'often' is not valid"),
        (
            {**STATIC, "DECLARED": ["a"]},
            "DECLARED: the source knows all its services by itself (it is for XDS and CONSUL)",
        ),
        ({**STATIC, "DRAIN_SECONDS": math.inf}, "DRAIN_SECONDS: inf is a float"),
        ({**STATIC, "FETCH_TIMEOUT": math.nan}, "FETCH_TIMEOUT: nan is a float"),
        (
            {"CONSUL": {"ADDRESS": "a:1", "TOKN": "x"}},
            "CONSUL: 'TOKN': there is no such option (did you mean TOKEN?)",
        ),
        ({"CONSUL": {"zzz": 1}}, "CONSUL: 'zzz': there is no such option (there are those of Mesh.from_consul)"),
        (
            {"CONSUL": {"DECLARED": ["a"]}, "DECLARED": ["b"]},
            "DECLARED: it is given beside CONSUL and in it (keep one of the two)",
        ),
        ({"MESH": "mesh"}, "MESH: 'mesh' is a str"),
        ({"MESH": MESH, "UNKNOWN_HOSTS": "reject"}, "UNKNOWN_HOSTS: MESH names a mesh that is already made"),
    ],
)
def test_a_mistake_names_the_setting_what_was_found_and_what_to_do(settings: dict[Any, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        mesh_from_settings(settings)
    assert str(caught.value).startswith("MESHLIB: ")
    assert words in str(caught.value)


def test_every_mistake_is_told_at_once() -> None:
    wrong = mistakes({"CONFIG": 3, "DRAIN": 1, "READINESS_PATH": ""})
    assert [mistake.key for mistake in wrong] == ["DRAIN", "CONFIG", "READINESS_PATH"]


@pytest.mark.parametrize(
    "path, words",
    [
        ("shop_mesh:missing", "cannot be imported: module 'shop_mesh' has no attribute 'missing'"),
        ("no_such_module.mesh", "cannot be imported: No module named 'no_such_module'"),
        ("shop_mesh:wrong", "gives a int, not a Mesh"),
    ],
)
def test_a_path_that_leads_nowhere(path: str, words: str, module: None) -> None:
    with pytest.raises(ConfigurationError, match=words):
        mesh_from_settings({"MESH": path})


def test_limits_of_every_kind() -> None:
    limits = ["1/second", local_limit("2/hour"), RequestLimit("few", ConcurrencyLimit(1))]
    assert mistakes({**STATIC, "RATE_LIMITS": [*limits, SharedRateLimit("3/hour", "memory://")]}) == ()


def test_files_are_checked_as_the_command_does(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("name: payments\nconnect_timeout: soon\n")
    (issue, *_) = configuration_issues({"CONFIG": tmp_path})
    assert (issue.severity, issue.file) == ("error", str(file))
    assert "connect_timeout" in str(issue)
    assert configuration_issues(STATIC) == ()


def test_the_names_of_the_sources_are_settings() -> None:
    assert set(SOURCES) < {setting.name for setting in SETTINGS}
