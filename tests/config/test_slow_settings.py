"""Settings of the lab's file that slow the default network are named, with the default."""

from __future__ import annotations

import pytest
import yaml

from jawloc.config import check_config
from jawloc.config.slow_settings import tell_slow_settings
from tests.lab import LAB_CONFIG

LAB = yaml.safe_load(LAB_CONFIG)["jaw_loc_config"]


def told(capsys, tmp_path, **changes):
    config = check_config(LAB | changes, base=tmp_path, source="userconf.yml")
    tell_slow_settings(config, config.requested)
    return capsys.readouterr().err


def test_what_is_slow_is_named_in_one_line_with_the_defaults(capsys, tmp_path):
    slow = {"batch_size": 16, "learning_rate_schedule": "cooldown"}
    (line,) = told(capsys, tmp_path, **slow).splitlines()
    for words in ("learning_rate 0.0001 (default 0.003)", "batch_size 16 (default 4)"):
        assert words in line


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({}, "note: learning_rate 0.0001 (default 0.003) suit"),  # the lab's own file
        ({"learning_rate": 0.003, "batch_size": 16}, ""),  # one cycle has as many steps
        ({"learning_rate": 0.002, "batch_size": 4}, ""),  # nearly the defaults
        ({"network": {"name": "attention-unet"}}, ""),  # whose settings these are
    ],
)
def test_only_what_slows_this_network_is_named(capsys, tmp_path, changes, named):
    said = told(capsys, tmp_path, **changes)
    assert said.startswith(named)
    assert bool(said) is bool(named)


def test_torchruns_other_processes_say_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert told(capsys, tmp_path) == ""
