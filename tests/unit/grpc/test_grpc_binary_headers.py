"""Headers that a route gives calls under names that end in `-bin`."""

import pytest

from meshlib.grpc.metadata import CONTENT_TYPE, metadata_of


@pytest.mark.parametrize(
    ("configured", "sent"),
    [(b"AQL/", b"\x01\x02\xff"), (b"AQ", b"\x01"), (b"AQ==", b"\x01"), (b"plain text", b"plain text"), (b"", b"")],
)
def test_they_are_base64_as_on_the_wire_for_grpcio_writes_it_anew(configured: bytes, sent: bytes) -> None:
    """As text they would make every call a TypeError."""
    own = (("own-bin", b"\x00"),)
    assert metadata_of([CONTENT_TYPE, (b"x-a-bin", configured)], own) == (("x-a-bin", sent), *own)
