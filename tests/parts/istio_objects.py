"""Istio objects as text, and the Envoy resources that our translation makes of them, in JSON form."""

from typing import Any

from google.protobuf import json_format

from meshlib.sources.files.loader import parse_text
from meshlib.sources.files.resources import Content
from meshlib.sources.istio.caller import Caller
from meshlib.sources.istio.translate import translate

Json = dict[str, Any]
HOST = "reviews.default.svc.cluster.local"


def obj(kind: str, name: str, spec: str, namespace: str = "default", more: str = "") -> str:
    head = (
        f"apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{more}}}\n"
    )
    return f"{head}spec: {spec}\n"


def entry(spec: str = "", namespace: str = "default", name: str = "reviews") -> str:
    return obj("ServiceEntry", name, f"{{hosts: [{HOST}], ports: [{{number: 9080, name: http, protocol: HTTP}}], "
               f"resolution: STATIC, location: MESH_INTERNAL, {spec or 'endpoints: [{address: 10.0.0.1}]'}}}",
               namespace)  # fmt: skip


def translated(*objects: str, caller: Caller | None = None) -> Content:
    content = parse_text("---\n".join(objects), "x.yaml")
    assert content.issues == ()
    return translate(content.istio, caller or Caller())


def resources(*objects: str, caller: Caller | None = None) -> dict[str, Json]:
    return {
        resource.label: json_format.MessageToDict(resource.message, preserving_proto_field_name=True)
        for resource in translated(*objects, caller=caller).resources
    }


def rule(spec: str, name: str = "r", namespace: str = "default", host: str = HOST) -> str:
    return obj("DestinationRule", name, f"{{host: '{host}', {spec}}}", namespace)
