"""Folders of slices: nothing is left out, closed up or renumbered in silence."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from jawloc.errors import InputError
from jawloc.scans.reading import open_scan, read_scan

IMAGE = np.random.default_rng(1).integers(0, 255, (6, 5, 4)).astype(np.uint8)
MASK = np.array([[[0, 1, 2, 3], [3, 0, 1, 2]], [[1, 1, 0, 0], [2, 3, 3, 0]]], np.uint8)


def write(folder: Path, names: list[str], image: np.ndarray = IMAGE) -> Path:
    folder.mkdir()
    for name, values in zip(names, image, strict=True):
        if name.endswith("tif"):
            tifffile.imwrite(folder / name, values)
        else:
            Image.fromarray(values).save(folder / name)
    return folder


def write_grey_png(path: Path, values: np.ndarray, bits: int) -> None:
    """Write a greyscale PNG whose pixels have 2 or 4 bits, which Pillow does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    rows = b""
    for row in values:
        single = ((row[:, None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
        rows += b"\0" + np.packbits(single).tobytes()
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def voxels(folder: Path, **options) -> np.ndarray:
    return open_scan(folder, **options).read_image(0, len(MASK))


def refusal(folder: Path, **options) -> str:
    with pytest.raises(InputError) as error:
        open_scan(folder, **options)
    return str(error.value)


@pytest.mark.parametrize("ending", ["tif", "bmp", "png"])
def test_a_missing_number_is_refused_with_the_slices_beside_it(tmp_path, ending):
    names = [f"fish_{number:04}.{ending}" for number in (1, 2, 3, 5, 6, 7)]
    said = refusal(write(tmp_path / "fish", names))
    assert said == (
        "fish: the numbers of slices must rise in even steps, or one is missing; "
        f"fish_0003.{ending} is followed by fish_0005.{ending}"
    )


@pytest.mark.parametrize(
    "names",
    [
        [f"fish{number}.tif" for number in (8, 9, 10, 11, 12, 13)],  # not padded with zeros
        [f"fish_{number:03}.tif" for number in range(0, 60, 10)],
        [f"{number}.tif" for number in range(6)],
        [f"2026-11-2{number}_fish_z{number:02}_c1.tif" for number in range(6)],
        # of one that a microscope writes: slice and time of day
        [f"z{n:02}_{time}.tif" for n, time in enumerate((900, 917, 931, 988, 1003, 1012))],
    ],
    ids=["8 to 13", "every tenth", "numbers only", "two that rise", "time of day"],
)
def test_slices_are_ordered_by_the_numbers_in_their_names(tmp_path, names):
    np.testing.assert_array_equal(read_scan(write(tmp_path / "fish", names)).image, IMAGE)


def test_slices_of_two_scans_are_not_stacked(tmp_path):
    names = [f"{fish}_{number}.tif" for fish in ("fish_a", "fish_b") for number in range(3)]
    assert refusal(write(tmp_path / "scans", names)) == (
        "scans: the names of slices must differ only in their numbers; it has fish_a_0.tif and "
        "fish_b_0.tif"
    )


def test_numbered_scans_are_not_stacked_either(tmp_path):
    names = [f"fish{fish}_{number}.tif" for fish in (1, 2) for number in range(3)]
    assert "fish1_2.tif is followed by fish2_0.tif" in refusal(write(tmp_path / "scans", names))


def test_files_of_several_kinds_are_refused(tmp_path):
    names = ["a1.bmp", "a2.bmp", "a3.bmp", "a4.tif", "a5.tif", "a6.tif"]
    folder = write(tmp_path / "fish", names)
    rule = "the slices of a folder must be files of one kind; it has BMP and TIFF files"
    assert refusal(folder) == f"fish: {rule}"


@pytest.mark.parametrize("bits", [2, 4])
def test_labels_of_a_png_of_few_bits_keep_their_values(tmp_path, bits):
    folder = tmp_path / "mask"
    folder.mkdir()
    for number, values in enumerate(MASK):
        write_grey_png(folder / f"{number}.png", values, bits)
    np.testing.assert_array_equal(voxels(folder, is_label=True), MASK)
    np.testing.assert_array_equal(voxels(folder), MASK)


def test_labels_of_a_palette_are_its_numbers(tmp_path):
    folder = tmp_path / "mask"
    folder.mkdir()
    colours = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255]
    for number, values in enumerate(MASK):
        picture = Image.fromarray(values).convert("P")
        picture.putdata(values.ravel().tolist())
        picture.putpalette(colours)
        picture.save(folder / f"{number}.png")
    np.testing.assert_array_equal(voxels(folder, is_label=True), MASK)
    assert "one grey value each" in refusal(folder)


def test_a_png_that_does_not_fit_its_checksum_is_refused(tmp_path):
    folder = write(tmp_path / "scan", [f"{n}.png" for n in range(6)])
    damaged = bytearray((folder / "3.png").read_bytes())
    damaged[damaged.index(b"IEND") - 8] ^= 0x10  # the checksum of the pixels
    (folder / "3.png").write_bytes(damaged)
    scan = open_scan(folder)
    np.testing.assert_array_equal(scan.read_image(0, 3), IMAGE[:3])
    with pytest.raises(InputError, match=r"^3\.png: the picture can't be decoded"):
        scan.read_image(3, 4)
