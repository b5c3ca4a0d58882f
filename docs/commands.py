"""Finds the blocks of code in the pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of code in a page; `start` and `end` are where its text lies in the page's."""

    language: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Command:
    """One command of a block, as words; without words it sets variables or changes folder."""

    words: tuple[str, ...]
    line: str  # as written, without its comment

    @property
    def program(self) -> str:
        """The first word."""
        return self.words[0]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(m[2], m[3], m.start(3), m.end(3)) for m in FENCE.finditer(text)]


def commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a block for a shell, `a && b` one by one."""
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        words: list[str] = []
        for word in [*lexer, "&&"]:
            if word not in ("&&", ";"):
                words.append(word)
            elif words:
                yield Command(tuple(words), shlex.join(words))
                words = []
