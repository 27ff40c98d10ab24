"""What bounds durations that come from elsewhere."""

from __future__ import annotations

LONGEST = 3.2e9
"""Seconds, a hundred years: longer ones are this. Sockets, locks and sleeps take up to three hundred, and raise
OverflowError beyond; protobuf's durations go to ten thousand, and headers further.
"""
