"""What all parts of the generator of Istio objects draw with."""

import random
from typing import Any

Json = dict[str, Any]
VERSIONS = ("v1", "v2", "v3")
LOCALITIES = ("eu/a/1", "eu/a/2", "eu/b", "eu", "us/x", "us")
NAMESPACES = ("default", "other")


class Chance:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def maybe(self, chance: float = 0.5) -> bool:
        return self.rng.random() < chance

    def some(self, fields: dict[str, Any], chance: float = 0.4) -> Json:
        """A part of the fields; a value that is callable is drawn only if its field is in it."""
        chosen = {name: value for name, value in fields.items() if self.maybe(chance)}
        return {name: value() if callable(value) else value for name, value in chosen.items()}

    def visibility(self) -> list[str]:
        return self.rng.choice((["*"], ["."], ["default"], ["other"], ["default", "other"]))


def document(kind: str, name: str, spec: Json, namespace: str = "default", **metadata: Any) -> Json:
    known = {"name": name, "namespace": namespace, **metadata}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": known, "spec": spec}
