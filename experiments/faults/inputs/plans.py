"""Which damage fits which file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from inputs import format_damage as f
from inputs import text_damage as t
from inputs.damage import BYTES, Damage, Random, choose

_TEXT: dict[str, Damage] = {
    "a number replaced": t.change_number,
    "a word replaced": t.change_text,
    "lines changed": t.change_lines,
}
_WHOLE_TEXT = _TEXT | {"saved by another program": t.recode}
_HEADER = {name: t.in_header(damage) for name, damage in _TEXT.items()}
_WORDS: dict[str, Damage] = {"a binary number replaced": t.change_word}
_VALUES: dict[str, dict[str, Damage]] = {
    ".dcm": _WORDS | {"an element replaced": f.change_dicom},
    ".csv": _WHOLE_TEXT,
    ".fcsv": _WHOLE_TEXT,
    ".txt": _WHOLE_TEXT,
    ".log": _WHOLE_TEXT,
    ".json": _WHOLE_TEXT | {"a value replaced": t.change_json, "a bomb": t.bomb},
    ".yml": _WHOLE_TEXT | {"a value replaced": t.change_yaml, "a bomb": t.bomb},
    ".journal": _WHOLE_TEXT | {"a value replaced": t.change_json},
    ".pth": _WORDS | {"a value replaced": f.change_weights},
    ".nrrd": _HEADER,
    ".nhdr": _HEADER,
    ".mha": _HEADER,
    ".mhd": _HEADER,
}


def damage_of(name: str, random: Random, folder: Path) -> tuple[str, str, Damage]:
    """Choose how a file is damaged; return the family, its name, and the damage."""
    values = _VALUES.get(Path(name).suffix, _WORDS)
    if name.endswith(".db"):
        values = _WORDS | {"a value replaced": partial(f.change_database, folder=folder)}
    in_values = random.random() < 0.55
    what = choose(random, list(values if in_values else BYTES))
    damage = values[what] if in_values else BYTES[what]
    if name.endswith(".gz") and random.random() < 0.5:
        damage = partial(_inside, damage)
    return ("values" if in_values else "bytes"), what, damage


def _inside(damage: Damage, content: bytes, random: Random) -> bytes:
    return f.inside(content, damage, random)
