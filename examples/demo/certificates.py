"""Who is who: a SPIFFE ID and a certificate for every workload, issued by meshlib's development CA.

In production SPIRE, Istio or cert-manager write such files; the services cannot tell the difference.
"""

from __future__ import annotations

from pathlib import Path

from meshlib.identity import Identity
from meshlib.identity.dev_ca import DevCA, Issued

TRUST_DOMAIN = "spiffe://demo.local"
LOOK_EVERY = 0.25  # seconds between two looks at the files


def spiffe_id(account: str) -> str:
    """The ID of everything that runs under a service account; conf/clusters.yaml says which cluster must show which."""
    return f"{TRUST_DOMAIN}/ns/shop/sa/{account}"


class Certificates:
    """A folder with `tls.crt`, `tls.key` and `ca.crt` for each workload. The first of `trusted` signs. `client` is who
    the demo itself is.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._accounts: dict[str, str] = {}
        self.trusted: tuple[DevCA, ...] = (DevCA.new("demo CA 1"),)
        self.issued = 0
        self.client = follow(self.issue("client", "client"))

    def issue(self, workload: str, account: str) -> Path:
        """A new certificate for a workload, and the authorities it shall trust; the folder they are in."""
        self._accounts[workload] = account
        self.issued += 1
        return self.made(account).write(self._folder / workload)

    def made(self, account: str) -> Issued:
        """The same, not written anywhere."""
        signer, *others = self.trusted
        return signer.issue(spiffe_id(account), trust=others)

    def replace_all(self, *trusted: DevCA) -> int:
        """A new certificate for every workload, signed by the first of these authorities; all of them are trusted from
        now on, and no other. How many certificates that makes.
        """
        self.trusted = trusted
        for workload, account in self._accounts.items():
            self.issue(workload, account)
        return len(self._accounts)

    def leaf(self, workload: str) -> str:
        """The certificate in a workload's folder, as PEM."""
        return (self._folder / workload / "tls.crt").read_text(encoding="ascii")


def follow(folder: Path) -> Identity:
    """The identity that follows such a folder."""
    return Identity.from_folder(folder, refresh_interval=LOOK_EVERY)
