"""Hidden files of killed conversions go, and nothing that somebody may still write."""

import os
import subprocess
import sys
import time

import pytest

from jawloc.scans.convert.abandoned import remove_abandoned


@pytest.mark.parametrize(
    ("name", "hours", "stays"),
    [
        (".{gone}-0123abcd.part.a.dcm", 1, False),
        (".{gone}-0123abcd.part.a.dcm", 0, True),  # perhaps another machine's
        (".{alive}-0123abcd.part.a.dcm", 1, True),
        (".{alive}-0123abcd.part.a.dcm", 25, False),  # another process has the number
        (".{gone}-0123abcd.part.a.csv", 25, True),
        (".{gone}-notes.part.a.dcm", 25, True),
        ("a.dcm", 25, True),
    ],
)
def test_what_killed_conversions_left_is_removed(tmp_path, name, hours, stays):
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    path = tmp_path / name.format(gone=process.pid, alive=os.getpid())
    path.touch()
    os.utime(path, (time.time() - hours * 3600,) * 2)
    remove_abandoned(tmp_path)
    remove_abandoned(tmp_path / "nowhere")
    assert path.exists() == stays
