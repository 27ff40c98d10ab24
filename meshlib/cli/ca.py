"""`meshlib ca`: a certificate authority for development."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

DESCRIPTION = """\
A certificate authority for development: mutual TLS on your machine, in a minute.

Not for production. The authority's key lies beside its certificate, nothing is recorded or revoked, and whoever can
read the folder can be anybody. In production SPIRE, Istio, cert-manager or Consul write the same three files
(tls.crt, tls.key, ca.crt), and nothing in your code changes.
"""
EPILOG = """\
examples:
  meshlib ca init dev-ca                      make the authority: dev-ca/ca.crt, dev-ca/ca.key
  meshlib ca issue --dir dev-ca --spiffe spiffe://demo.local/ns/shop/sa/payments --out certs/payments
  meshlib ca issue --dir dev-ca --spiffe spiffe://demo.local/ns/shop/sa/checkout --out certs/checkout
  meshlib ca show certs/payments/tls.crt      who it is, and until when

Issuing again into the same folder renews the certificate; processes that use it follow. In code:

  identity = Identity.from_files("certs/checkout/tls.crt", "certs/checkout/tls.key", "certs/checkout/ca.crt")
"""
ISSUE = """\
A certificate for one workload, for both ends of a connection: OUT/tls.crt, OUT/tls.key (mode 0600) and OUT/ca.crt.
Each file is replaced by a rename, so that no process reads half of one.

The SPIFFE ID names the workload: spiffe://<trust domain>/<path>, here as Istio writes it:
spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    raw = argparse.RawDescriptionHelpFormatter
    table = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    init = table.add_parser("init", help="make an authority in a new folder", formatter_class=raw)
    init.add_argument(
        "folder", metavar="DIR", type=Path, help="gets ca.crt and ca.key; an authority is not overwritten"
    )
    issue = table.add_parser("issue", help="issue, or renew, a workload's certificate", formatter_class=raw)
    issue.description = ISSUE
    issue.add_argument("--dir", required=True, metavar="DIR", type=Path, help="the authority's folder")
    issue.add_argument("--spiffe", required=True, metavar="ID", help="the workload's SPIFFE ID")
    issue.add_argument("--out", required=True, metavar="OUT", type=Path, help="folder for the three files")
    issue.add_argument("--hours", type=_positive, default=24.0, help="how long it is valid (default %(default)g)")
    issue.add_argument(
        "--dns", action="append", default=[], metavar="NAME", help="a DNS name as well, for clients without SPIFFE"
    )
    show = table.add_parser("show", help="what a certificate file says", formatter_class=raw)
    show.add_argument("file", metavar="PEM", type=Path)


def run(options: argparse.Namespace) -> int:
    """Do it; 1 with a reason when it cannot be done."""
    from meshlib.errors import ConfigurationError

    try:
        _ACTIONS[options.action](options)
    except ModuleNotFoundError as error:
        print(f"meshlib ca: needs {error.name}: pip install 'meshlib[tls]'", file=sys.stderr)
        return 2
    except (ConfigurationError, ValueError, OSError) as error:  # a ValueError: no certificate, ID or name
        print(f"meshlib ca {options.action}: {error}", file=sys.stderr)
        return 1
    return 0


def _positive(text: str) -> float:
    hours = float(text)
    if not 0 < hours < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is no number of hours")
    return hours


def _init(options: argparse.Namespace) -> None:
    from meshlib.identity.dev_ca import DevCA

    DevCA.init(options.folder)
    print(f"{options.folder}: a development authority; keep ca.key to yourself, give ca.crt to whoever shall trust it")


def _issue(options: argparse.Namespace) -> None:
    from meshlib.identity.dev_ca import DevCA

    issued = DevCA.load(options.dir).issue(options.spiffe, dns_names=options.dns, life=timedelta(hours=options.hours))
    issued.write(options.out)
    print(f"{options.out}: {_told(issued.certificate)}")


def _show(options: argparse.Namespace) -> None:
    print(_told(options.file.read_bytes()))


def _told(pem: bytes) -> str:
    from meshlib.security.certificate import Certificate, CertificateError, certificates_in

    found = certificates_in(pem)
    if not found:
        raise CertificateError("holds no certificate")
    leaf = Certificate.parse(found[0])
    now = datetime.now(UTC)
    end = datetime.fromtimestamp(leaf.not_after, UTC).isoformat(timespec="seconds")
    names = ", ".join((*leaf.uris, *leaf.dns_names)) or ("an authority" if leaf.authority else "no names")
    return f"{names}, valid until {end} ({leaf.validity(now.timestamp())}), serial {leaf.serial}"


_ACTIONS = {"init": _init, "issue": _issue, "show": _show}
