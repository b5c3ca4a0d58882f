"""Lines of text before the voxels, as NRRD and MetaImage have them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from jawloc.errors import InputError
from jawloc.scans.opening import refuse_outside

_LONGEST_LINE = 2**20
_MOST_LINES = 2**16
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf|infinity)", re.I)


def header_lines(file: BinaryIO) -> Iterator[str]:
    """Yield lines without their ends, so that the file stands at the byte after the last one.

    They end with the file, and before a line of more than a megabyte, which is no text.
    """
    for _ in range(_MOST_LINES):
        line = file.readline(_LONGEST_LINE)
        if not line or len(line) == _LONGEST_LINE:
            return
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            text = line.decode("latin-1")
        yield text.rstrip("\r\n")


def numbers(text: str, count: int | None, name: str, path: Path) -> list[float]:
    """Return the numbers in a field's text; InputError if there aren't so many, or others."""
    words = text.split()
    if not all(_NUMBER.fullmatch(word) for word in words) or len(words) != (count or len(words)):
        wanted = "numbers" if count is None else f"{count} number{'s' if count > 1 else ''}"
        raise InputError(f"{path.name}: {name} must be {wanted}; it is {_shortened(text)!r}")
    return [float(word) for word in words]


def whole_numbers(text: str, count: int | None, name: str, path: Path) -> list[int]:
    """Return the whole numbers in a field's text; otherwise as `numbers`."""
    found = numbers(text, count, name, path)
    if not all(abs(value) < 2**53 and value == int(value) for value in found):
        raise InputError(f"{path.name}: {name} must be whole; it is {_shortened(text)!r}")
    return [int(value) for value in found]


def choice(text: str, choices: Collection[str], name: str, path: Path) -> str:
    """Return a field's text in lower case; InputError if it is none of the choices."""
    found = text.strip().lower()
    if found not in choices:
        raise InputError(
            f"{path.name}: {name} must be one of {', '.join(choices)}; it is {_shortened(text)!r}"
        )
    return found


def listed_files(text: str, lines: Iterator[str], most: int, path: Path) -> tuple[Path, ...]:
    """Return the files beside a header that a field names: one, a list, or numbered ones.

    Parameters
    ----------
    text : ``name``, or ``LIST`` before a name a line, or ``name%03d.raw first last step``
    lines : those after the field
    most : how many there can be; InputError if there are more
    """
    words = text.split()
    if words and words[0] == "LIST":
        names = [line.strip() for line in lines if line.strip()]
    elif len(words) >= 3 and "%" in words[0]:
        names = _numbered(words, most, path)
    else:
        names = [text.strip()]
    if not 1 <= len(names) <= most or not all(names) or any("\0" in name for name in names):
        raise InputError(
            f"{path.name}: the header must name 1 to {most} files of voxels; it names {len(names)}"
        )
    files = tuple(path.parent / name for name in names)
    for file in files:
        refuse_outside(file)  # before a message tells what there is
    return files


def _numbered(words: Sequence[str], most: int, path: Path) -> list[str]:
    first, last, *steps = whole_numbers(" ".join(words[1:4]), None, "the files' numbers", path)
    step = steps[0] if steps else 1
    form = re.fullmatch(r"([^%]*)%(0?)(\d{0,2})[di]([^%]*)", words[0])
    if form is None or step == 0 or not 0 <= (last - first) // step < most:
        raise InputError(
            f"{path.name}: files of voxels must be numbered like name%03d.raw 1 {most} 1; "
            f"they are {_shortened(' '.join(words))!r}"
        )
    before, zero, width, after = form.groups()
    return [
        f"{before}{number:{zero}{width}d}{after}"
        for number in range(first, last + (1 if step > 0 else -1), step)
    ]


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."
