"""Any text as a file, and any JSON as a resource: findings, never an exception."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from meshlib.sources.files.loader import parse_text
from meshlib.sources.files.messages import to_message
from meshlib.sources.files.references import check_references
from meshlib.sources.files.resources import Loaded
from meshlib.sources.files.snapshot import build_snapshot
from meshlib.sources.files.type_registry import ASSIGNMENT, CLUSTER, LISTENER, ROUTE_CONFIGURATION
from meshlib.sources.istio import (
    destination_rule_fields,
    service_entry,
    sidecar,
    virtual_service_fields,
    workload_entry,
)
from meshlib.sources.istio.fields import Fields, Kind, ListOf, MapOf, OneOf, Scalar
from meshlib.sources.istio.translate import translate

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["15s", "1h", "-1s", "*", "/", "EDS", "STATIC", "a.b", "envoy.lb", "mesh", "aGk=", "9" * 40]),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner))


def whole(text: str, file: str = "x.yaml") -> None:
    """Everything that happens to a file, up to the snapshot."""
    content = parse_text(text, file)
    translated = translate(content.istio)
    resources = (*content.resources, *translated.resources)
    build_snapshot(Loaded(resources, (*content.issues, *translated.issues), (file,), "v"))
    list(check_references(resources, resources))


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ab:-[]{},&*!|>'\"#%@ \n\t<?0123.~\x00\u20ac", max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    whole(text)
    whole(text, "x.json")


SAMPLES = Path(__file__).parents[1] / "differential" / "istio_samples.yaml"
ODD = (None, True, 0, -1, 10**30, 3.5, "", "*", "*.", "a" * 300, "-1s", "999999999999h", "(?P<", "%REQ(", "[::1]", "\0")
ODD += ([], [None], [{}], {}, {"a": 1}, {"a": None}, [[1]])  # type: ignore[assignment]


def places(value: Any, above: Any = None, key: Any = None) -> Iterator[tuple[Any, Any]]:
    """(Mapping or list, key) of everything within a value."""
    if above is not None:
        yield above, key
    for inner, item in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from places(item, value, inner)


def test_istio_objects_with_odd_shapes() -> None:
    """Good objects of which one thing or several are gone, null or something else: findings, never an exception."""
    documents = [json.dumps(found) for found in yaml.safe_load_all(SAMPLES.read_text()) if found]
    for seed in range(100):
        rng = random.Random(seed)
        some = [json.loads(text) for text in rng.sample(documents, 6)]
        for _ in range(rng.randint(1, 4)):
            above, key = rng.choice(list(places([each["spec"] for each in some])))
            above[key] = rng.choice(ODD)
            if isinstance(above, dict) and rng.random() < 0.25:
                del above[key]
        text = "\n---\n".join(map(json.dumps, some))
        try:
            whole(text)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {text}") from error


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_any_json_is_recognised_or_refused(value: Any) -> None:
    whole(json.dumps(value), "x.json")


def shaped(descriptor: Any, rng: random.Random, depth: int = 0) -> Any:
    """A value that is nearly right for a message type: real field names, now and then a wrong value."""
    value: dict[str, Any] = {}
    fields = list(descriptor.fields)
    for field in rng.sample(fields, min(len(fields), rng.randint(0, 4))):
        one = _field(field, rng, depth)
        value[field.name] = [one] if field.is_repeated and rng.random() < 0.95 else one
    return value


WRONG: tuple[Any, ...] = (None, True, -1, 3.5, "", "x", [], {}, "15s", 2**70, float("inf"), "\ud800", {"a": 1}, ["a"])


WELL_KNOWN = ("Struct", "Value", "ListValue", "Duration", "Timestamp", "FieldMask", "Any", "Empty", "BoolValue",
              "BytesValue", "DoubleValue", "FloatValue", "Int32Value", "Int64Value", "StringValue", "UInt32Value",
              "UInt64Value")  # fmt: skip


def any_of(rng: random.Random) -> Any:
    """An Any of a well-known type, often without the value that belongs to it."""
    value: dict[str, Any] = {"@type": f"type.googleapis.com/google.protobuf.{rng.choice(WELL_KNOWN)}"}
    if rng.random() < 0.5:
        value["value"] = rng.choice([*WRONG, "2026-01-31T12:00:00Z", {"@type": value["@type"]}])
    return value | ({"name": "x"} if rng.random() < 0.1 else {})


def _field(field: Any, rng: random.Random, depth: int) -> Any:
    if rng.random() < 0.1 or depth > 6:
        return rng.choice(WRONG)
    if field.message_type is not None and field.message_type.full_name == "google.protobuf.Any":
        return any_of(rng)
    if field.message_type is not None:
        return shaped(field.message_type, rng, depth + 1)
    if field.enum_type is not None:
        return rng.choice([*field.enum_type.values_by_name, 0, 99])
    return rng.choice(["text", 1, True, "15s", 0.5])


@pytest.mark.parametrize("type_name", [LISTENER, ROUTE_CONFIGURATION, CLUSTER, ASSIGNMENT])
def test_what_passes_the_schema_is_a_message(type_name: str) -> None:
    """The schema check is as strict as protobuf: what it lets through, protobuf takes."""
    from meshlib.sources.files.type_registry import message_class

    cls = message_class(type_name)
    assert cls is not None
    accepted = 0
    for seed in range(1500):
        value = shaped(cls.DESCRIPTOR, random.Random(seed))
        message, problems = to_message(value, type_name)
        refused = [problem.reason for problem in problems if problem.reason.startswith("protobuf refuses")]
        assert refused == [], (seed, value, refused)
        accepted += message is not None
    assert accepted > 50


def test_any_typed_config_of_a_well_known_type() -> None:
    """With or without its value: a message or a finding, never an exception."""
    taken = left_out = 0
    for seed in range(2000):
        config = any_of(random.Random(seed))
        value = {"name": "a", "transport_socket": {"name": "x", "typed_config": config}}
        message, problems = to_message(value, CLUSTER)
        assert (message is None) == any(problem.severity == "error" for problem in problems), (config, problems)
        taken += message is not None
        left_out += any('has no "value"' in problem.reason for problem in problems)
        whole(json.dumps({"static_resources": {"clusters": [value]}}), "x.json")
    assert taken > 500
    assert left_out > 500


SPECS = {
    "VirtualService": virtual_service_fields.SPEC,
    "DestinationRule": destination_rule_fields.SPEC,
    "ServiceEntry": service_entry.SPEC,
    "WorkloadEntry": workload_entry.SPEC,
    "Sidecar": sidecar.SPEC,
}


def istio(kind: Kind, rng: random.Random, depth: int = 0) -> Any:
    """A value of a kind, now and then a wrong one."""
    if rng.random() < 0.03 or depth > 10:
        return rng.choice(WRONG[:-4])
    if isinstance(kind, Fields):
        names = [*kind.required, *(name for name in kind.known if rng.random() < 0.4)]
        return {name: istio(kind.known[name], rng, depth + 1) for name in names}
    if isinstance(kind, ListOf):
        return [istio(kind.item, rng, depth + 1) for _ in range(rng.randint(0, 2))]
    if isinstance(kind, MapOf):
        return {name: istio(kind.item, rng, depth + 1) for name in rng.sample(["a", "host", "@x"], rng.randint(0, 2))}
    if isinstance(kind, OneOf):
        return rng.choice(kind.words)
    return _scalar(kind, rng)


def _scalar(kind: Scalar, rng: random.Random) -> Any:
    choices: dict[str, list[Any]] = {
        "text": ["a", "*.test", "a.test", "reviews", "mesh", "", "*"],
        "flag": [True, False],
        "duration": ["1s", "250ms", "0s"],
        "whole": [int(kind.low), 80, 301],
        "number": [0, 20.5],
    }
    return rng.choice(choices[kind.kind])


def test_any_istio_objects_give_resources_or_issues() -> None:
    clean = 0
    for seed in range(400):
        rng = random.Random(seed)
        documents = [
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": kind,
                "metadata": {"name": f"{kind.lower()}-{number}"},
                "spec": istio(spec, rng),
            }
            for kind, spec in SPECS.items()
            for number in range(2)
        ]
        text = yaml.safe_dump_all(documents, allow_unicode=True)
        content = parse_text(text, "x.yaml")
        translated = translate(content.istio)
        generated = [issue for issue in translated.issues if issue.resource.split()[0] not in SPECS]
        assert generated == [], (seed, [str(issue) for issue in generated])  # ours to get right, whatever was written
        clean += bool(translated.resources)
        whole(text)
    assert clean > 50
