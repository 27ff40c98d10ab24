"""The hash functions of Envoy's consistent-hash balancers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from meshlib.balancing.base import Rng
from meshlib.model.report import ResourceError

Hash64 = Callable[[bytes], int]

STD_HASH_SEED = 0xC70F6907
_MULTIPLIER = 0xC6A4A7935BD1E995
_MASK = (1 << 64) - 1


def hash_function(name: Literal["XX_HASH", "MURMUR_HASH_2"]) -> Hash64:
    """The function of that name; `ResourceError` when xxhash is needed and not installed."""
    if name == "MURMUR_HASH_2":
        return murmur_hash_2
    return seeded_xxhash(0)


def seeded_xxhash(seed: int) -> Hash64:
    """xxHash64 with a seed; `ResourceError` when xxhash is not installed."""
    try:
        from xxhash import xxh64_intdigest
    except ImportError as missing:
        raise ResourceError("lb_policy", "XX_HASH needs xxhash: pip install 'meshlib[hash]'") from missing
    return partial(xxh64_intdigest, seed=seed) if seed else xxh64_intdigest


def random_hash(rng: Rng) -> int:
    """A hash for a request that has none."""
    return int(rng.random() * 2**64)


def murmur_hash_2(data: bytes, seed: int = STD_HASH_SEED) -> int:
    """MurmurHash2, 64 bits, with the seed of libstdc++'s `std::hash`: what Envoy calls MURMUR_HASH_2."""
    aligned = len(data) & ~7
    value = seed ^ (len(data) * _MULTIPLIER & _MASK)
    for start in range(0, aligned, 8):
        block = int.from_bytes(data[start : start + 8], "little")
        value = (value ^ _mixed(block * _MULTIPLIER & _MASK) * _MULTIPLIER & _MASK) * _MULTIPLIER & _MASK
    if aligned != len(data):
        value = (value ^ int.from_bytes(data[aligned:], "little")) * _MULTIPLIER & _MASK
    return _mixed(_mixed(value) * _MULTIPLIER & _MASK)


def _mixed(value: int) -> int:
    return value ^ (value >> 47)
