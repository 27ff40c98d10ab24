"""For tests of applications: faults on demand.

from meshlib.testing import faults

with faults(mesh, "payments", abort=503, percentage=50):
    client.get("http://payments/charge")
"""

from meshlib.testing.faults import faults

__all__ = ["faults"]
