"""Progress on standard error: a bar on a terminal; a line a minute where the output is a file.

The only place that imports tqdm, so that every command tells alike how far it is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

FIRST_SECONDS = 2.0  # what takes no longer leaves no line in a file
LINE_SECONDS = 60.0
_hidden = False  # see `progress_hidden`


class Progress(tqdm):
    """A tqdm bar; where standard error is no terminal, plain lines of the same content.

    The first line comes after FIRST_SECONDS, one every LINE_SECONDS follows, and a last one says
    how it ended if any was written. `shown=False` shows nothing anywhere. `brief` is for what may
    be over at once: its bar comes after FIRST_SECONDS too, and goes when it is full. Steps that are
    not `even` don't tell how long the others take. Of torchrun's processes, only the first shows
    any.
    """

    def __init__(
        self,
        iterable: Iterable[Any] | None = None,
        *,
        desc: str,
        unit: str,
        total: int | None = None,
        shown: bool = True,
        brief: bool = False,
        even: bool = True,
        **options: Any,
    ) -> None:
        shown = shown and not _hidden and os.environ.get("RANK", "0") == "0"
        if brief:
            options |= {"leave": False, "delay": FIRST_SECONDS}
        if not even:
            options["bar_format"] = "{desc}: |{bar}| {n_fmt} of {total_fmt} [{elapsed}{postfix}]"
        self._even = even
        self.in_lines = not sys.stderr.isatty()
        self._next_line = time.monotonic() + FIRST_SECONDS
        self._told: str | None = None  # the last line
        super().__init__(
            iterable, desc=desc, unit=unit, total=total, disable=not shown, miniters=1, **options
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> Any:
        """Draw the bar, or write the line if its time has come."""
        if not self.in_lines:
            return super().display(msg, pos)
        if time.monotonic() >= self._next_line:
            self._write_line()
        return True

    def clear(self, nolock: bool = False) -> None:
        """Remove the bar for a message; a line stays."""
        if not self.in_lines:
            super().clear(nolock)

    def close(self) -> None:
        """End the bar, or write how far it came if any line was written before."""
        if not self.in_lines or self.disable:
            super().close()
            return
        self.disable = True
        type(self)._decr_instances(self)  # type: ignore[attr-defined]
        if self._told is not None:
            self._write_line()

    def _write_line(self) -> None:
        line = self.line()
        if line != self._told:
            self.fp.write(f"{line}\n")
            self.fp.flush()
        self._told, self._next_line = line, time.monotonic() + LINE_SECONDS

    def line(self) -> str:
        """Return how far it is, in words."""
        about = self.format_dict
        number = self._number(self.n)
        done = number if self.total is None else f"{number} of {self._number(self.total)}"
        parts = [f"{done} {self.unit}{'' if self.unit == 'B' else 's'}"]
        parts.append(self.format_interval(about["elapsed"]))
        if self._even and self.total and self.initial < self.n < self.total:
            pace = about["elapsed"] / (self.n - self.initial)
            parts.append(f"about {self.format_interval(pace * (self.total - self.n))} left")
        parts += [str(self.postfix)] if self.postfix else []
        return f"{self.desc.removesuffix(': ')}: {', '.join(parts)}"

    def _number(self, value: float) -> str:
        return self.format_sizeof(value) if self.unit_scale else f"{value:g}"


@contextmanager
def progress_hidden() -> Iterator[None]:
    """Show no progress in the block, of a process whose work another one counts."""
    global _hidden
    before, _hidden = _hidden, True
    try:
        yield
    finally:
        _hidden = before


@contextmanager
def named_steps(desc: str, count: int, *, shown: bool = True) -> Iterator[Callable[[str], None]]:
    """Yield a function that is called with the name of each of so many steps as it begins."""
    with Progress(desc=desc, unit="step", total=count, shown=shown, even=False) as bar:
        begun = False

        def begin(name: str) -> None:
            nonlocal begun
            bar.set_postfix_str(name, refresh=not begun)
            if begun:
                bar.update()
                bar.refresh()
            begun = True

        yield begin
        bar.set_postfix_str("", refresh=False)
        bar.update()


@contextmanager
def shown_while(text: str) -> Iterator[None]:
    """Show a text on a terminal, and remove it again, where nothing can be counted."""
    on_terminal = sys.stderr.isatty()
    if on_terminal:
        print(f"{text} ...", end="\r", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        if on_terminal:
            print(" " * (len(text) + 4), end="\r", file=sys.stderr, flush=True)
