"""Read one damaged input within limits, and say what became of it."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from campaign import Outcome

from inputs.commands import command_mistake
from inputs.field import Field
from inputs.originals import Original
from inputs.readers import KINDS, same
from jawloc.errors import InputError, printable

SECONDS, WAITING_SECONDS = 10, 90  # of a file
MOST_BYTES = 2 * 10**9
LONGEST_SENTENCE, MOST_LINES = 2100, 6  # characters; lines of warnings
COMMANDS_SHARE = 12  # one of so many mutations of a kind goes through the command


class HangError(BaseException):
    """A file took too long; no Exception, which a reader could take for damage."""


def outcome(field: Field, number: int, said: Path | None = None) -> Outcome:
    """Plant a mutation, read it, and say what became of it."""
    whole, _ = field.whole_of(number)
    original = whole.original
    before = field.found_in(whole)
    name, detail = field.describe(number)
    start = 0 if said is None else said.stat().st_size
    try:
        found = _limited(lambda: KINDS[original.kind].read(field.place, original.target))
        what, wrong = "read", _flood(said, start)
        if not wrong and not same(found, before):
            wrong = KINDS[original.kind].judge(found, before, field.place, original.target)
    except InputError as error:
        what, wrong = "refused", _mistake_in(str(error), original) or _flood(said, start)
    except (HangError, Exception) as error:
        if said is None:
            traceback.print_exc(limit=-8)
        what, wrong = "LOST", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    if not wrong and number // len(KINDS) % COMMANDS_SHARE == 1:
        field.plant(number)
        try:
            wrong = _limited(lambda: command_mistake(original, field.place, field.work, what))
        except (HangError, Exception) as error:
            wrong = f"the command: {type(error).__name__}: {str(error)[:200]}"
    return Outcome(name, "LOST", f"{detail}: {wrong}") if wrong else Outcome(name, what, detail)


def _flood(said: Path | None, start: int) -> str:
    """Return what is wrong with what was printed; empty: nothing."""
    lines = b"".splitlines() if said is None else said.read_bytes()[start:].splitlines()
    if len(lines) <= MOST_LINES and max(map(len, lines), default=0) <= LONGEST_SENTENCE:
        return ""
    return f"{len(lines)} lines on the terminal, the last {lines[-1][:200]!r}"


def _mistake_in(sentence: str, original: Original) -> str:
    """Return what is wrong with the sentence of a refusal; empty: nothing."""
    sentences = sentence.splitlines()
    several = len(sentences) <= MOST_LINES and all(one.startswith("s") for one in sentences)
    if (len(sentences) != 1 and not several) or max(map(len, sentences)) > LONGEST_SENTENCE:
        return f"not one sentence: {sentence[:200]!r}, {len(sentence)} characters"
    try:
        sentence.encode("utf-8")
    except UnicodeEncodeError:
        return f"it can't be printed: {sentence[:200]!r}"
    stems = {Path(name).name for name in (original.target, *original.damaged)} | {"here"}
    stems |= {"with this model"} if original.kind == "model" else set()
    settings = original.kind in ("userconf.yml", "search space", "list of scans", "study")
    if not any(stem in sentence for stem in stems) and not settings:
        return f"it names no file: {sentence[:200]!r}"
    return ""


def _limited(read: Any) -> Any:
    """Read within the limits of time and memory.

    The seconds are the process's own, so that a busy computer changes nothing; waiting, as for
    somebody who writes into a pipe, is limited by the clock.
    """
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.alarm(WAITING_SECONDS)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show
            found = read()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)
    if (peak := _peak_bytes()) > MOST_BYTES:
        raise MemoryError(f"{peak / 1e9:.1f} GB")
    return found


def _stop(*_: object) -> None:
    raise HangError(f"more than {SECONDS} s")


def _show(message: Warning | str, *_args: object, **_kwargs: object) -> None:
    os.write(2, f"warning: {printable(str(message))}\n".encode())


def _peak_bytes() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
