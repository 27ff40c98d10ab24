"""How a cluster balances, from `lb_policy` and from `load_balancing_policy`: every policy, and what is refused."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from meshlib.model.cluster import Cluster
from meshlib.model.lb import (
    ClientSideWeightedRoundRobin,
    LbSubsetConfig,
    LeastRequest,
    Maglev,
    OverrideHost,
    OverrideHostSource,
    PeakEwma,
    PickFirst,
    Random,
    RandomSubsetting,
    RingHash,
    RoundRobin,
    SubsetSelector,
    UnsupportedLbPolicy,
    UserLbPolicy,
)
from meshlib.model.metadata import Struct
from meshlib.model.report import ResourceError
from meshlib.model.route import HashPolicy
from meshlib.model.zones import ZoneAware
from meshlib.plugins import register_balancer
from meshlib.sources.files.messages import to_message
from meshlib.sources.xds.decode import decode_message
from meshlib.sources.xds.types import CLUSTER
from parts import xds_resources as xds

LB = "type.googleapis.com/envoy.extensions.load_balancing_policies"
FIRST = "load_balancing_policy.policies[0].typed_extension_config"


def policies(*entries: tuple[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A list of policies by the short names of their messages, all in TypedStructs: nothing has to be imported."""
    return {"policies": [_policy(name if "/" in name else f"{LB}.{name}", config) for name, config in entries]}


def _policy(url: str, config: Mapping[str, Any]) -> dict[str, Any]:
    typed = {"@type": "type.googleapis.com/xds.type.v3.TypedStruct", "type_url": url, "value": config}
    return {"typed_extension_config": {"name": "n", "typed_config": typed}}


def cluster(**fields: Any) -> tuple[Cluster, list[str]]:
    __import__("xds.type.v3.typed_struct_pb2")
    found = decode_message(xds.message(CLUSTER, xds.eds_cluster(**fields)))
    assert isinstance(found.resource, Cluster)
    return found.resource, [issue.path for issue in found.issues]


def chosen(*entries: tuple[str, Mapping[str, Any]]) -> tuple[Any, list[str]]:
    found, issues = cluster(load_balancing_policy=policies(*entries))
    return found, issues


HASHED = {"header": {"header_name": "X-User"}}


@pytest.mark.parametrize(
    ("name", "config", "policy"),
    [
        ("round_robin.v3.RoundRobin", {}, RoundRobin()),
        ("least_request.v3.LeastRequest", {"choice_count": 5}, LeastRequest(5)),
        ("random.v3.Random", {}, Random()),
        ("pick_first.v3.PickFirst", {"shuffle_address_list": True}, PickFirst(True)),
        ("maglev.v3.Maglev", {}, Maglev()),
        (
            "maglev.v3.Maglev",
            {"table_size": 251, "consistent_hashing_lb_config": {"hash_balance_factor": 150, "hash_policy": [HASHED]}},
            Maglev(251, hash_balance_factor=150, hash_policies=(HashPolicy("header", "x-user"),)),
        ),
        ("ring_hash.v3.RingHash", {"hash_function": "DEFAULT_HASH", "minimum_ring_size": 7}, RingHash(7)),
        (
            "ring_hash.v3.RingHash",
            {"use_hostname_for_hashing": True, "hash_balance_factor": 120},
            RingHash(use_hostname_for_hashing=True, hash_balance_factor=120),
        ),
        (
            "ring_hash.v3.RingHash",  # as in Envoy: where the newer message is there it alone counts
            {"use_hostname_for_hashing": True, "consistent_hashing_lb_config": {"hash_balance_factor": 120}},
            RingHash(hash_balance_factor=120),
        ),
        ("peak_ewma.v3.PeakEwma", {"decay_time": "5s"}, PeakEwma(5.0)),
        ("peak_ewma.v3alpha.PeakEwma", {"default_rtt": "0.5s"}, PeakEwma(default_rtt=0.5)),
    ],
)
def test_a_policy_by_its_extension(name: str, config: Mapping[str, Any], policy: Any) -> None:
    found, issues = chosen((name, config))
    assert (found.lb_policy, issues) == (policy, [])


GRPC = "type.googleapis.com/"


@pytest.mark.parametrize(
    ("name", "config", "policy"),
    [
        ("round_robin", {}, RoundRobin()),
        ("pick_first", {"shuffleAddressList": True}, PickFirst(True)),
        ("ring_hash_experimental", {"minRingSize": "512", "maxRingSize": 9000}, RingHash(512, 4096)),
        (
            "ring_hash_experimental",
            {"requestHashHeader": "X-User"},
            RingHash(1024, 4096, hash_policies=(HashPolicy("header", "x-user"),)),
        ),
        ("least_request_experimental", {"choiceCount": 30}, LeastRequest(10)),
        (
            "weighted_round_robin",
            {"blackoutPeriod": "5s", "enableOobLoadReport": True, "weightUpdatePeriod": "0.01s"},
            ClientSideWeightedRoundRobin(5.0, weight_update_period=0.1, oob_reporting_period=10.0),
        ),
    ],
)
def test_a_policy_by_grpcs_name_for_it(name: str, config: Mapping[str, Any], policy: Any) -> None:
    found, issues = chosen((f"{GRPC}{name}", config))
    assert (found.lb_policy, issues) == (policy, [])


def test_grpcs_subsetting_takes_the_first_child_that_is_known() -> None:
    children = [{"acme": {}}, {"ring_hash_experimental": {"minRingSize": 8, "other": 1}}]
    found, issues = chosen((f"{GRPC}random_subsetting_experimental", {"subsetSize": 4, "childPolicy": children}))
    assert (found.subsetting, found.lb_policy) == (RandomSubsetting(4), RingHash(8, 4096))
    assert issues == [f"{FIRST}.typed_config.value.childPolicy[1].ring_hash_experimental.other"]


@pytest.mark.parametrize(
    ("name", "config", "path"),
    [
        ("ring_hash_experimental", {"requestHashHeader": "x-bin"}, "requestHashHeader"),
        ("ring_hash_experimental", {"minRingSize": 9, "maxRingSize": 8}, "minRingSize"),
        ("ring_hash_experimental", {"minRingSize": "many"}, "minRingSize"),
        ("ring_hash_experimental", {"minRingSize": 1.5}, "minRingSize"),
        ("least_request_experimental", {"choiceCount": 1}, "choiceCount"),
        ("random_subsetting", {"childPolicy": [{"round_robin": {}}]}, "subsetSize"),
        ("random_subsetting", {"subsetSize": 2, "childPolicy": [{"acme": {}}]}, "childPolicy"),
        ("weighted_round_robin", {"blackoutPeriod": "-5s"}, "blackoutPeriod"),
    ],
)
def test_what_is_refused_of_grpcs_policies(name: str, config: Mapping[str, Any], path: str) -> None:
    with pytest.raises(ResourceError) as refused:
        chosen((f"{GRPC}{name}", config))
    assert refused.value.path == f"{FIRST}.typed_config.value.{path}"


def test_the_first_supported_policy_counts_and_the_others_before_it_are_reported() -> None:
    found, issues = chosen(("dynamic_modules.v3.X", {}), ("maglev.v3.Maglev", {}), ("random.v3.Random", {}))
    assert (found.lb_policy, issues) == (Maglev(), [FIRST])


def test_without_any_supported_policy_it_is_round_robin_and_said_so() -> None:
    found, issues = chosen(("dynamic_modules.v3.X", {}), ("acme.v1.Y", {}))
    assert isinstance(found.lb_policy, UnsupportedLbPolicy)
    assert issues == [FIRST]


def test_policies_around_others() -> None:
    inner = policies(("maglev.v3.Maglev", {}))
    sources = [{"header": "X-Pick"}, {"metadata": {"key": "envoy.lb", "path": [{"key": "a"}, {"key": "b"}]}}]
    found, issues = chosen(
        ("override_host.v3.OverrideHost", {"override_host_sources": sources, "fallback_policy": inner})
    )
    wanted = OverrideHost((OverrideHostSource("x-pick"), OverrideHostSource("", "envoy.lb", ("a", "b"))))
    assert (found.override_host, found.lb_policy, issues) == (wanted, Maglev(), [])

    subsetting = policies(("random_subsetting.v3.RandomSubsetting", {"subset_size": 3, "child_policy": inner}))
    found, issues = cluster(load_balancing_policy=subsetting)
    assert (found.subsetting, found.lb_policy, issues) == (RandomSubsetting(3), Maglev(), [])
    found, issues = chosen(("wrr_locality.v3.WrrLocality", {"endpoint_picking_policy": subsetting}))
    assert (found.subsetting, found.locality_weighted) == (RandomSubsetting(3, per_locality=True), True)


def test_an_added_message_is_read_from_the_wire_and_from_files() -> None:
    name = "envoy.extensions.load_balancing_policies.random_subsetting.v3.RandomSubsetting"
    content = {"subset_size": 4, "child_policy": policies(("random.v3.Random", {}))}
    __import__("xds.type.v3.typed_struct_pb2")
    made, problems = to_message(content, name)
    assert problems == []
    message = xds.message(CLUSTER, xds.eds_cluster())
    extension = message.load_balancing_policy.policies.add().typed_extension_config
    extension.name = "subsetting"
    extension.typed_config.Pack(made)
    found = decode_message(message)
    assert isinstance(found.resource, Cluster)
    assert found.resource.subsetting == RandomSubsetting(4)


def test_subsets_in_full() -> None:
    selectors = [
        {"keys": ["b", "a", "a"], "fallback_policy": "KEYS_SUBSET", "fallback_keys_subset": ["a"]},
        {"keys": ["id"], "single_host_per_subset": True, "fallback_policy": "NO_FALLBACK"},
        {},
    ]
    flags = ("list_as_any", "panic_mode_any", "locality_weight_aware", "scale_locality_weight")
    config = {
        "subset_selectors": selectors,
        "fallback_policy": "DEFAULT_SUBSET",
        "default_subset": {"v": 1},
        "metadata_fallback_policy": "FALLBACK_LIST",
        **dict.fromkeys(flags, True),
    }
    wanted = LbSubsetConfig(
        (SubsetSelector(("a", "b"), "KEYS_SUBSET", ("a",)), SubsetSelector(("id",), "NO_FALLBACK", (), True)),
        "DEFAULT_SUBSET",
        Struct.of({"v": 1}),
        metadata_fallback_list=True,
        **dict.fromkeys(flags, True),
    )
    weighted = {"locality_weighted_lb_config": {}}
    found, issues = cluster(lb_subset_config=config, common_lb_config=weighted)
    assert (found.subsets, issues) == (wanted, [])
    inner = {"subset_lb_policy": policies(("random.v3.Random", {})), "allow_redundant_keys": True}
    found, issues = chosen(("subset.v3.Subset", {**config, **inner}))
    assert found.subsets.allow_redundant_keys
    assert (found.subsets.selectors, found.lb_policy, issues) == (wanted.selectors, Random(), [])


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 65536}}, "maglev_lb_config.table_size"),
        ({"lb_policy": "MAGLEV", "maglev_lb_config": {"table_size": 5000021}}, "maglev_lb_config.table_size"),
        (
            {
                "lb_policy": "RING_HASH",
                "common_lb_config": {"consistent_hashing_lb_config": {"hash_balance_factor": 99}},
            },
            "common_lb_config.consistent_hashing_lb_config.hash_balance_factor",
        ),
        (
            {
                "load_balancing_policy": policies(("random.v3.Random", {})),
                "common_lb_config": {"zone_aware_lb_config": {}},
            },
            "common_lb_config.zone_aware_lb_config",
        ),
        (
            {"lb_subset_config": {"subset_selectors": [{"keys": ["a"]}], "locality_weight_aware": True}},
            "lb_subset_config.locality_weight_aware",
        ),
        (
            {"lb_subset_config": {"subset_selectors": [{"keys": ["a"], "fallback_policy": "KEYS_SUBSET"}]}},
            "lb_subset_config.subset_selectors[0].fallback_keys_subset",
        ),
        (
            {
                "load_balancing_policy": policies(
                    ("random_subsetting.v3.RandomSubsetting", {"child_policy": policies(("random.v3.Random", {}))})
                )
            },
            f"{FIRST}.typed_config.subset_size",
        ),
    ],
)
def test_what_is_refused(fields: Mapping[str, Any], path: str) -> None:
    with pytest.raises(ResourceError) as refused:
        cluster(**fields)
    assert refused.value.path == path


def test_zones_by_extension_and_by_common_config() -> None:
    zones = {"routing_enabled": {"value": 30}, "min_cluster_size": 2, "fail_traffic_on_panic": True}
    found, issues = cluster(common_lb_config={"zone_aware_lb_config": zones})
    assert (found.zone_aware, issues) == (ZoneAware(30.0, 2, True), [])
    more = {**zones, "force_local_zone": {"min_size": 4}, "locality_basis": "HEALTHY_HOSTS_WEIGHT"}
    found, issues = chosen(("round_robin.v3.RoundRobin", {"locality_lb_config": {"zone_aware_lb_config": more}}))
    assert (found.zone_aware, issues) == (ZoneAware(30.0, 2, True, 4, "HEALTHY_HOSTS_WEIGHT"), [])


# ---------------------------------------------------------------------------------------- the application's own


def test_a_registered_balancer_by_typed_struct() -> None:
    register_balancer("acme.lb.Mine", lambda config, hosts: None)  # type: ignore[arg-type, return-value]
    found, issues = chosen(("type.googleapis.com/acme.lb.Mine", {"depth": 3, "tags": ["a"]}))
    assert (found.lb_policy, issues) == (UserLbPolicy("acme.lb.Mine", Struct.of({"depth": 3, "tags": ["a"]})), [])


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A distribution with two balancers, as an installer leaves it."""
    (tmp_path / "acme_balancers.py").write_text("def build(config, hosts):\n    raise AssertionError\n")
    info = tmp_path / "acme_balancers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-balancers\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[meshlib.balancers]\nacme.Installed = acme_balancers:build\nacme.Broken = acme_balancers:gone\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("acme_balancers", None)


def test_a_balancer_by_entry_point(installed: None) -> None:
    found, issues = chosen(("type.googleapis.com/acme.Installed", {}))
    assert (found.lb_policy, issues) == (UserLbPolicy("acme.Installed"), [])


def test_a_balancer_that_cannot_be_imported_is_reported_and_the_next_one_counts(installed: None) -> None:
    message = xds.message(
        CLUSTER,
        xds.eds_cluster(
            load_balancing_policy=policies(("type.googleapis.com/acme.Broken", {}), ("random.v3.Random", {}))
        ),
    )
    found = decode_message(message)
    assert isinstance(found.resource, Cluster)
    assert found.resource.lb_policy == Random()
    (issue,) = found.issues
    assert (issue.path, "acme_balancers:gone" in issue.reason) == (FIRST, True)
