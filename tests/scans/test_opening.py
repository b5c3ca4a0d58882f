"""Where files are opened: only below one folder while that is asked for, whatever is done to it."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jawloc.errors import InputError
from jawloc.geometry import Grid
from jawloc.scans import opening
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.opening import files_in, open_binary, reading_below
from jawloc.scans.reading import open_scan, read_scan
from jawloc.scans.scan import SCAN_ENDINGS
from jawloc.scans.tiff import read_layout
from tests.lab import Payload

RULE = "only files inside the one folder are read; this one leads out of it"
IMAGE = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)


@pytest.fixture
def scans(tmp_path):
    """A folder of scans beside a secret."""
    (tmp_path / "scans" / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(IMAGE.tobytes())
    (tmp_path / "scans" / "sub" / "a").write_bytes(b"own")
    return tmp_path / "scans"


def test_files_below_are_opened_and_others_are_not(scans):
    (scans / "inner").symlink_to("sub/a")
    (scans / "outer").symlink_to(scans.parent / "secret")
    (scans / "up").symlink_to("..")
    with reading_below(scans):
        for name in ("sub/a", "sub/../sub/a", "inner"):
            with open_binary(scans / name) as file:
                assert file.read() == b"own"
        for name in ("../secret", "outer", "up/secret", "up/none", "../scans_too"):
            with pytest.raises(InputError, match=RULE):
                open_binary(scans / name)
        with pytest.raises(InputError, match=RULE):
            files_in(scans / "up")
        assert files_in(scans / "sub") == [scans / "sub" / "a"]
        with pytest.raises(FileNotFoundError):
            open_binary(scans / "none")
    with open_binary(scans / "outer") as file:
        assert file.read() == IMAGE.tobytes()


@pytest.mark.parametrize("name", ["sub/a", "sub"], ids=["file", "folder"])
def test_a_link_that_appears_between_check_and_opening_is_refused(scans, monkeypatch, name):
    """Regression: a served model checked a path, and opened what was there a moment later."""
    (scans.parent / "other").mkdir()
    (scans.parent / "other" / "a").write_bytes(b"secret")
    real_open = opening._open_linkless

    def swap(real: Path, allowed: Path, flags: int) -> int:
        (scans / name).rename(scans / "moved")
        (scans / name).symlink_to(scans.parent / "other" / ("a" if name == "sub/a" else ""))
        return real_open(real, allowed, flags)

    monkeypatch.setattr(opening, "_open_linkless", swap)
    with reading_below(scans), pytest.raises(InputError, match=RULE):
        open_binary(scans / "sub" / "a")


HEADERS = {
    "a.mhd": "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_UCHAR\n"
    "ElementDataFile = {}\n",
    "a.nhdr": "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 6 5 4\nencoding: raw\ndata file: {}\n",
}


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("named", ["../secret", "{folder}/secret", "link", "../none"])
def test_a_header_names_no_file_elsewhere(scans, header, named):
    """Regression: a header in the folder made a served model read any file, or tell its size."""
    (scans / "link").symlink_to(scans.parent / "secret")
    (scans / header).write_text(HEADERS[header].format(named.format(folder=scans.parent)))
    with reading_below(scans), pytest.raises(InputError, match=RULE):
        open_scan(scans / header)
    if "none" not in named:  # whoever runs jawloc may
        assert np.array_equal(read_scan(scans / header).image, IMAGE)


@pytest.mark.parametrize("ending", ["dcm", "tif", "png", "mha", "nii.gz"])
def test_every_format_is_read_below_and_not_elsewhere(scans, ending):
    import SimpleITK
    import tifffile
    from PIL import Image

    for place in (scans, scans.parent):
        path = place / f"a.{ending}"
        if ending == "dcm":
            write_labelled_dicom(path, IMAGE, np.minimum(IMAGE, 1), Grid(IMAGE.shape))
        elif ending == "tif":
            tifffile.imwrite(path, IMAGE, compression="zlib", photometric="minisblack")
        elif ending == "png":
            path = place / "png"
            path.mkdir()
            for number, plane in enumerate(IMAGE):
                Image.fromarray(plane).save(path / f"{number}.png")
        else:
            SimpleITK.WriteImage(SimpleITK.GetImageFromArray(IMAGE), str(path), useCompression=True)
    with reading_below(scans):
        assert np.array_equal(read_scan(scans / path.name).image, IMAGE)
        with pytest.raises(InputError, match=RULE):
            read_scan(scans.parent / path.name)


def write_ome(path: Path, other: str, planes: int) -> None:
    """Write a page whose OME-XML says that it is in another file, as are all of `planes`."""
    import tifffile

    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{other}">urn:uuid:{z}</UUID></TiffData>'
        for z in range(planes)
    )
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZTC" Type="uint8" SizeX="6" '
        f'SizeY="5" SizeZ="{planes}" SizeT="1" SizeC="1">{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(path, IMAGE[0], photometric="minisblack", description=xml, metadata=None)


@pytest.mark.parametrize("planes", [1, 4])
def test_a_tiff_shows_no_page_of_a_file_elsewhere(scans, planes):
    """Regression: a slice whose OME-XML named a TIFF elsewhere was read from where that said."""
    import tifffile

    tifffile.imwrite(scans.parent / "secret.tif", IMAGE[3], photometric="minisblack")
    (scans / "slices").mkdir()
    for number in (1, 2):
        write_ome(scans / f"slices/{number}.tif", "../../secret.tif", planes)
        with pytest.raises(InputError, match="a TIFF must be one file; its slices are in several"):
            read_layout(scans / f"slices/{number}.tif")
    with reading_below(scans):
        found = read_scan(scans / "slices")  # as if the other file weren't there
    assert np.array_equal(found.image, IMAGE[[0, 0]])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_no_scan(tmp_path):
    """Regression: a pipe called like a scan was waited for without end."""
    os.mkfifo(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"^a\.tif: a scan must be a file or folder; this is neit"):
        open_scan(tmp_path / "a.tif")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_not_waited_for_by_whoever_opens_it(tmp_path):
    """Regression: `jawloc locate` waited for one that is called like a volume."""
    os.mkfifo(tmp_path / "a.mhd")
    code = (
        "import sys, pathlib, jawloc.scans.opening as o; o.open_binary(pathlib.Path(sys.argv[1]))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "a.mhd")]
    done = subprocess.run(words, capture_output=True, timeout=60, check=False)
    assert b"a.mhd: a scan must be a file or folder; this is neither" in done.stderr
    with reading_below(tmp_path), pytest.raises(InputError, match="this is neither"):
        open_binary(tmp_path / "a.mhd")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".pkl", *SCAN_ENDINGS])
def test_a_pickle_is_no_scan_and_is_not_run(tmp_path, ending):
    """An array of objects, as NumPy saves it, is one."""
    path, trace = tmp_path / f"a{ending}", tmp_path / "was_run"
    with path.open("wb") as file:
        np.save(file, np.array([Payload(trace)], object), allow_pickle=True)
    with pytest.raises(InputError, match=rf"^a{ending}: "):
        open_scan(path)
    path.write_bytes(pickle.dumps(Payload(trace)))
    with pytest.raises(InputError, match=rf"^a{ending}: "):
        open_scan(path)
    assert not trace.exists()
