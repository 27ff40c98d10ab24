"""Free TCP ports, for servers that cannot be told to take port 0."""

import socket

_given: set[int] = set()


def free_port() -> int:
    """A loopback port free a moment ago, given out once per test process.

    Another process may take it before the server does, so servers that can listen on port 0 should.
    """
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port
