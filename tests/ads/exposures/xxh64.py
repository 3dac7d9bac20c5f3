"""XXH64 (github.com/Cyan4973/xxHash, doc/xxhash_spec.md) in plain Python: a second implementation of Spark's hash."""

from __future__ import annotations

_MASK = (1 << 64) - 1
_P1, _P2, _P3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P4, _P5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5


def _left(x: int, bits: int) -> int:
    return ((x << bits) | (x >> (64 - bits))) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _left((accumulator + lane * _P2) & _MASK, 31) * _P1 & _MASK


def xxh64(data: bytes, seed: int) -> int:
    """The hash as an unsigned number."""
    rest = memoryview(data)
    if len(data) >= 32:
        lanes = [(seed + _P1 + _P2) & _MASK, (seed + _P2) & _MASK, seed, (seed - _P1) & _MASK]
        while len(rest) >= 32:
            lanes = [_round(v, int.from_bytes(rest[8 * i : 8 * i + 8], "little")) for i, v in enumerate(lanes)]
            rest = rest[32:]
        state = sum(_left(v, bits) for v, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
        for v in lanes:
            state = ((state ^ _round(0, v)) * _P1 + _P4) & _MASK
    else:
        state = (seed + _P5) & _MASK
    state = (state + len(data)) & _MASK
    while len(rest) >= 8:
        state = (_left(state ^ _round(0, int.from_bytes(rest[:8], "little")), 27) * _P1 + _P4) & _MASK
        rest = rest[8:]
    if len(rest) >= 4:
        state = (_left(state ^ (int.from_bytes(rest[:4], "little") * _P1 & _MASK), 23) * _P2 + _P3) & _MASK
        rest = rest[4:]
    for byte in rest:
        state = _left(state ^ (byte * _P5 & _MASK), 11) * _P1 & _MASK
    state = (state ^ (state >> 33)) * _P2 & _MASK
    state = (state ^ (state >> 29)) * _P3 & _MASK
    return state ^ (state >> 32)


def is_kept(event_id: str, rate: float, seed: int) -> bool:
    """What learn_spark/ads/exposures/sampling.py decides: Spark hashes the columns one after the other from 42 on."""
    hashed = xxh64(seed.to_bytes(8, "little"), xxh64(event_id.encode(), 42))
    return (hashed >> 11) / 2**53 < rate
