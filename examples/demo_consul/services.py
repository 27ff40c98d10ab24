"""A service that registers itself: `python -m examples.demo_consul.services ROLE NAME [PORT]`.

The applications are those of `examples/demo`; the mesh and the registration are made from `CONSUL_HTTP_ADDR`. SIGTERM
deregisters first, and for a second more the server goes on serving those who have not heard yet.
"""

from __future__ import annotations

import logging
import sys

from examples.demo.services import flaky, listen, payments, serve
from meshlib import Mesh
from meshlib.http.drain import Drain
from meshlib.registration import ConsulRegistration, TtlCheck

SERVICES = {"stable": "stable", "canary": "canary", "flaky": "hints"}


def main(role: str, name: str, port: int = 0) -> None:
    """Serve one instance, registered while it can be called."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    listening, drain = listen(port), Drain(seconds=1.0)
    registration = ConsulRegistration(
        SERVICES[role],
        port=listening.getsockname()[1],
        address="127.0.0.1",
        service_id=name,
        meta={"version": role},
        check=TtlCheck(3.0),
    )
    drain.on_drain(registration.leave)
    mesh = Mesh.from_consul(declared=["hints"] if role != "flaky" else [])
    app = flaky(name, mesh, drain) if role == "flaky" else payments(role, name, mesh, drain)
    with registration:
        serve(name, listening, app)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
