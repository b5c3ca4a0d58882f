"""Damage to numbers, words and values, as an editor, a script or another program does it."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from typing import Any

import yaml

from inputs.damage import HEADER_BYTES, Damage, Random, choose, insert, place

TEXTS = (
    *(b"0", b"-1", b"1", b"2147483648", b"9223372036854775808", b"9" * 400, b"1e400", b"-0.0"),
    *(b"nan", b"inf", b"-inf", b"1e-300", b"", b"x", b"\0", b"\xff\xfe", "ü\u2028\u202e".encode()),
    *(b"A" * 70_000, b"\\\\", b"%n", b"../..", b"~root", b"1,5", b"0x10", b"1_000", b"null"),
    *(b"'", b'"', b"{", b"[", b"\r", b"\t", b"\n", b"\xed\xa0\x80", b"True", b"2001-99-99"),
)
VALUES: tuple[Any, ...] = (
    *(0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, 1e-308, float("nan"), float("inf")),
    *("", "x" * 70_000, "\0", "ü\u2028", "\ud800", None, True, [], {}, [[]], {"": None}, "../.."),
    *([2**31] * 3, [0] * 3, [1e400] * 3, "nan", "auto", [None], b"\xff", ["a"] * 3, 0.5, 2, 3, 8),
)
WORDS = (0, 1, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63, 2**64 - 1)


def change_word(content: bytes, random: Random) -> bytes:
    """Replace a number of a binary header by an extreme one."""
    size, order = choose(random, (1, 2, 4, 8)), choose(random, ("little", "big"))
    value = choose(random, WORDS) & (256**size - 1)
    new = value.to_bytes(size, order)
    if size >= 4 and random.random() < 0.3:
        number = choose(random, (float("nan"), float("inf"), -1.0, 0.0, 1e30))
        new = struct.pack(("<" if order == "little" else ">") + ("f" if size == 4 else "d"), number)
    at = place(content[:HEADER_BYTES], random) // 2 * 2
    return content[:at] + new + content[at + size :]


def change_number(content: bytes, random: Random) -> bytes:
    """Replace a number that is written out by something extreme."""
    return _replace(content, rb"-?\d[\d.e+-]*", random)


def change_text(content: bytes, random: Random) -> bytes:
    """Replace a word by something extreme."""
    return _replace(content, rb"[\w./-]+", random)


def _replace(content: bytes, pattern: bytes, random: Random) -> bytes:
    found = list(re.finditer(pattern, content[:20_000]))
    if not found:
        return insert(content, random)
    one = choose(random, found)
    return content[: one.start()] + choose(random, TEXTS) + content[one.end() :]


def in_header(damage: Damage) -> Damage:
    """Return a damage of the text before the voxels only."""

    def damaged(content: bytes, random: Random) -> bytes:
        ends = [content.find(mark) + len(mark) for mark in (b"\n\n", b"LOCAL\n") if mark in content]
        end = min(ends, default=len(content))
        return damage(content[:end], random) + content[end:]

    return damaged


def change_lines(content: bytes, random: Random) -> bytes:
    lines = content.split(b"\n")
    one, other = (int(n) for n in random.integers(len(lines), size=2))
    match int(random.integers(4)):
        case 0:
            lines[one], lines[other] = lines[other], lines[one]
        case 1:
            del lines[one]
        case 2:
            lines.insert(one, lines[other])
        case _:
            lines[one] = lines[one][: int(random.integers(len(lines[one]) + 1))]
    return b"\n".join(lines)


def recode(content: bytes, random: Random) -> bytes:
    """Save a text as another program would."""
    try:
        text = content.decode("utf-8")
        code = choose(random, ("utf-16", "utf-8-sig", "utf-16-be", "latin-1", "cr", "nul"))
        if code == "cr":
            return text.replace("\n", choose(random, ("\r", "\r\n", "\u2028"))).encode()
        return text.encode("utf-8") + bytes(4096) if code == "nul" else text.encode(code)
    except UnicodeError:
        return content[::-1]


def bomb(content: bytes, random: Random) -> bytes:
    """Nest a text deeply, or let it grow without end when it is written out."""
    deep, laughs = (
        20_000,
        "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    )
    bombs = (
        b"[" * deep,
        b'{"a":' * deep,
        b"jaw_loc_config: " + b"[" * deep + b"]" * deep,
        content + b"\nx: " + b"{a: " * deep,
        b"".join(b" " * n + b"a:\n" for n in range(1000)),
        b"a0: &a0 [1]\n" + laughs.encode() + b"jaw_loc_config: {dicom_dirs: *a11}\n",
        b"a0: &a0 [1]\n" + laughs.encode() + b"search: {batch_size: *a11}\n",
        b"jaw_loc_config: &a {network: *a}\n",
        b"jaw_loc_config: {objects: &a [*a]}\n",
        b"search: &a {batch_size: *a}\n",
        b"search: {batch_size: &a [1, *a]}\n",
        b"- " * deep,
        content * 2000,
        b"!!python/object/apply:os.system [false]\n" + content,
        b"jaw_loc_config: {<<: [*x, *y]}\n",
    )
    return choose(random, bombs)


def change_yaml(content: bytes, random: Random) -> bytes:
    try:
        tree = yaml.safe_load(content)
        return yaml.safe_dump(changed(tree, random)).encode("utf-8", "surrogatepass")
    except (yaml.YAMLError, ValueError, TypeError):
        return change_text(content, random)


def change_json(content: bytes, random: Random) -> bytes:
    """Change a value in a JSON text, or in one of those that are the lines of a file."""
    lines = content.decode().splitlines() if content.count(b'"op_code"') else [content.decode()]
    at = int(random.integers(len(lines)))
    lines[at] = json.dumps(changed(json.loads(lines[at]), random))
    return ("\n".join(lines) + "\n").encode()


def changed(tree: Any, random: Random) -> Any:
    """Return a tree of mappings and lists with one value replaced, dropped or renamed."""
    if isinstance(tree, Mapping) and tree:
        key = choose(random, list(tree))
        part = tree[key]
        if isinstance(part, Mapping | list) and part and random.random() < 0.8:
            return {**tree, key: changed(part, random)}
        others = {k: v for k, v in tree.items() if k != key}
        way = random.random()
        if way < 0.1:
            return others
        if way < 0.2:
            return {**others, choose(random, ("", "x", 0, None)): part}
        return {**tree, key: _value(random)}
    if isinstance(tree, list) and tree:
        at = int(random.integers(len(tree)))
        new = [] if random.random() < 0.1 else [changed(tree[at], random)]
        return [*tree[:at], *new, *tree[at + 1 :]]
    return _value(random)


def _value(random: Random) -> Any:
    value = choose(random, VALUES)
    return value.decode("latin-1") if isinstance(value, bytes) else value
