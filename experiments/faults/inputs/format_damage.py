"""Damage to the values in a DICOM, a model, a study's database or a gzip, saved properly."""

from __future__ import annotations

import gzip
import io
import sqlite3
import struct
import zlib
from pathlib import Path

import pydicom
import torch
from pydicom.datadict import tag_for_keyword

from inputs.damage import Damage, Random, choose, place
from inputs.text_damage import TEXTS, changed

KEYWORDS = (
    *("Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "PixelRepresentation"),
    *("SamplesPerPixel", "RescaleSlope", "RescaleIntercept", "PixelSpacing", "SliceThickness"),
    *(
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "InstanceNumber",
        "PixelData",
        "ImageType",
    ),
    *("SeriesInstanceUID", "PhotometricInterpretation", "SpacingBetweenSlices", "HighBit"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "TransferSyntaxUID"),
)
TAGS = tuple(tag_for_keyword(word) or 0 for word in KEYWORDS)
TAGS += (0x00BBB000, 0x00BBB001, 0x00BBB002, 0x00BBB010, 0x00BB00B0)


def change_dicom(content: bytes, random: Random) -> bytes:
    """Replace a value, length or type of an element, or a value properly, by another."""
    if random.random() < 0.4:
        try:
            return _other_element(content, random)
        except Exception:  # pydicom can't write every value
            pass
    tag = choose(random, TAGS)
    found = content.find(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
    at = (found if found > 0 else place(content, random)) + choose(random, (4, 6, 8, 12))
    new = choose(random, TEXTS)[:16] or b"\xff\xff\xff\xff"
    return content[:at] + new + content[at + len(new) :]


def _other_element(content: bytes, random: Random) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(content))
    keyword = choose(random, KEYWORDS)
    value = choose(random, (0, 1, 2, 65535, -1, "", "x", "0", "nan", [0, 0], [1e9] * 3, [1] * 6))
    with pydicom.config.disable_value_validation():
        if random.random() < 0.2 and keyword in ds:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
        target = io.BytesIO()
        ds.save_as(target)
    return target.getvalue()


def change_weights(content: bytes, random: Random) -> bytes:
    """Change a value, or a tensor, of a model and save it properly."""
    tree = torch.load(io.BytesIO(content), weights_only=True)
    keys = list(tree)
    if random.random() < 0.5 and "network" in tree:
        tree = changed({k: v for k, v in tree.items() if k != "state_dicts"}, random) | {
            "state_dicts": torch.load(io.BytesIO(content), weights_only=True)["state_dicts"]
        }
    else:
        weights = tree["state_dicts"][0] if "state_dicts" in tree else tree
        key, (_, tensor) = choose(random, list(weights)), next(iter(weights.items()))
        tensor = weights[key]
        numbers = tensor.double()
        others = (
            *(tensor[..., :-1] if tensor.ndim else tensor, numbers, tensor.to(torch.int8)),
            *(torch.full_like(numbers, float("nan")).float(), (numbers * 1e38).float(), "x", None),
            *(tensor.flatten(), torch.zeros(1).expand(2**31), torch.zeros(0), tensor.to_sparse()),
        )
        if random.random() < 0.2:
            del weights[choose(random, list(weights))]
        else:
            weights[key] = choose(random, others)
    target = io.BytesIO()
    torch.save({key: tree[key] for key in [*keys, *tree] if key in tree}, target)
    return target.getvalue()


def change_database(content: bytes, random: Random, folder: Path) -> bytes:
    """Change a value of a study's database by SQL."""
    path = folder / "damaged.db"
    path.write_bytes(content)
    with sqlite3.connect(path) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        tables = [t for (t,) in names if database.execute(f"SELECT 1 FROM {t}").fetchone()]
        table = choose(random, tables)
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        column, value = (
            choose(random, columns),
            choose(random, ("x", -1, 2**62, None, b"\xff", 1e308)),
        )
        way = random.random()
        try:
            if way < 0.7:
                database.execute(f"UPDATE {table} SET {column} = ?", (value,))
            else:
                database.execute(f"D{'ELETE FROM' if way < 0.85 else 'ROP TABLE'} {table}")
        except sqlite3.Error:
            database.execute(f"DELETE FROM {table}")
    database.close()
    return path.read_bytes()


def inside(content: bytes, damage: Damage, random: Random) -> bytes:
    """Damage what a gzip holds, and pack it again with the right checksum."""
    try:
        return gzip.compress(damage(gzip.decompress(content), random), mtime=0)
    except (OSError, EOFError, zlib.error):
        return damage(content, random)
