"""What the copy of a mirrored request looks like (Envoy's shadow router)."""

from __future__ import annotations

from collections.abc import Callable

from meshlib.model.mirror import RequestMirrorPolicy
from meshlib.model.request import RequestHead
from meshlib.routing.headers import compile_mutations
from meshlib.routing.text import as_wire

SUFFIX = "-shadow"
Shadow = Callable[[RequestHead], RequestHead]


def compile_shadow(policy: RequestMirrorPolicy) -> Shadow:
    """The copy of a request as it went to its endpoint: changed headers, and another host."""
    mutate = compile_mutations(*policy.request_headers)
    literal = as_wire(policy.host_rewrite_literal)

    def shadow(head: RequestHead) -> RequestHead:
        headers = list(head.headers)
        if mutate is not None:
            headers = mutate(headers, head)
        host = literal or (head.authority if policy.keeps_host else shadow_host(head.authority))
        if host != head.authority:
            headers = [(b"Host", host.encode("latin-1")), *(pair for pair in headers if pair[0].lower() != b"host")]
        return RequestHead(head.method, head.scheme, host, head.path, headers)

    return shadow


def shadow_host(authority: str) -> str:
    """The host with `-shadow` before its port."""
    host, colon, port = authority.rpartition(":")
    if colon and port.isascii() and port.isdigit():
        return f"{host}{SUFFIX}:{port}"
    return authority + SUFFIX
