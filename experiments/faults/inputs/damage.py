"""Damage to files: what crashes, bad disks, broken copies, editors and scripts leave behind."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Random = np.random.Generator
Damage = Callable[[bytes, Random], bytes]

HEADER_BYTES = 400
SPARSE_BYTES = 3 * 2**30  # of a file that grew without being written


def choose(random: Random, values: Any) -> Any:
    """Return one of some values, as it is (numpy would turn it into its own types)."""
    return values[int(random.integers(len(values)))]


def place(content: bytes, random: Random) -> int:
    """Return a position, half of them in the header."""
    end = len(content) if random.random() < 0.5 else min(len(content), HEADER_BYTES)
    return int(random.integers(end)) if end else 0


def _span(content: bytes, random: Random) -> tuple[int, int]:
    start = place(content, random)
    return start, start + int(choose(random, (1, 2, 4, 8, 60, 512, len(content))))


def flip_bits(content: bytes, random: Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(random.integers(1, 5)) if content else 0):
        damaged[place(content, random)] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def zero(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + bytes(len(content[start:stop])) + content[stop:]


def randomise(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + random.bytes(len(content[start:stop])) + content[stop:]


def truncate(content: bytes, random: Random) -> bytes:
    return content[: place(content, random)]


def insert(content: bytes, random: Random) -> bytes:
    at = place(content, random)
    return content[:at] + random.bytes(int(random.integers(1, 40))) + content[at:]


def duplicate(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:stop] + content[start:stop] + content[stop:]


def remove(content: bytes, random: Random) -> bytes:
    start, stop = _span(content, random)
    return content[:start] + content[stop:]


def swap(content: bytes, random: Random) -> bytes:
    """Swap two pieces of one length."""
    one, other = sorted(place(content, random) for _ in range(2))
    size = min(int(random.integers(1, 40)), other - one)
    pieces = content[one : one + size], content[other : other + size]
    return (
        content[:one]
        + pieces[1]
        + content[one + size : other]
        + pieces[0]
        + content[other + size :]
    )


BYTES: dict[str, Damage] = {
    "bits flipped": flip_bits,
    "bytes zeroed": zero,
    "bytes randomised": randomise,
    "truncated": truncate,
    "bytes inserted": insert,
    "bytes duplicated": duplicate,
    "bytes removed": remove,
    "bytes swapped": swap,
}


def in_its_place(path: Path, others: list[bytes], random: Random) -> str:
    """Put something else where a file is; return what."""
    kinds = ("empty", "other", "other", "folder", "fifo", "socket", "dangling", "circle", "sparse")
    kind = choose(random, (*kinds, "zeros", "gone"))
    content = path.read_bytes()
    path.unlink()
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "other":
            path.write_bytes(choose(random, others))
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "socket":
            _bind(path)
        case "dangling":
            path.symlink_to("nowhere")
        case "circle":
            path.symlink_to(path.name)
        case "sparse":
            path.write_bytes(content)
            os.truncate(path, SPARSE_BYTES)
        case "zeros":
            path.write_bytes(bytes(len(content)))
    return {"other": "a file of another format", "circle": "a link to itself"}.get(kind, kind)


def _bind(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(here)
