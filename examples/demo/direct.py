"""Calls to one instance itself, past the control plane: is it ready, and whom does it let in?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import grpc
import httpx

from examples.demo.certificates import TRUST_DOMAIN
from examples.demo.receipts import ReceiptsStub
from meshlib import Mesh
from meshlib.identity import Identity, mtls
from meshlib.sources.static import static_cluster

PATIENCE = 20.0  # seconds; what has not happened by then is a broken promise, even on a very busy machine


class Direct:
    """An instance at an address, called as `identity` (None: over plain HTTP); use as `async with`."""

    def __init__(self, address: str, identity: Identity | None, *, speaks_grpc: bool = False) -> None:
        cluster = replace(static_cluster("instance", [address]), connect_timeout=PATIENCE)
        if identity is not None:
            tls = mtls(f"{TRUST_DOMAIN}/*")
            shown = tls if identity.spiffe_id else replace(tls, certificate_provider="")  # nothing to show
            cluster = replace(cluster, tls=shown)
        self._mesh = Mesh.static({"instance": cluster}, identity=identity)
        self._speaks_grpc = speaks_grpc

    async def __aenter__(self) -> Self:
        self._http = self._mesh.http.async_client("instance", timeout=PATIENCE)
        self._channel = self._mesh.grpc.aio_channel("instance") if self._speaks_grpc else None
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()
        if self._channel is not None:
            await self._channel.close()
        self._mesh.close()

    async def call(self) -> None:
        """A call any instance answers. Raises httpx.HTTPError or grpc.RpcError."""
        if self._channel is not None:
            await ReceiptsStub(self._channel).Issue({}, timeout=PATIENCE)
        else:
            (await self._http.get("/ready")).raise_for_status()

    async def refusal(self) -> str:
        """Why it does not answer; empty when it does."""
        try:
            await self.call()
        except (httpx.HTTPError, grpc.RpcError) as error:
            return str(getattr(error, "failure", error))
        return ""

    async def post(self, path: str, **params: Any) -> None:
        """Tell it something."""
        (await self._http.post(path, params=params)).raise_for_status()
