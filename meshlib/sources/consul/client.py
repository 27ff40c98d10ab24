"""Reads from a Consul agent: headers, time limits, what an answer's status and headers mean, connections kept."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  loaded now: a child forked while a thread imports can never import it
import encodings.idna  # noqa: F401  as above: name resolution imports it on first use
import json
import re
import socket
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshlib.errors import ConfigurationError
from meshlib.sources.consul.blocking import longest_answer
from meshlib.sources.consul.http1 import Connection, ProtocolError, Response, connect
from meshlib.sources.consul.query import Consistency, Query
from meshlib.sources.consul.settings import ConsulSettings
from meshlib.sources.consul.tls import tls_context, tls_server_name

_MAY_BE_HALF = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]").search  # a surrogate: escaped, or as bytes
_REQUEST_SECONDS = 10.0  # what an answer that need not wait may take, and the body of one that did


class Unanswered(Exception):  # noqa: N818  not an error of the program: a fact about the agent
    """There is no answer that counts. `is_said`: Consul itself gave the reason, for this question.
    `is_crowded`: this host has too many connections to Consul. `has_no_chains`: Consul has no discovery chains.
    """

    def __init__(self, reason: str, *, is_said: bool = False, is_crowded: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_said = is_said
        self.is_crowded = is_crowded

    @property
    def has_no_chains(self) -> bool:
        """Connect is switched off on the servers, which then compile no chains (1.5 and older do not know the path)."""
        return "Connect must be enabled" in self.reason


@dataclass(frozen=True, slots=True)
class Answer:
    """`content` is the body as it came. `last_contact`: how old (seconds) a stale server says its state is."""

    content: bytes
    index: int | None
    last_contact: float = 0.0
    consistency: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it is an empty list."""
        return self.content.strip() == b"[]"

    def json(self) -> Any:
        """The body decoded. Raises `Unanswered` when it is no JSON, or holds half a character, which can stand in no
        request and no table.
        """
        try:
            found = json.loads(self.content)
            if _MAY_BE_HALF(self.content):
                json.dumps(found, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            raise Unanswered(f"the answer is not JSON: {error}") from None
        return found


class ConsulClient:
    """Asks one agent. For one event loop; `forget` is for a forked child, which has no loop."""

    def __init__(self, settings: ConsulSettings, consistency: Consistency = "default") -> None:
        self._settings = settings
        self._mode = () if consistency == "default" else ((consistency, ""),)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.queries = 0
        self.most_connections: int | None = None  # beyond, a connection is closed after its answer

    async def ask(self, query: Query, index: int, wait: float, *, is_fresh: bool = False) -> Answer:
        """One read; blocks up to `wait` seconds for something newer than `index`, unless that is 0. `is_fresh` asks the
        leader whatever the consistency mode. Raises `Unanswered`.
        """
        params = () if is_fresh else self._mode
        if index:
            params = (*params, ("index", str(index)), ("wait", f"{round(wait * 1000)}ms"))
        limit = longest_answer(wait, _REQUEST_SECONDS) if index else _REQUEST_SECONDS
        try:
            response = await self._exchange(query.target(params), limit)
        except TimeoutError:
            raise Unanswered(f"no answer within {limit:.0f} s") from None
        except (OSError, UnicodeError, ProtocolError, ConfigurationError) as error:
            raise Unanswered(str(error) or type(error).__name__) from None
        return _answer(response)

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return len(self._open)

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self._open):
            connection.close()
        self._open.clear()
        self._idle.clear()

    def forget(self) -> None:
        """In a forked child: close its copies of the sockets, which the parent goes on using. Nothing is shut down, and
        the loop, whose selector the two processes share, is not touched.
        """
        for sock in list(self._sockets):
            sock.close()

    async def _exchange(self, target: str, limit: float) -> Response:
        headers = self._settings.headers()
        connection = self._idle.pop() if self._idle else await self._connect()
        self.queries += 1
        try:
            response = await connection.get(target, headers, limit, _REQUEST_SECONDS)
        except BaseException:
            self._drop(connection)
            raise
        if connection.reusable and len(self._open) <= (self.most_connections or len(self._open)):
            self._idle.append(connection)
        else:
            self._drop(connection)
        return response

    async def _connect(self) -> Connection:
        settings = self._settings
        connection = await connect(settings.address, tls_context(settings), tls_server_name(settings), self._opened)
        self._open.add(connection)
        return connection

    def _opened(self, sock: socket.socket) -> Callable[[], None]:
        self._sockets.add(sock)
        return lambda: self._sockets.discard(sock)

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._open.discard(connection)


def _answer(response: Response) -> Answer:
    if response.status != 200:
        reason = response.body[:300].decode("utf-8", "replace").strip()
        raise Unanswered(f"status {response.status}: {reason}", is_said=True, is_crowded=response.status == 429)
    headers = response.headers
    index, contact = headers.get("x-consul-index", ""), headers.get("x-consul-lastcontact", "")
    answer = Answer(
        response.body,
        int(index) if _is_number(index) else None,
        int(contact) / 1000 if _is_number(contact) else 0.0,
        headers.get("x-consul-effective-consistency", ""),
    )
    if answer.is_empty and headers.get("x-consul-results-filtered-by-acls", "").lower() == "true":
        # Consul leaves out what a token may not see, and answers an empty list: that is no fact about the service.
        raise Unanswered("the ACL token may not read this service or its nodes", is_said=True)
    return answer


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 20
