"""UpstreamTlsContext. What cannot be verified as asked makes the cluster unusable: never a connection less checked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from meshlib.model.cluster import TlsMatch, UpstreamTls
from meshlib.model.report import ResourceError
from meshlib.sources.xds.decode.common import data_source, enum_name, struct, unpack
from meshlib.sources.xds.decode.context import Context, UnsupportedError, fields, join
from meshlib.sources.xds.decode.sds import certificate_of, roots_of
from meshlib.sources.xds.decode.string_matcher import string_matcher

_UPSTREAM = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_RAW_BUFFER = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
_MODULES = {_UPSTREAM: "envoy.extensions.transport_sockets.tls.v3.tls_pb2"}

_CONTEXT = fields("common_tls_context", "sni")
_COMMON = fields(
    "tls_certificates",
    "tls_certificate_provider_instance",
    "tls_certificate_certificate_provider_instance",
    "validation_context",
    "validation_context_certificate_provider_instance",
    "validation_context_sds_secret_config",
    "combined_validation_context",
    "tls_certificate_sds_secret_configs",
    "tls_params",
    harmless={"alpn_protocols": "set by the protocol in use, with Istio's names for it where they are asked for"},
)
_COMBINED = fields(
    "default_validation_context",
    "validation_context_certificate_provider_instance",
    "validation_context_sds_secret_config",
)
_PARAMETERS = fields("tls_minimum_protocol_version", "tls_maximum_protocol_version")
_INSTANCE = fields("instance_name", harmless={"certificate_name": "a file_watcher has one certificate"})
_CERTIFICATE = fields(
    "certificate_chain", "private_key", harmless={"watched_directory": "files are followed wherever they are"}
)
_VALIDATION = fields(
    "trusted_ca",
    "ca_certificate_provider_instance",
    "system_root_certs",
    "match_typed_subject_alt_names",
    "match_subject_alt_names",
    instead={
        "allow_expired_certificate": "expired certificates are refused",
        "trust_chain_verification": "the chain is always verified against trusted_ca",
    },
    harmless={"watched_directory": "files are followed wherever they are"},
)
_LEFT_OUT_SAFELY = frozenset({"allow_expired_certificate", "trust_chain_verification", "watched_directory"})
_SECRETS = {
    "custom_tls_certificate_selector": "certificate selectors",
    "tls_certificate_certificate_provider": "certificate providers",
    "validation_context_certificate_provider": "certificate providers",
    "custom_handshaker": "custom handshakers",
}


def _refuse(ctx: Context, path: str, what: str) -> str:
    reason = f"{what}: not supported in this version; connections to this cluster fail instead of going unprotected"
    ctx.degraded(path, reason, "use inline certificates or files")
    return f"{path}: {what} not supported"


def _subject_alt_names(ctx: Context, message: Any, path: str) -> tuple[tuple[str, str, str], ...]:
    rules = []
    typed = join(path, "match_typed_subject_alt_names")
    for index, item in enumerate(message.match_typed_subject_alt_names):
        where = f"{typed}[{index}]"
        matcher = string_matcher(ctx, item.matcher, join(where, "matcher"))
        if matcher.ignore_case:
            ctx.degraded(join(where, "matcher.ignore_case"), "case is not ignored")
        rules.append((enum_name(item, "san_type", where), matcher.kind, matcher.value))
    untyped = join(path, "match_subject_alt_names")
    for index, item in enumerate(message.match_subject_alt_names):
        matcher = string_matcher(ctx, item, f"{untyped}[{index}]")
        rules += [(kind, matcher.kind, matcher.value) for kind in ("DNS", "URI", "EMAIL", "IP_ADDRESS")]
    return tuple(rules)


def _validation(common: Any, path: str) -> tuple[Any, str]:
    """The validation context and its path, wherever it stands."""
    if common.HasField("combined_validation_context"):
        where = join(path, "combined_validation_context.default_validation_context")
        return common.combined_validation_context.default_validation_context, where
    return common.validation_context, join(path, "validation_context")


def _roots_secret(common: Any, path: str) -> tuple[str, Any]:
    """The SDS secret of the trust bundle with its path, wherever it stands; None when there is none."""
    name = "validation_context_sds_secret_config"
    combined = join(path, "combined_validation_context")
    for owner, where in ((common.combined_validation_context, combined), (common, path)):
        if owner.HasField(name):
            return join(where, name), getattr(owner, name)
    return "", None


def _check_parameters(ctx: Context, common: Any, path: str) -> None:
    """TLS is as new as both ends can, and 1.2 at least: what Envoy does unless it is told something else."""
    where, parameters = join(path, "tls_params"), common.tls_params
    ctx.check_fields(parameters, where, _PARAMETERS)
    for name, usual in (
        ("tls_minimum_protocol_version", {"TLS_AUTO", "TLSv1_2", "TLSv1_3"}),
        ("tls_maximum_protocol_version", {"TLS_AUTO", "TLSv1_3"}),
    ):
        if enum_name(parameters, name, where) not in usual:
            ctx.degraded(join(where, name), "TLS 1.2 or newer is spoken, the newest both ends have")


def _minimum(common: Any) -> Literal["TLSv1_2", "TLSv1_3"]:
    newest = common.tls_params.TLSv1_3
    return "TLSv1_3" if common.tls_params.tls_minimum_protocol_version == newest else "TLSv1_2"


def _unusable(ctx: Context, common: Any, path: str) -> str:
    """Why no connection may be made, the empty string when all that protects it is understood."""
    for name, what in _SECRETS.items():
        value = getattr(common, name)
        if len(value) if hasattr(value, "__len__") else common.HasField(name):
            return _refuse(ctx, join(path, name), what)
    if not all(certificate_of(secret.name) for secret in common.tls_certificate_sds_secret_configs):
        return _refuse(ctx, join(path, "tls_certificate_sds_secret_configs"), "certificates by SDS")
    where, secret = _roots_secret(common, path)
    if secret is not None and not roots_of(secret.name):
        return _refuse(ctx, where, "trust by SDS")
    combined = join(path, "combined_validation_context")
    for descriptor, _ in common.combined_validation_context.ListFields():
        if descriptor.name not in _COMBINED.honoured:
            return _refuse(ctx, join(combined, descriptor.name), "certificate providers")
    validation, where = _validation(common, path)
    for descriptor, _ in validation.ListFields():
        if descriptor.name not in _VALIDATION.honoured and descriptor.name not in _LEFT_OUT_SAFELY:
            return _refuse(ctx, join(where, descriptor.name), descriptor.name)
    return ""


def _instance(ctx: Context, owner: Any, path: str, *names: str) -> str:
    """The name of a certificate provider instance (gRFC A29), by the first of these fields that has one."""
    for name in names:
        if owner.HasField(name):
            ctx.check_fields(getattr(owner, name), join(path, name), _INSTANCE)
            if not (found := str(getattr(owner, name).instance_name)):
                raise ResourceError(join(path, f"{name}.instance_name"), "is empty; name an instance of the bootstrap")
            return found
    return ""


def _ca_instance(ctx: Context, common: Any, path: str) -> str:
    deprecated = "validation_context_certificate_provider_instance"
    validation, where = _validation(common, path)
    return (
        _instance(ctx, validation, where, "ca_certificate_provider_instance")
        or _instance(ctx, common.combined_validation_context, join(path, "combined_validation_context"), deprecated)
        or _instance(ctx, common, path, deprecated)
    )


def _certificate(ctx: Context, common: Any, path: str) -> tuple[tuple[str, bytes], tuple[str, bytes]]:
    if not common.tls_certificates:
        return ("", b""), ("", b"")
    if len(common.tls_certificates) > 1:
        ctx.degraded(f"{join(path, 'tls_certificates')}[1]", "only the first certificate is used")
    where = f"{join(path, 'tls_certificates')}[0]"
    first = common.tls_certificates[0]
    ctx.check_fields(first, where, _CERTIFICATE)
    chain = data_source(ctx, first.certificate_chain, join(where, "certificate_chain"))
    return chain, data_source(ctx, first.private_key, join(where, "private_key"))


def _upstream_tls(ctx: Context, message: Any, path: str) -> UpstreamTls:
    common, where = message.common_tls_context, join(path, "common_tls_context")
    validation, at = _validation(common, where)
    unusable = _unusable(ctx, common, where)
    if message.sni and not (message.sni.isascii() and message.sni.isprintable()):
        raise ResourceError(join(path, "sni"), f"is no name of a server: {message.sni!r}")
    if message.auto_sni_san_validation:
        unusable = _refuse(ctx, join(path, "auto_sni_san_validation"), "validation of the name that was asked for")
    if not unusable:
        ctx.check_fields(message, path, _CONTEXT)
        ctx.check_fields(common, where, _COMMON)
        _check_parameters(ctx, common, where)
        ctx.check_fields(validation, at, _VALIDATION)
    try:
        names = _subject_alt_names(ctx, validation, at)
    except UnsupportedError as error:
        names, unusable = (), _refuse(ctx, error.path, error.reason)
    ca = data_source(ctx, validation.trusted_ca, join(at, "trusted_ca"))
    chain, key = _certificate(ctx, common, where)
    found = UpstreamTls(
        sni=message.sni,
        trusted_ca=ca[0],
        trusted_ca_pem=ca[1],
        system_root_certs=validation.HasField("system_root_certs"),
        certificate_chain=chain[0],
        certificate_chain_pem=chain[1],
        private_key=key[0],
        private_key_pem=key[1],
        certificate_provider=_instance(
            ctx,
            common,
            where,
            "tls_certificate_provider_instance",
            "tls_certificate_certificate_provider_instance",
        ),
        ca_provider=_ca_instance(ctx, common, where),
        subject_alt_names=names,
        istio_alpn="istio" in common.alpn_protocols,
        minimum_version=_minimum(common),
        unusable=unusable,
    )
    return replace(found, **_by_secret_names(common, where))


def _by_secret_names(common: Any, path: str) -> dict[str, Any]:
    _, secret = _roots_secret(common, path)
    found = roots_of(secret.name) if secret is not None else {}
    for certificate in common.tls_certificate_sds_secret_configs:
        return found | certificate_of(certificate.name)
    return found


def transport_socket(ctx: Context, message: Any, path: str) -> UpstreamTls | None:
    """A cluster's transport socket: TLS, or None for plain text."""
    name, found = unpack(message.typed_config, _MODULES, join(path, "typed_config"))
    if found is not None:
        return _upstream_tls(ctx, found, join(path, "typed_config"))
    if name == _RAW_BUFFER or (not name and message.name == "envoy.transport_sockets.raw_buffer"):
        return None
    return UpstreamTls(unusable=_refuse(ctx, path, f"transport socket {name or message.name}"))


_MATCH = fields("match", "transport_socket", harmless={"name": "a name for people"})


def transport_socket_matches(ctx: Context, messages: Any, path: str) -> tuple[TlsMatch, ...]:
    """`transport_socket_matches`, which Istio's automatic mutual TLS is made of."""
    found = []
    for index, message in enumerate(messages):
        where = f"{path}[{index}]"
        ctx.check_fields(message, where, _MATCH)
        socket = transport_socket(ctx, message.transport_socket, join(where, "transport_socket"))
        found.append(TlsMatch(struct(message.match), socket))
    return tuple(found)
