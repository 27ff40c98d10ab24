"""Where meshlib's routing differs from Envoy's on purpose. Everything else that differs is a bug.

| Envoy | meshlib | why |
|---|---|---|
| a local answer to a gRPC request (direct response, redirect, no route) becomes status 200 with `grpc-status` | the answer keeps its HTTP status | the gRPC adapter raises its own error from it; nothing is sent over a wire |
| a path rewrite that changes nothing still sets `x-envoy-original-path` | the header is set when the path changed | it would say nothing |
"""

from dataclasses import replace

from differential.routing_observed import Ask, Observed


def comparable(ask: Ask, observed: Observed) -> Observed:
    """The observation without what is known to differ."""
    if observed.arrived is None and _is_grpc(ask):
        return replace(observed, status=0, headers=())
    if observed.arrived is not None:
        same = ("x-envoy-original-path", observed.arrived.path)
        headers = tuple(pair for pair in observed.arrived.headers if pair != same)
        return replace(observed, arrived=replace(observed.arrived, headers=headers))
    return observed


def _is_grpc(ask: Ask) -> bool:
    return any(name == "content-type" and value.startswith("application/grpc") for name, value in ask.headers)
