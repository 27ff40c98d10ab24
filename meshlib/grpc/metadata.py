"""Call metadata and headers: the same thing in gRPC's words and in the engine's."""

from __future__ import annotations

import binascii
import os
import secrets
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from meshlib.context import CallContext, CallHead
from meshlib.engine.decision import EXPECTED_TIMEOUT
from meshlib.model.request import RawHeaders

Metadata = tuple[tuple[str, str | bytes], ...]
CONTENT_TYPE = (b"content-type", b"application/grpc")
CHANNEL_ID = "io.grpc.channel_id"
"""What hash policies of filter state call the channel (gRFC A42)."""
_BARE: RawHeaders = (CONTENT_TYPE,)
# grpcio writes these itself, and refuses metadata that does. The attempt's deadline goes as `grpc-timeout`: once is
# enough, and every pair costs both ends.
_OURS_TO_LEAVE_OUT = frozenset((b"content-type", b"te", b"host", b"user-agent", b"grpc-timeout", EXPECTED_TIMEOUT))


class GrpcHead(CallHead):
    """The head of a gRPC call. Pseudo-headers and binary headers match no rule (gRFC A28). `channel` tells the mesh
    channels of a process apart.
    """

    __slots__ = ("channel",)
    protocol = "HTTP/2"
    says_timeout = True
    channel: str

    @property
    def filter_state(self) -> Mapping[str, str]:
        """The context's, and what the channel can be told by (gRFC A42); in a forked child it is another one."""
        return {CHANNEL_ID: f"{self.channel}-{os.getpid()}", **super().filter_state}

    def like(self, path: str, headers: RawHeaders) -> GrpcHead:
        """The same request, which is no longer like any other."""
        made = self._own()(self.method, self.scheme, self.authority, path, headers)
        made.channel = self.channel
        return made

    def _own(self) -> type[GrpcHead]:
        return type(self)

    def _pseudo(self, name: str) -> str | None:
        return None


class StreamHead(GrpcHead):
    """The head of a call with a stream of requests."""

    __slots__ = ()
    overlaps = False
    streams = True


class ResponsesHead(GrpcHead):
    """The head of a call with one request and a stream of responses."""

    __slots__ = ()
    overlaps = False


class SharedHead(GrpcHead):
    """The head of every call of a channel's method that brings nothing of its own."""

    __slots__ = ()
    shared = True

    def _own(self) -> type[GrpcHead]:
        return GrpcHead if self.overlaps else ResponsesHead


class SharedResponsesHead(SharedHead):
    """The same of a method with a stream of responses."""

    __slots__ = ()
    overlaps = False


def new_channel() -> str:
    """A name for one more mesh channel: a random number, which two replicas do not share either."""
    return secrets.token_hex(8)


@lru_cache(maxsize=4096)
def _shared(authority: str, path: str, kind: type[SharedHead], channel: str) -> SharedHead:
    made = kind("POST", "http", authority, path, _BARE)
    made.channel = channel
    return made


def head_of(
    authority: str,
    path: str,
    metadata: Any,
    context: CallContext,
    streams: bool = False,
    responses: bool = False,
    channel: str = "",
) -> tuple[GrpcHead, Metadata]:
    """The neutral head of a call, and the binary metadata, which goes round the engine untouched.

    Metadata values are text, or bytes under names that end in `-bin`. `streams`: the requests are a stream.
    `responses`: the responses are.
    """
    if not metadata and not context.headers and not streams:
        return _shared(authority, path, SharedResponsesHead if responses else SharedHead, channel), ()
    kind = StreamHead if streams else ResponsesHead if responses else GrpcHead
    headers: list[tuple[bytes, bytes]] = [CONTENT_TYPE]
    binary: list[tuple[str, str | bytes]] = []
    for name, value in metadata or ():
        if name.endswith("-bin"):
            binary.append((name, value))
        else:
            raw = value if isinstance(value, bytes) else value.encode("latin-1", "replace")
            headers.append((name.encode("latin-1", "replace"), raw))
    if context.headers:
        headers = context.added_to(headers)
    head = kind("POST", "http", authority, path, headers)
    head.channel = channel
    return head, tuple(binary)


def metadata_of(headers: RawHeaders, binary: Metadata) -> Metadata:
    """The metadata of one attempt: what the engine made of the headers, and the binary metadata after it."""
    if len(headers) == 1 and headers[0] is CONTENT_TYPE:
        return binary  # what most calls are
    return (
        *(
            (name.decode("latin-1").lower(), _binary(value) if name.endswith(b"-bin") else value.decode("latin-1"))
            for name, value in headers
            if _is_metadata(name)
        ),
        *binary,
    )


def _binary(value: bytes) -> bytes:
    """The value of a binary header of the mesh's making: base64 as on the wire; what is none goes as it is."""
    try:
        return binascii.a2b_base64(value + b"=" * (-len(value) % 4), strict_mode=True)
    except binascii.Error:
        return value


def _is_metadata(name: bytes) -> bool:
    return name.lower() not in _OURS_TO_LEAVE_OUT and not name.startswith(b":")


def received(*parts: Iterable[tuple[str, str | bytes]] | None) -> list[tuple[bytes, bytes]]:
    """Received metadata as header pairs, one part after the other."""
    return [
        (name.encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
        for part in parts
        for name, value in part or ()
    ]
