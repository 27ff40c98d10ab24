"""The acts about who is who: callers are known by their certificates, and certificates change under load."""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import AsyncExitStack

from examples.demo.acts import follow_one_call
from examples.demo.certificates import LOOK_EVERY, Certificates, spiffe_id
from examples.demo.direct import PATIENCE
from examples.demo.stage import Stage, StoryOverError
from meshlib.identity import Identity
from meshlib.identity.dev_ca import DevCA

CALLERS = {"payments": "client", "hints": "payments", "receipts": "payments"}  # who calls whom in a checkout


async def who_is_who(stage: Stage) -> None:
    """A checkout goes through three services; each says who called it. Who shows no certificate is not let in."""
    hops = await follow_one_call(stage, "gRPC", "trace, request id and deadline travel from HTTP into gRPC")
    accounts = [stage.account(hop["instance"]) for hop in hops]
    kept = len(hops) == 3 and all(
        hop["caller"] == spiffe_id(CALLERS[account]) for hop, account in zip(hops, accounts, strict=True)
    )
    measured = ", ".join(f"{hop['instance']} is called by {hop['caller'] or 'nobody'}" for hop in hops)
    stage.promise("a service knows its caller", kept, measured)

    certificates = the_certificates(stage)
    nobody = Identity.from_pem(ca=certificates.trusted[0].pem)
    without, shown = await refusals(stage, nobody), await refusals(stage, certificates.client)
    measured = f"{without.count('')} of {len(without)} instances let it in; with its certificate {shown.count('')} do"
    stage.promise("a caller without a certificate is refused", all(without) and not any(shown), measured)


async def refusals(stage: Stage, identity: Identity) -> list[str]:
    """What each instance says to a new connection of this identity; empty where it answers."""

    async def ask(name: str) -> str:
        async with stage.direct(name, identity) as instance:
            return await instance.refusal()

    return await asyncio.gather(*map(ask, stage.instances))


async def change_authority(stage: Stage) -> None:
    """Another authority replaces the one all certificates come from: trust both, reissue, trust the new one only."""
    certificates = the_certificates(stage)
    old, new = certificates.trusted[0], DevCA.new("demo CA 2")
    left_behind = certificates.made("payments")  # a certificate of the old authority, good for a day
    began, issued = time.monotonic(), certificates.issued
    stage.screen.say("trust: CA 1 and CA 2; certificates by CA 1")
    await take(stage, old, new)
    stage.screen.say("trust: CA 1 and CA 2; certificates by CA 2")
    await take(stage, new, old)
    stranger = Identity.from_pem(left_behind.certificate, left_behind.key, old.pem + new.pem)
    async with AsyncExitStack() as stack:
        held = [await stack.enter_async_context(stage.direct(name, stranger)) for name in stage.instances]
        let_in = [await instance.refusal() for instance in held]
        stage.screen.say("trust: CA 2 only")
        await take(stage, new)
        again = [await instance.refusal() for instance in held]  # on the connections they have
    anew = await refusals(stage, stranger)
    await stage.hold(1.0)

    calls = stage.ledger.between(began, time.monotonic())
    failed = sum(call.failed or call.continued > 0 for call in calls)  # not even a stream is cut off
    count = certificates.issued - issued
    measured = f"{count} certificates, 2 changes of trust, {len(calls)} calls meanwhile, {failed} failed"
    stage.promise("every certificate is replaced and fails no call", bool(calls) and not failed, measured)
    measured = f"before, {let_in.count('')} of {len(let_in)} instances let it in; now"
    measured += f" {again.count('')} on a connection it has, {anew.count('')} on a new one"
    kept = not any(let_in) and all(again) and all(anew)
    stage.promise("a client of the removed authority is refused", kept, measured)


async def take(stage: Stage, *trusted: DevCA) -> None:
    """Replace every certificate, and wait until every instance shows its new one."""
    began, certificates = time.monotonic(), the_certificates(stage)
    count = certificates.replace_all(*trusted)
    certificates.client.poll()
    for name in stage.instances:
        while await asyncio.to_thread(shown_by, stage, name) != der(certificates.leaf(name)):
            if time.monotonic() > began + PATIENCE:
                stage.promise(f"{name} takes its new certificate", kept=False, measured=f"not in {PATIENCE:g} s")
                raise StoryOverError
            await asyncio.sleep(0.05)
    stage.screen.say(f"{count} certificates in use {time.monotonic() - began:.1f} s after they were issued")
    await asyncio.sleep(2 * LOOK_EVERY)  # the bundle is the last file: who looked in between sees it the next time


def shown_by(stage: Stage, name: str) -> bytes:
    """The certificate an instance shows to whoever connects."""
    return der(ssl.get_server_certificate(("127.0.0.1", stage.ports[name])))


def der(pem: str) -> bytes:
    """A certificate's bytes, for comparison: PEM may be broken into lines in several ways."""
    return ssl.PEM_cert_to_DER_cert(pem)


def the_certificates(stage: Stage) -> Certificates:
    """Those of the demo on mTLS."""
    assert stage.certificates is not None  # noqa: S101  a demo on plain HTTP does not play these acts
    return stage.certificates
