"""RequestHead: what every layer needs to know of a request, the same for HTTP and gRPC.

It lives beside the model because routing, balancing, policies and the engine all read it and none of them owns it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar

from meshlib.model.metadata import EMPTY_METADATA, Metadata

__all__ = ["RawHeaders", "RequestHead", "ServedHead"]

RawHeaders = Sequence[tuple[bytes, bytes]]
_NO_STATE: Mapping[str, str] = MappingProxyType({})


@lru_cache(maxsize=1024)
def _in_bytes(name: str) -> bytes:
    """A header's name as the wire has it. Names that are asked for come from configuration and code: they are few."""
    return name.encode("latin-1", "replace")


class RequestHead:
    """Method, scheme, authority, path and headers of one request.

    `path` is the raw request target with its query string; `headers` are the wire's (name, value) byte pairs, any case.
    Names and values are decoded (latin-1, lower-case names) only when something asks for a header, because most routes
    never do. `peer` is the verified identity of who sent a request that is served, empty where nothing is known.
    """

    __slots__ = ("_index", "_known", "_split", "authority", "headers", "method", "path", "peer", "scheme")
    streams: ClassVar[bool] = False
    """Whether the request goes on as long as its sender likes: a route's timeout begins when it is complete (Envoy), so
    only `max_stream_duration` bounds such a call.
    """
    says_timeout: ClassVar[bool] = False
    """Whether the protocol itself tells the endpoint how long an attempt may take, so that no header has to."""
    protocol: ClassVar[str] = "HTTP/1.1"
    """In the words of Envoy's `%PROTOCOL%`."""
    overlaps: ClassVar[bool] = True
    """Whether whoever sends it can have several attempts of it under way at once (hedging)."""
    shared: ClassVar[bool] = False
    """Whether this is the head of many calls, all alike: then what is decided for one need not be decided anew."""

    def __init__(self, method: str, scheme: str, authority: str, path: str, headers: RawHeaders = ()) -> None:
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.path = path
        self.headers = headers
        self.peer = ""
        self._known: dict[str, list[str]] | None = None
        self._index: dict[bytes, list[bytes]] | None = None
        self._split: tuple[str, str] | None = None

    @property
    def metadata(self) -> Metadata:
        """The call's dynamic metadata, for matchers that ask for it: none, but for heads of a class that carries it."""
        return EMPTY_METADATA

    @property
    def filter_state(self) -> Mapping[str, str]:
        """The call's filter state, each object as its text: likewise."""
        return _NO_STATE

    @property
    def remote_address(self) -> str | None:
        """The address the request comes from, empty where it has none (a unix socket); None of a call that this
        process makes itself.
        """
        return None

    def like(self, path: str, headers: RawHeaders) -> RequestHead:
        """The same request with another path and other headers."""
        return type(self)(self.method, self.scheme, self.authority, path, headers)

    @property
    def path_only(self) -> str:
        """The path without query string and fragment."""
        path = self.path
        if "?" not in path and "#" not in path:
            return path
        return self._parts()[0]

    @property
    def query(self) -> str:
        """The query string without its `?`, empty when there is none."""
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        split = self._split
        if split is None:
            target = self.path.partition("#")[0]
            path, _, query = target.partition("?")
            split = self._split = (path, query)
        return split

    def get_all(self, name: str) -> list[str]:
        """Every value of a header (`name` in lower case) or pseudo header, in order; an empty list when missing."""
        known = self._known
        if known is not None:
            values = known.get(name)
            if values is not None:
                return values
        if name[:1] == ":":
            value = self._pseudo(name)
            return [] if value is None else [value]
        if known is None:
            # Most requests are asked for one header only: it is looked for, and the others are left as they are.
            wanted = _in_bytes(name)
            size = len(wanted)  # tells nearly all names apart, for less than lower-casing them
            found = []
            for raw_name, raw_value in self.headers:
                if len(raw_name) == size and raw_name.lower() == wanted:
                    found.append(raw_value.decode("latin-1"))
            found = found or self._implied(name)
            self._known = {name: found}
            return found
        values = known[name] = self._indexed(name)
        return values

    def look_for(self, names: Mapping[bytes, str]) -> None:
        """Find several headers in one pass, for whoever is about to ask for them: `names` by their bytes, in lower
        case. Asking for others is as ever.
        """
        known: dict[str, list[str]] = {name: [] for name in names.values()}
        for raw_name, raw_value in self.headers:
            name = names.get(raw_name) or names.get(raw_name.lower())
            if name is not None:
                known[name].append(raw_value.decode("latin-1"))
        self._known = known

    def get(self, name: str) -> str | None:
        """The header's values joined by `,` as Envoy matches them, None when missing."""
        values = self.get_all(name)
        if not values:
            return None
        return values[0] if len(values) == 1 else ",".join(values)

    def _indexed(self, name: str) -> list[str]:
        """A header's values by the index, which is made for the second header that is asked for."""
        index = self._index
        if index is None:
            index = self._index = {}
            for raw_name, raw_value in self.headers:
                key = raw_name.lower()
                values = index.get(key)
                if values is None:
                    index[key] = [raw_value]
                else:
                    values.append(raw_value)
        found = index.get(_in_bytes(name))
        return self._implied(name) if found is None else [value.decode("latin-1") for value in found]

    def _implied(self, name: str) -> list[str]:
        """What a missing header is all the same: HTTP/2 has no `host`, it has an authority."""
        return [self.authority] if name == "host" and self.authority else []

    def _pseudo(self, name: str) -> str | None:
        return {
            ":method": self.method,
            ":scheme": self.scheme,
            ":authority": self.authority,
            ":path": self.path,
        }.get(name)

    def __repr__(self) -> str:
        return f"RequestHead({self.method} {self.scheme}://{self.authority}{self.path})"


class ServedHead(RequestHead):
    """A request that this process serves. `source` is the address it comes from, or what tells it when it is asked."""

    __slots__ = ("source",)

    def __init__(
        self,
        method: str,
        scheme: str,
        authority: str,
        path: str,
        headers: RawHeaders = (),
        source: str | Callable[[], str] = "",
    ) -> None:
        super().__init__(method, scheme, authority, path, headers)
        self.source = source

    @property
    def remote_address(self) -> str:
        """The address the request comes from."""
        source = self.source
        return source if isinstance(source, str) else source()

    def like(self, path: str, headers: RawHeaders) -> RequestHead:
        """The same request with another path and other headers."""
        return ServedHead(self.method, self.scheme, self.authority, path, headers, self.source)
