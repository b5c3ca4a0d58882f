"""Decoding compressed or written-out voxels, block by block, so that memory stays bounded."""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

# Deflate, the method of gzip and zlib, packs no more than so many bytes into one.
MOST_INFLATION = 1032

_COMPRESSED_BLOCK = 2**16
_BLOCK = 2**20
_LONGEST_WORD = 2**12  # of text, which would be joined to each next block
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_GZIP = b"\x1f\x8b"


def inflated(file: BinaryIO) -> Iterator[bytes]:
    """Decode gzip, of one or several members, or zlib from a file's position on.

    Raise zlib.error where the data are damaged or don't fit their checksum, EOFError where they
    break off before their end. Bytes after the end are left alone.
    """
    while True:
        decoder, block = zlib.decompressobj(_GZIP_OR_ZLIB), file.read(_COMPRESSED_BLOCK)
        while block:
            yield decoder.decompress(block)
            if decoder.eof:
                break
            block = file.read(_COMPRESSED_BLOCK)
        if not decoder.eof:
            raise EOFError("the compressed data break off")
        file.seek(-len(decoder.unused_data), 1)
        start = file.read(len(_GZIP))
        if start != _GZIP:
            return
        file.seek(-len(_GZIP), 1)


def inflated_start(file: BinaryIO, size: int) -> bytes:
    """Decode the first bytes of gzip or zlib data, `size` at most."""
    return zlib.decompressobj(_GZIP_OR_ZLIB).decompress(file.read(_COMPRESSED_BLOCK), size)


def is_gzip(file: BinaryIO) -> bool:
    """Return whether a file begins as gzip does, whatever its name; go back to its beginning."""
    start = file.read(len(_GZIP))
    file.seek(0)
    return start == _GZIP


def unzipped_bzip2(file: BinaryIO) -> Iterator[bytes]:
    """Decode bzip2; OSError or EOFError where it is damaged or breaks off."""
    with bz2.open(file) as source:
        while block := source.read(_BLOCK):
            yield block


def values_of_text(file: BinaryIO, dtype: np.dtype) -> Iterator[bytes]:
    """Decode numbers separated by white space; ValueError where one isn't of the type."""
    rest = b""
    while block := file.read(_BLOCK):
        words = (rest + block).split()
        # the last word may go on in the next block
        rest = words.pop() if words and not block[-1:].isspace() else b""
        if len(rest) > _LONGEST_WORD:
            raise ValueError(f"a number has more than {_LONGEST_WORD} characters")
        yield _numbers(words, dtype)
    yield _numbers([rest] if rest else [], dtype)


def _numbers(words: list[bytes], dtype: np.dtype) -> bytes:
    if not words:
        return b""
    if dtype.kind == "f":
        return np.array(words).astype(np.float64).astype(dtype).tobytes()
    limits, values = np.iinfo(dtype), [int(word) for word in words]
    if not limits.min <= min(values) <= max(values) <= limits.max:
        raise ValueError(f"numbers must be {limits.min} to {limits.max}")
    return np.array(values, dtype).tobytes()


def bytes_of_hex(file: BinaryIO) -> Iterator[bytes]:
    """Decode two hexadecimal digits a byte, white space between them; ValueError for others."""
    rest = b""
    while block := file.read(_BLOCK):
        digits = rest + b"".join(block.split())
        even = len(digits) // 2 * 2
        rest = digits[even:]
        yield bytes.fromhex(digits[:even].decode("ascii"))
    if rest:
        raise ValueError("the last byte has one hexadecimal digit")
