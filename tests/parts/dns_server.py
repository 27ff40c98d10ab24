"""A DNS server of our own: its answers are a dict that tests change while it serves."""

from __future__ import annotations

import socket
import threading
from collections import Counter

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset


class DnsServer:
    """UDP on 127.0.0.1. `records` maps a name to its addresses; a name that is not there is NXDOMAIN, one with
    none has no records. `broken` names are answered SERVFAIL. `asked` counts questions by name. `ttl` in seconds.
    """

    def __init__(self, records: dict[str, list[str]] | None = None, ttl: int = 60, port: int = 0) -> None:
        self.records = records or {}
        self.ttl = ttl
        self.broken: set[str] = set()
        self.asked: Counter[str] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        """Gone: questions are refused by the machine, or lost."""
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, where = self._socket.recvfrom(4096)
            if not data:
                return
            self._socket.sendto(self._answer(dns.message.from_wire(data)).to_wire(), where)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked[name] += 1
        if name in self.broken:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.records:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            wanted = ":" if question.rdtype == dns.rdatatype.AAAA else "."
            found = [address for address in self.records[name] if wanted in address]
            if found:
                response.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", question.rdtype, found))
        return response
