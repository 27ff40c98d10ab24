"""Contexts for what clusters ask: where certificates come from, and when a context has had its day."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from meshlib import ConfigurationError
from meshlib.identity import Identity, mtls
from meshlib.identity.dev_ca import DevCA
from meshlib.identity.providers import ProviderInstances
from meshlib.identity.upstream import PLAIN, Upstreams, named_identities
from meshlib.model.cluster import UpstreamTls
from meshlib.security.spiffe import SpiffeIdError
from meshlib.sources.xds.bootstrap import CertificateProvider, parse_bootstrap

ME = "spiffe://demo.test/ns/shop/sa/me"
AUTHORITY = DevCA.new()


def upstreams(identity: Identity | Mapping[str, Identity] | None = None, *instances: CertificateProvider) -> Upstreams:
    return Upstreams(ProviderInstances(named_identities(identity), lambda: instances))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return AUTHORITY.issue(ME).write(tmp_path)


def file_watcher(folder: Path, **more: Any) -> CertificateProvider:
    config = {
        "certificate_file": str(folder / "tls.crt"),
        "private_key_file": str(folder / "tls.key"),
        "ca_certificate_file": str(folder / "ca.crt"),
    }
    return CertificateProvider("google_cloud_private_spiffe", "file_watcher", {**config, **more})


def test_a_context_lasts_until_its_identity_changes() -> None:
    identity = AUTHORITY.issue(ME).identity()
    made = upstreams(identity)
    first = made.secure(mtls(ME))
    assert made.secure(mtls(ME)) is first
    assert made.secure(mtls(ME), ("h2",)) is not first
    renewed = AUTHORITY.issue(ME)
    identity.replace(renewed.certificate, renewed.key)
    assert first.stale
    second = made.secure(mtls(ME))
    assert second is not first
    assert not second.stale
    identity.replace(ca=DevCA.new().pem)
    assert second.stale


def test_contexts_of_inline_material_and_of_none_last() -> None:
    issued = AUTHORITY.issue(ME)
    inline = UpstreamTls(trusted_ca_pem=issued.ca, certificate_chain_pem=issued.certificate, private_key_pem=issued.key)
    made = upstreams()
    assert not made.secure(inline).stale
    assert not made.secure(UpstreamTls()).stale
    assert not PLAIN.stale


@pytest.mark.parametrize("names", [("certificate_chain", "private_key"), ("trusted_ca",)])
def test_a_context_of_files_follows_them(folder: Path, names: tuple[str, ...]) -> None:
    files = {"certificate_chain": "tls.crt", "private_key": "tls.key", "trusted_ca": "ca.crt"}
    tls = UpstreamTls(**{name: str(folder / files[name]) for name in names})
    made = upstreams()
    first = made.secure(tls)
    other = DevCA.new()
    other.issue(ME).write(folder)
    for identity in made._files.values():
        identity.poll()
    assert first.stale
    assert made.secure(tls) is not first


def test_a_key_inline_and_its_certificate_in_a_file(folder: Path) -> None:
    tls = UpstreamTls(certificate_chain=str(folder / "tls.crt"), private_key_pem=(folder / "tls.key").read_bytes())
    assert not upstreams().secure(tls).stale
    with pytest.raises(ConfigurationError, match="do not work together"):
        upstreams().secure(
            UpstreamTls(certificate_chain=tls.certificate_chain, private_key_pem=AUTHORITY.issue(ME).key)
        )


def test_the_bootstraps_providers(folder: Path) -> None:
    tls = UpstreamTls(certificate_provider="google_cloud_private_spiffe", ca_provider="google_cloud_private_spiffe")
    made = upstreams(None, file_watcher(folder, refresh_interval="1.5s"))
    assert made.secure(tls).context is not None
    (identity,) = {source for source, _ in made.secure(tls)._sources}
    assert str(identity.spiffe_id) == ME
    assert identity.refresh_interval == 1.5
    default = upstreams(None, file_watcher(folder)).secure(tls)._sources[0][0]
    assert default.refresh_interval == 600.0, "gRFC A29"


def test_what_is_given_in_code_wins_over_the_bootstrap(folder: Path) -> None:
    ours = AUTHORITY.issue("spiffe://demo.test/code").identity()
    made = upstreams({"google_cloud_private_spiffe": ours}, file_watcher(folder))
    tls = UpstreamTls(certificate_provider="google_cloud_private_spiffe")
    assert made.secure(tls)._sources[0][0] is ours


def test_one_identity_stands_for_istios_two_names() -> None:
    identity = AUTHORITY.issue(ME).identity()
    secured = upstreams(identity).secure(UpstreamTls(certificate_provider="default", ca_provider="ROOTCA"))
    assert {source for source, _ in secured._sources} == {identity}


@pytest.mark.parametrize(
    "plugin,config,reason",
    [
        ("mesh_ca", {}, "plugin 'mesh_ca' is not known, use file_watcher"),
        ("file_watcher", {}, "names neither certificate_file nor ca_certificate_file"),
        ("file_watcher", {"certificate_file": "c.pem"}, "certificate_file and private_key_file go together"),
        ("file_watcher", {"ca_certificate_file": "no-such.pem"}, "no-such.pem: No such file"),
        ("file_watcher", {"ca_certificate_file": "c.pem", "refresh_interval": "soon"}, "is no duration"),
    ],
)
def test_a_provider_that_is_no_good_fails_closed(plugin: str, config: dict[str, str], reason: str) -> None:
    made = upstreams(None, CertificateProvider("default", plugin, config))
    with pytest.raises(ConfigurationError, match=reason):
        made.secure(UpstreamTls(certificate_provider="default", ca_provider="default"))


@pytest.mark.parametrize("interval", ["soon", "0s", "-1s", "inf", "nan", ""])
def test_an_interval_that_is_none(folder: Path, interval: str) -> None:
    made = upstreams(None, file_watcher(folder, refresh_interval=interval))
    with pytest.raises(ConfigurationError, match=r"refresh_interval .* is no duration"):
        made.secure(UpstreamTls(ca_provider="google_cloud_private_spiffe"))


@pytest.mark.parametrize(
    "identity,tls,reason",
    [
        (None, UpstreamTls(certificate_provider="default"), "no certificate provider 'default'"),
        (Identity.from_pem(ca=AUTHORITY.pem), mtls(ME), "'default' has no certificate"),
        (None, UpstreamTls(ca_provider="roots"), "no certificate provider 'roots'"),
        (None, UpstreamTls(subject_alt_names=(("URI", "exact", ME),)), "needs a trusted_ca"),
        (None, UpstreamTls(unusable="pinned keys not supported"), "pinned keys"),
        (None, UpstreamTls(trusted_ca="no-such.pem"), "TLS trusted_ca no-such.pem"),
        (None, UpstreamTls(trusted_ca_pem=b"nothing"), r"TLS trusted_ca \(inline\): the trust bundle holds no"),
    ],
)
def test_what_cannot_be_had_is_an_error(identity: Identity | None, tls: UpstreamTls, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        upstreams(identity).secure(tls)


def test_a_provider_without_authorities_verifies_nobody() -> None:
    issued = AUTHORITY.issue(ME)
    shown_only = Identity.from_pem(issued.certificate, issued.key)
    with pytest.raises(ConfigurationError, match="'default' has no trusted authorities"):
        upstreams(shown_only).secure(mtls(ME))


def test_mtls_in_code() -> None:
    tls = mtls(ME, "spiffe://demo.test/ns/tools/*", sni="payments.test")
    assert tls.subject_alt_names == (("URI", "exact", ME), ("URI", "prefix", "spiffe://demo.test/ns/tools/"))
    assert (tls.sni, tls.certificate_provider, tls.ca_provider) == ("payments.test", "default", "default")
    with pytest.raises(ConfigurationError, match="needs the SPIFFE IDs"):
        mtls()
    with pytest.raises(SpiffeIdError):
        mtls("payments")


def test_a_bootstrap_file_names_providers(folder: Path) -> None:
    text = """{"xds_servers": [{"server_uri": "x:1", "channel_creds": [{"type": "insecure"}]}], "certificate_providers":
      {"default": {"plugin_name": "file_watcher", "config": {"ca_certificate_file": "%s"}}}}"""
    bootstrap = parse_bootstrap(text % os.fspath(folder / "ca.crt"))
    made = upstreams(None, *bootstrap.certificate_providers)
    assert made.secure(UpstreamTls(ca_provider="default")).context is not None


def test_no_key_in_the_repr_of_a_clusters_tls() -> None:
    issued = AUTHORITY.issue(ME)
    assert "PRIVATE" not in repr(UpstreamTls(private_key_pem=issued.key, certificate_chain_pem=issued.certificate))


@pytest.mark.parametrize(
    "istio, alpn, server_has, agreed",
    [
        (True, (), ["istio-http/1.1"], "istio-http/1.1"),
        (True, (), ["h2", "http/1.1"], "http/1.1"),
        (True, ("h2",), ["istio-h2"], "istio-h2"),
        (True, ("h2",), ["h2", "http/1.1"], "h2"),
        (False, ("h2",), ["istio", "h2"], "h2"),
        (False, (), ["istio", "http/1.1"], None),
    ],
)
def test_protocols_are_offered_by_istio_s_names_to_a_sidecar(
    istio: bool, alpn: tuple[str, ...], server_has: list[str], agreed: str | None, folder: Path
) -> None:
    made = upstreams(AUTHORITY.issue(ME).identity())
    tls = UpstreamTls(certificate_provider="default", ca_provider="default", istio_alpn=istio)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    server.set_alpn_protocols(server_has)
    assert _agreed(made.secure(tls, alpn).context, server) == agreed


def _agreed(client: ssl.SSLContext | None, server: ssl.SSLContext) -> str | None:
    """The protocol of a handshake in memory."""
    assert client is not None
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)]
    for _ in range(5):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[0].selected_alpn_protocol()
