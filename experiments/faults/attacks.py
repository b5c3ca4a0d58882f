"""Attacks: code, names, links, bombs and secrets that somebody plants; none may get anywhere.

Each payload is refused in one sentence, or read as what it is: plain text. An attack is lost if
code ran, a file outside the folder was read or written, a password was shown, or memory went.
"""

from __future__ import annotations

from collections.abc import Iterator

from attack_bombs import bomb_faults
from attack_code import code_faults
from attack_files import file_faults
from attack_served import served_faults
from attack_texts import text_faults
from campaign import Outcome, Plan


def faults(plan: Plan) -> Iterator[Outcome]:
    yield from code_faults(plan)
    yield from file_faults(plan)
    yield from served_faults(plan)
    yield from bomb_faults(plan)
    yield from text_faults(plan)
