"""What the multi-callables of a mesh channel share: the method, and its counterpart on each sub-channel."""

from __future__ import annotations

from typing import Any, TypeVar

from meshlib.grpc.aio_direct import DirectMethod
from meshlib.grpc.direct import DirectCall
from meshlib.grpc.requests import wire_bytes
from meshlib.grpc.subchannels import SubChannel

D = TypeVar("D", DirectCall, DirectMethod)


class Method:
    """One method of a mesh channel: `kind` is the channel's factory for it (`unary_unary`, ...)."""

    __slots__ = (
        "_by_subchannel",
        "_copies",
        "_direct",
        "_plain",
        "_registered",
        "deserializer",
        "kind",
        "path",
        "serializer",
    )

    def __init__(self, kind: str, path: str | bytes, serializer: Any, deserializer: Any, registered: Any) -> None:
        self.kind = kind
        self.path = path.decode("ascii") if isinstance(path, bytes) else path
        self.serializer = serializer
        self.deserializer = deserializer
        # Generated stubs register their methods with the channel, which saves grpcio a look-up per call.
        self._registered = {"_registered_method": True} if registered else {}
        self._by_subchannel: dict[SubChannel, Any] = {}
        self._direct: dict[SubChannel, Any] = {}
        self._copies: Method | None = None
        self._plain: tuple[Any, Any] = (None, None)

    @property
    def as_copies(self) -> Method:
        """The same method as copies of its calls use it: any number of messages either way, in bytes."""
        found = self._copies
        if found is None:
            found = self._copies = Method("stream_stream", self.path, None, None, None)
        return found

    def on(self, subchannel: SubChannel) -> Any:
        """The multi-callable of the same method on a sub-channel."""
        found = self._by_subchannel.get(subchannel)
        return found if found is not None else self._new(subchannel)

    def directly_on(self, subchannel: SubChannel, way: type[D]) -> D | None:
        """The direct way of a plain unary call, where there is one. A method is of one kind of channel: so is `way`."""
        try:
            found: D | None = self._direct[subchannel]
        except KeyError:
            found = self._direct.setdefault(subchannel, way.of(self.on(subchannel)))
        return found

    def on_channel(self, channel: Any) -> Any:
        """A multi-callable of the same method on a plain channel; the last one is remembered."""
        known, call = self._plain
        if known is not channel:
            call = getattr(channel, self.kind)(self.path, self.serializer, self.deserializer, **self._registered)
            self._plain = (channel, call)
        return call

    def serialized_on(self, channel: Any) -> Any:
        """As `on_channel`, but a stream of requests comes serialized: what is kept for a retry must not change."""
        serializer = wire_bytes if self.kind.startswith("stream_") else self.serializer
        return getattr(channel, self.kind)(self.path, serializer, self.deserializer, **self._registered)

    def _new(self, subchannel: SubChannel) -> Any:
        for known in list(self._by_subchannel):
            if known.closed:  # else a stub would remember every endpoint there ever was
                self._by_subchannel.pop(known, None)
                self._direct.pop(known, None)
        made = self.serialized_on(subchannel.channel)
        return self._by_subchannel.setdefault(subchannel, made)
