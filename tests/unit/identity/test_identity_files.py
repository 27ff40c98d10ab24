"""Files of an identity: only pairs that fit are ever in force, however they are written; and what is said of them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from meshlib.identity import Identity, KeyPair, MaterialError, TrustBundle
from meshlib.identity.dev_ca import DevCA, Issued

ME = "spiffe://demo.test/ns/shop/sa/me"
AUTHORITY = DevCA.new()
_moment = 1_000_000_000


def write(path: Path, content: bytes) -> None:
    """Write in place, as an editor or a script does; the time stamp moves on even on coarse clocks."""
    global _moment  # noqa: PLW0603 - the tests' clock
    _moment += 1
    path.write_bytes(content)
    os.utime(path, (_moment, _moment))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    AUTHORITY.issue(ME).write(tmp_path)
    return tmp_path


def in_force(identity: Identity) -> tuple[bytes, bytes, bytes]:
    material = identity.current
    assert material.pair is not None
    assert material.bundle is not None
    return material.pair.chain, material.pair.key, material.bundle.pem


def parts(issued: Issued) -> tuple[bytes, bytes, bytes]:
    return issued.certificate, issued.key, issued.ca


def test_an_identity_says_who_it_is(folder: Path) -> None:
    identity = Identity.from_folder(folder)
    assert str(identity.spiffe_id) == ME
    assert identity.expires_at is not None
    assert 23 < (identity.expires_at - datetime.now(UTC).timestamp()) / 3600 < 25
    assert identity.version == 0


def test_a_renewed_certificate_is_taken(folder: Path) -> None:
    identity = Identity.from_folder(folder)
    identity.poll()
    assert identity.version == 0
    issued = AUTHORITY.issue(ME)
    issued.write(folder)
    identity.poll()
    assert identity.version == 1
    assert in_force(identity) == parts(issued)
    identity.poll()
    assert identity.version == 1


@pytest.mark.parametrize("order", [("tls.crt", "tls.key"), ("tls.key", "tls.crt")])
def test_a_half_written_pair_never_replaces_a_good_one(
    folder: Path, order: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    identity = Identity.from_folder(folder)
    before = in_force(identity)
    issued = AUTHORITY.issue(ME)
    new = {"tls.crt": issued.certificate, "tls.key": issued.key}
    for name in order:
        content = new[name]
        for end in (0, len(content) // 2, len(content) - 30):
            write(folder / name, content[:end])
            identity.poll()
            assert in_force(identity) == before
        write(folder / name, content)
        identity.poll()
        assert (in_force(identity) == before) is (name == order[0])
    assert in_force(identity) == parts(issued)
    assert identity.problem == ""
    assert "keeping the certificates in force" in caplog.text
    assert identity.version == 1


def test_every_prefix_of_a_bundle_is_refused_but_a_whole_one(folder: Path) -> None:
    identity = Identity.from_folder(folder)
    before = in_force(identity)
    longer = AUTHORITY.pem + DevCA.new().pem
    for end in range(len(AUTHORITY.pem) + 30, len(longer) - 1, 97):
        write(folder / "ca.crt", longer[:end])
        identity.poll()
        assert in_force(identity) == before
    for useless in (b"", b"no certificate"):
        write(folder / "ca.crt", useless)
        identity.poll()
        assert in_force(identity) == before
        assert "the trust bundle holds no certificate" in identity.problem
    write(folder / "ca.crt", longer)
    identity.poll()
    assert in_force(identity)[2] == longer


def test_a_key_that_does_not_fit_is_refused(folder: Path) -> None:
    identity = Identity.from_folder(folder)
    before = in_force(identity)
    write(folder / "tls.key", AUTHORITY.issue(ME).key)
    identity.poll()
    assert in_force(identity) == before
    assert "KEY_VALUES_MISMATCH" in identity.problem
    with pytest.raises(MaterialError, match=r"tls\.crt, .*tls\.key: certificate and key do not work together"):
        Identity.from_folder(folder)


def test_files_that_vanish_and_come_back(folder: Path) -> None:
    identity = Identity.from_folder(folder)
    before = in_force(identity)
    (folder / "tls.crt").unlink()
    identity.poll()
    assert in_force(identity) == before
    assert "tls.crt: No such file" in identity.problem
    issued = AUTHORITY.issue(ME)
    issued.write(folder)
    identity.poll()
    assert in_force(identity) == parts(issued)


def test_the_swap_of_a_mounted_secret(tmp_path: Path) -> None:
    """Kubernetes: files are links through `..data`, which is a link that is swapped; the old folder is removed."""
    for generation in range(3):
        issued = AUTHORITY.issue(ME)
        folder = tmp_path / f"..2026_{generation}"
        issued.write(folder)
        link = tmp_path / "..data_tmp"
        link.symlink_to(folder.name)
        link.rename(tmp_path / "..data")
        if generation == 0:
            for name in ("tls.crt", "tls.key", "ca.crt"):
                (tmp_path / name).symlink_to(f"..data/{name}")
            identity = Identity.from_folder(tmp_path)
        identity.poll()
        assert in_force(identity) == parts(issued)
        assert identity.version == generation


def test_certificate_and_key_may_share_a_file(tmp_path: Path) -> None:
    issued = AUTHORITY.issue(ME)
    (tmp_path / "both.pem").write_bytes(issued.key + issued.certificate)
    assert str(Identity.from_files(tmp_path / "both.pem").spiffe_id) == ME


def test_a_key_everybody_can_read_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    Identity.from_folder(folder)
    assert caplog.text == ""
    (folder / "tls.key").chmod(0o644)
    Identity.from_folder(folder)
    assert "tls.key can be read by every user of this machine" in caplog.text


def test_the_authority_writes_keys_for_their_owner_only(tmp_path: Path) -> None:
    DevCA.init(tmp_path / "ca").issue(ME).write(tmp_path / "me")
    for key in (tmp_path / "ca" / "ca.key", tmp_path / "me" / "tls.key"):
        assert key.stat().st_mode & 0o777 == 0o600
    assert DevCA.load(tmp_path / "ca").pem == (tmp_path / "ca" / "ca.crt").read_bytes()


@pytest.mark.parametrize(
    "begin,life,said",
    [
        (timedelta(hours=-2), timedelta(hours=1), "is expired"),
        (timedelta(hours=2), timedelta(hours=1), "is not yet valid"),
        (timedelta(hours=-19.5), timedelta(hours=20), "has not been renewed"),
    ],
)
def test_a_certificate_whose_time_is_wrong_stays_and_is_told_once(
    begin: timedelta, life: timedelta, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    issued = AUTHORITY.issue(ME, not_before=datetime.now(UTC) + begin, life=life)
    identity = issued.identity()
    for _ in range(3):
        identity.poll()
    assert [said in record.message for record in caplog.records] == [True]
    assert in_force(identity) == parts(issued)
    renewed = AUTHORITY.issue(ME)
    identity.replace(renewed.certificate, renewed.key)
    identity.poll()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_listeners_hear_of_every_change_and_one_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    identity = AUTHORITY.issue(ME).identity()
    heard = []

    def broken(before: object, after: object) -> None:
        raise RuntimeError("no")

    identity.on_change(broken)
    end = identity.on_change(lambda before, after: heard.append((before, after)))
    first = identity.current
    issued = AUTHORITY.issue(ME)
    identity.replace(issued.certificate, issued.key)
    assert heard == [(first, identity.current)]
    assert identity.current.bundle == first.bundle
    end()
    identity.replace(ca=DevCA.new().pem)
    assert len(heard) == 1
    assert "broken" in caplog.text


def test_a_replacement_that_is_no_good_changes_nothing() -> None:
    issued = AUTHORITY.issue(ME)
    identity = issued.identity()
    with pytest.raises(MaterialError):
        identity.replace(AUTHORITY.issue(ME).certificate, issued.key)
    with pytest.raises(MaterialError):
        identity.replace(ca=b"nothing")
    assert in_force(identity) == parts(issued)
    assert identity.version == 0


def _secrets(key: bytes) -> list[str]:
    return [line.decode() for line in key.splitlines() if b"-----" not in line and len(line) > 10]


def test_no_repr_and_no_error_holds_a_key(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    issued, other = AUTHORITY.issue(ME), AUTHORITY.issue(ME)
    identity = issued.identity()
    shown = [repr(issued), repr(identity), repr(identity.current), str(identity.current), repr(AUTHORITY)]
    for certificate, key in (
        (other.certificate, issued.key),
        (issued.certificate, issued.key[:-40]),
        (b"", issued.key),
    ):
        with pytest.raises(MaterialError) as caught:
            KeyPair.of(certificate, key)
        shown += [str(caught.value), repr(caught.value), repr(caught.value.__cause__)]
    with pytest.raises(MaterialError) as caught:
        TrustBundle.of(issued.key)
    watching = Identity.from_folder(folder)
    write(folder / "tls.key", issued.key)
    watching.poll()
    shown += [str(caught.value), watching.problem, caplog.text]
    for secret in _secrets(issued.key):
        assert not any(secret in text for text in shown)


def test_an_encrypted_key_is_refused_and_asks_nobody() -> None:
    issued = AUTHORITY.issue(ME)
    key = serialization.load_pem_private_key(issued.key, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(MaterialError, match="the private key is encrypted"):
        Identity.from_pem(issued.certificate, locked)


_ONLY_THE_STANDARD_LIBRARY = """
import asyncio, sys
for name in ("cryptography", "grpc", "httpx", "uvicorn", "httptools", "re2", "watchfiles"):
    sys.modules[name] = None
from meshlib.identity import Identity, ServerTls, mtls
from meshlib.identity.providers import ProviderInstances
from meshlib.identity.upstream import Upstreams, named_identities

async def main(folder, spiffe_id):
    identity = Identity.from_folder(folder)
    met = asyncio.get_running_loop().create_future()
    tls = ServerTls(identity)

    def on_client(reader, writer):
        met.set_result(writer.get_extra_info("ssl_object").verified)
        writer.close()

    server = await asyncio.start_server(on_client, "127.0.0.1", 0, ssl=tls.context)
    port = server.sockets[0].getsockname()[1]
    upstreams = Upstreams(ProviderInstances(named_identities(identity), tuple))
    context = upstreams.secure(mtls(spiffe_id)).context
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="any")
    verified = await met
    print(verified.peer.spiffe_id, tls.trusts(verified))
    await reader.read()
    writer.close()
    server.close()

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


def test_checking_a_peer_needs_the_standard_library_only(folder: Path) -> None:
    command = [sys.executable, "-c", _ONLY_THE_STANDARD_LIBRARY, str(folder), ME]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{ME} True\n", done.stderr


def test_without_files_in_memory_a_private_one_is_used(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "tmp"))
    (folder / "tmp").mkdir()
    assert str(Identity.from_folder(folder).spiffe_id) == ME
    assert list((folder / "tmp").iterdir()) == []
