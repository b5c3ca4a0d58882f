"""Variables are set for a block, and then as they were, also where it fails."""

import os

import pytest

from jawloc.reporting.tracking.environment import environment


def test_variables_are_as_they_were_after_the_block(monkeypatch):
    monkeypatch.setenv("JAWLOC_KNOWN", "before")
    monkeypatch.delenv("JAWLOC_NEW", raising=False)
    with (
        pytest.raises(ValueError, match="fails"),
        environment({"JAWLOC_KNOWN": "own", "JAWLOC_NEW": "secret"}),
    ):
        assert (os.environ["JAWLOC_KNOWN"], os.environ["JAWLOC_NEW"]) == ("own", "secret")
        raise ValueError("fails")
    assert os.environ["JAWLOC_KNOWN"] == "before"
    assert "JAWLOC_NEW" not in os.environ
