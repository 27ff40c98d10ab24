"""A mesh from code, and clients that are httpx's own: `python -m examples.static_client`.

Three endpoints, one of which answers 503: retries on another one hide it, and the response says what happened.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx

from examples.tiny_server import TinyServer
from meshlib import CallError, Mesh

good, better, bad = TinyServer("good"), TinyServer("better"), TinyServer("bad")
bad.status = 503

mesh = Mesh.static(
    {"payments": [good.address, better.address, bad.address], "nobody": ["127.0.0.1:1"]},
    timeout=2.0,  # of a call, all its retries included
    retries=2,
)


def blocking() -> None:
    with mesh.http.client("payments") as client:
        response = client.get("/charge")
        info = response.extensions["meshlib"]
        print(f"{response.status_code} from {response.text}: cluster {info.cluster}, {info.attempts} attempt(s)")
        attempts = Counter(client.get("/charge").extensions["meshlib"].attempts for _ in range(100))
        print(f"100 calls succeeded; how many needed 1, 2, ... attempts: {dict(sorted(attempts.items()))}")


async def on_a_loop() -> None:
    bad.status = 200
    async with mesh.http.async_client("payments") as client:
        responses = await asyncio.gather(*(client.get("/charge") for _ in range(20)))
        print(f"20 at once, all well again: {dict(Counter(response.text for response in responses))}")


def failure() -> None:
    with mesh.http.client() as client:
        try:
            client.get("http://nobody/")
        except httpx.ConnectError as error:  # httpx's exception as ever, and meshlib's at the same time
            if isinstance(error, CallError):
                print(f"flag {error.flag} after {error.failure.attempts} attempts: {error}")


if __name__ == "__main__":
    with mesh:
        blocking()
        asyncio.run(on_a_loop())
        failure()
