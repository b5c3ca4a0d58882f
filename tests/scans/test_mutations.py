"""Damaged volumes of every kind are read right or refused in one sentence."""

from __future__ import annotations

import pytest

from tests.scans.mutations import KINDS, check


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_volume_is_read_right_or_refused_in_one_sentence(tmp_path, kind):
    """Guards against wrong voxels, tracebacks, hangs and memory, in files of no one's making."""
    found = check(KINDS[kind], 40, tmp_path)
    assert found["refused"] >= 5
    assert found.total() == 40
