"""A workload's own identity: certificates from watched files, contexts made of them, a development authority.

from meshlib.identity import Identity, ServerTls

identity = Identity.from_files("tls.crt", "tls.key", "ca.crt")
"""

from meshlib.identity.identity import Identity
from meshlib.identity.material import KeyPair, Material, MaterialError, TrustBundle
from meshlib.identity.server import ServerTls
from meshlib.identity.upstream import mtls

__all__ = ["Identity", "KeyPair", "Material", "MaterialError", "ServerTls", "TrustBundle", "mtls"]
