"""A study's journal, a file to which each worker appends lines, that outlives a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from optuna.storages.journal import JournalFileBackend

_START = b'{"op_code":'  # of every line, as Optuna writes it
_BLOCK = 2**20


class Journal(JournalFileBackend):
    """Optuna's journal, in which a line that was cut off doesn't spoil the next.

    A power cut or a full disk leaves part of a line, or zeros, at the end. Optuna ignores it, but
    appends the next line to it, and from then on nothing of the journal can be read. So it is
    taken away first: its writer is gone, as all of them hold Optuna's lock while they write.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._drop_part_of_a_line()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append lines, at the start of one."""
        self._drop_part_of_a_line()
        try:
            super().append_logs(logs)
        except Exception as error:
            # interrupted while it takes its lock, Optuna gives up a lock that it need not have yet,
            # and that error hides the interruption
            if _interrupted(error):
                raise KeyboardInterrupt from error
            raise

    def _drop_part_of_a_line(self) -> None:
        with self._path.open("rb") as file:
            if _is_whole(file):
                return
        with self._locked(), self._path.open("rb+") as file:
            file.seek(0)
            is_a_journal = file.read(len(_START)) == _START  # nothing else is cut
            if is_a_journal and not _is_whole(file):
                file.truncate(_end_of_lines(file))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()


def _interrupted(error: BaseException | None) -> bool:
    """Return whether an error arose while an interruption was handled."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _is_whole(file: BinaryIO) -> bool:
    """Return whether a file is empty, or ends with a line's end."""
    if file.seek(0, os.SEEK_END) == 0:
        return True
    file.seek(-1, os.SEEK_END)
    return file.read() == b"\n"


def _end_of_lines(file: BinaryIO) -> int:
    """Return the position after the last end of a line; 0 where there is none."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
