"""A program that injects faults, before and after it forks: `forking_faults.py ADDRESS`. A fault of the parent's is
under way when it forks. Prints what each process met.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

import httpx

from meshlib import Fault, Mesh
from meshlib.http.wsgi import MeshMiddleware


def app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"served"]


def tell(*found: object) -> None:
    sys.stdout.write(" ".join(map(str, found)) + "\n")
    sys.stdout.flush()


def main() -> None:
    signal.alarm(30)
    mesh = Mesh.static({"payments": [sys.argv[1]]})
    served = MeshMiddleware(app, mesh=mesh, faults=[Fault(abort=418)])
    mesh.faults.inject("payments", Fault(abort=503, path="/bad"))
    mesh.faults.inject("payments", Fault(delay=1.0, path="/slow", max_active=1))

    def met() -> list[int]:
        with mesh.http.client("payments") as client, httpx.Client(transport=httpx.WSGITransport(served)) as caller:
            return [client.get("/bad").status_code, caller.get("http://me/").status_code]

    waiting = threading.Thread(target=lambda: mesh.http.client("payments").get("/slow"))
    waiting.start()
    while not mesh.faults.active:
        threading.Event().wait(0.005)
    parent = met()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        found = [len(mesh.faults.active), mesh.stats().get("fault.aborts_injected", 0), *met()]
        mesh.faults.enabled = False
        tell("child", *found, *met())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    waiting.join()
    tell("parent", *parent, *met(), len(mesh.faults.active), mesh.stats()["fault.aborts_injected"])
    mesh.close()


main()
