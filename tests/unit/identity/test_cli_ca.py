"""`meshlib ca`: what it makes, what it says, and what it refuses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshlib.cli.main import run
from meshlib.identity import Identity

ME = "spiffe://demo.local/ns/shop/sa/me"


def ca(*arguments: object) -> int:
    return run(["ca", *map(str, arguments)])


def test_from_nothing_to_an_identity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ca("init", tmp_path / "ca") == 0
    assert "a development authority" in capsys.readouterr().out
    issue = ("issue", "--dir", tmp_path / "ca", "--spiffe", ME, "--out", tmp_path / "me", "--dns", "me.local")
    assert ca(*issue, "--hours", 2) == 0
    told = capsys.readouterr().out
    identity = Identity.from_folder(tmp_path / "me")
    assert str(identity.spiffe_id) == ME
    assert identity.current.pair is not None
    assert identity.current.pair.leaf.dns_names == ("me.local",)
    assert f"{ME}, me.local, valid until " in told
    assert identity.current.pair.leaf.serial in told
    assert ca("show", tmp_path / "me" / "tls.crt") == 0
    assert capsys.readouterr().out.strip() in told
    assert ca("show", tmp_path / "ca" / "ca.crt") == 0
    assert capsys.readouterr().out.startswith("an authority, valid until ")
    assert ca(*issue) == 0
    identity.poll()
    assert identity.version == 1


@pytest.mark.parametrize(
    "arguments,reason",
    [
        (("issue", "--dir", "nowhere", "--spiffe", ME, "--out", "me"), "make an authority with: meshlib ca init"),
        (("issue", "--dir", "ca", "--spiffe", "payments", "--out", "me"), "does not begin with spiffe://"),
        (("init", "ca"), "an authority is not overwritten"),
        (("issue", "--dir", "ca", "--spiffe", ME, "--out", "me", "--dns", "b\u00fccher.de"), "ca issue: "),
        (("show", "nowhere.pem"), "No such file"),
        (("show", "ca/ca.key"), "holds no certificate"),
    ],
)
def test_what_cannot_be_done_says_why(
    arguments: tuple[str, ...],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ca("init", "ca") == 0
    assert ca(*arguments) == 1
    assert reason in capsys.readouterr().err
    assert not Path("me").exists()


@pytest.mark.parametrize("hours", ["0", "-1", "soon", "nan", "inf"])
def test_no_hours(hours: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ca("issue", "--dir", "ca", "--spiffe", ME, "--out", "me", "--hours", hours)
    assert "--hours" in capsys.readouterr().err


def test_the_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        ca("--help")
    told = capsys.readouterr().out
    assert "Not for production" in told
    assert "meshlib ca issue --dir dev-ca --spiffe spiffe://" in told


def test_a_key_is_not_written_into_a_file_that_somebody_else_has_put_there(tmp_path: Path) -> None:
    theirs = tmp_path / f".ca.key.{os.getpid()}"
    theirs.touch()
    theirs.chmod(0o666)
    with theirs.open() as kept_open:
        assert ca("init", tmp_path) == 0
        assert kept_open.read() == ""
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / f".ca.key.{os.getpid()}").symlink_to(elsewhere)
    assert ca("init", tmp_path) == 0
    assert not elsewhere.exists()
    assert not (tmp_path / "ca.key").is_symlink()
