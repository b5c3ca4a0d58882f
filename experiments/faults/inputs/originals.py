"""Whole input files of the twelve kinds that `inputs.py` damages: tiny, several variants a kind.

They are the same each time (but for the times in a study), so that a seed plants the same faults.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch
from uuid import UUID

import nibabel
import numpy as np
import pydicom
import SimpleITK
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from inputs.settings import write_configs, write_models, write_spaces, write_studies
from jawloc.geometry import Grid
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.dicom.writing import write_labelled_dicom_slabs
from jawloc.scans.scan import ScanPoint

SHAPE = (10, 9, 8)
SPACING = (0.04, 0.03, 0.02)
IMAGE = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.uint16)
MASK = (IMAGE > 700).astype(np.uint8)


@dataclass(frozen=True)
class Original:
    """A whole input: the files in a folder, the one that a user names, those to be damaged."""

    kind: str
    variant: str
    folder: Path
    target: str  # relative to the folder, as are the next
    damaged: tuple[str, ...]

    @property
    def files(self) -> dict[str, bytes]:
        """Return the content of every file by its path in the folder."""
        found = (path for path in sorted(self.folder.rglob("*")) if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in found}


# (target, files to damage; none: the target) of what was written into a folder
Written = tuple[str, Sequence[str]]
Writer = Callable[[Path], Iterator[tuple[str, Written]]]


def write_originals(work: Path) -> list[Original]:
    """Write every original below a folder."""
    found = []
    with (  # UIDs
        patch("secrets.randbelow", lambda limit: limit // 3),
        patch("uuid.uuid4", lambda: UUID(int=2**127 // 3)),
    ):
        for kind, writer in WRITERS.items():
            stage = work / "stage"
            stage.mkdir(parents=True)
            for variant, (target, damaged) in writer(stage):
                folder = work / kind.replace(" ", "_") / variant.replace(" ", "_")
                folder.parent.mkdir(exist_ok=True)
                stage.rename(folder)
                found.append(Original(kind, variant, folder, target, tuple(damaged) or (target,)))
                stage.mkdir(parents=True)
            shutil.rmtree(stage)
    return found


def _labelled(folder: Path) -> Iterator[tuple[str, Written]]:
    write_labelled_dicom(folder / "a.dcm", IMAGE, MASK, Grid(SHAPE, SPACING))
    yield "ours", ("a.dcm", ())
    odd = (9, 7, 5)  # one slice more is written
    part = tuple(slice(n) for n in odd)
    write_labelled_dicom(folder / "a.dcm", IMAGE[part].astype(np.uint8), MASK[part], Grid(odd))
    yield "ours, padded", ("a.dcm", ())
    points = [ScanPoint("jaw", (4.5, 3.0, 2.25)), ScanPoint(2, (1.0, 2.0, 3.0))]
    write_labelled_dicom_slabs(
        folder / "a.dcm", [(IMAGE, None)], Grid(SHAPE, SPACING), IMAGE.dtype, points=points
    )
    yield "ours, points", ("a.dcm", ())
    for variant, syntax in (("the lab's", ImplicitVRLittleEndian), ("big", ExplicitVRBigEndian)):
        _dicom(IMAGE, syntax, mask=MASK).save_as(folder / "a.dcm", enforce_file_format=True)
        yield variant, ("a.dcm", ())
    packed = _dicom(IMAGE, ExplicitVRLittleEndian, mask=MASK)
    packed.compress(RLELossless)
    packed.save_as(folder / "a.dcm", enforce_file_format=True)
    yield "run lengths", ("a.dcm", ())


def _series(folder: Path) -> Iterator[tuple[str, Written]]:
    for variant, syntax in (
        ("slices", ExplicitVRLittleEndian),
        ("slices, implicit", ImplicitVRLittleEndian),
        ("slices, run lengths", RLELossless),
    ):
        (folder / "a").mkdir()
        for number, page in enumerate(IMAGE):
            own = ExplicitVRLittleEndian if syntax == RLELossless else syntax
            ds = _dicom(page[None], own, number=number)
            if syntax == RLELossless:
                ds.compress(RLELossless)
            ds.save_as(folder / "a" / f"{number:03d}.dcm", enforce_file_format=True)
        yield variant, ("a", [f"a/{number:03d}.dcm" for number in range(len(IMAGE))])
    _dicom(IMAGE, ExplicitVRLittleEndian).save_as(folder / "a.dcm", enforce_file_format=True)
    yield "frames", ("a.dcm", ())
    data = Path(pydicom.__file__).parent / "data"
    for path in sorted(path for path in data.rglob("*") if path.is_file()):
        if path.suffix not in (".py", ".pyc", ".json", ".md"):
            shutil.copyfile(path, folder / "a.dcm")
            yield f"pydicom's {path.relative_to(data).as_posix().replace('/', '-')}", ("a.dcm", ())


def _dicom(
    image: np.ndarray, syntax: str, *, mask: np.ndarray | None = None, number: int = 0
) -> Dataset:
    """Build a DICOM in the lab's layout, or a slice of a series where there is one frame."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = syntax
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, f"1.2.826.0.1.{number + 1}"
    frames, ds.Rows, ds.Columns = image.shape
    if frames > 1:
        ds.NumberOfFrames = frames
    else:
        ds.SeriesInstanceUID, ds.SeriesDescription = "1.2.826.0.2", "head"
        ds.InstanceNumber, ds.PixelSpacing, ds.SliceThickness = number + 1, [0.03, 0.02], 5
        ds.RescaleSlope, ds.RescaleIntercept = 2, -1000
        ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ds.ImagePositionPatient = [1, 2, round(0.04 * number, 6)]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 0
    if mask is not None:
        ds.add_new(0x00BBB000, "LO", "LabelData")
        ds.add_new(0x00BBB001, "OB", mask.tobytes())
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    ds.add_new(0x7FE00010, "OW", image.astype(order).tobytes())
    return ds


def _tiffs(folder: Path) -> Iterator[tuple[str, Written]]:
    plain = {"photometric": "minisblack"}
    inches = {"axes": "ZYX", "spacing": 0.04, "unit": "mm"}
    micrometres = {"axes": "ZYX", "PhysicalSizeX": 20.0, "PhysicalSizeY": 30.0}
    micrometres |= {"PhysicalSizeZ": 40.0}
    for variant, options in {
        "plain": plain,
        "big endian": plain | {"byteorder": ">"},
        "BigTIFF": plain | {"bigtiff": True},
        "zlib": plain | {"compression": "zlib"},
        "LZW": plain | {"compression": "lzw"},
        "tiles": plain | {"volumetric": True, "tile": (16, 16, 16), "compression": "zlib"},
        "0 is white": {"photometric": "miniswhite"},
        "ImageJ": {"imagej": True, "metadata": inches, "resolution": (50.0, 33.3)},
        "OME": plain | {"ome": True, "metadata": micrometres},
    }.items():
        tifffile.imwrite(folder / "a.tif", IMAGE, **options)
        yield variant, ("a.tif", ())
    for ending in ("tif", "png", "bmp"):
        (folder / "a").mkdir()
        pages = IMAGE if ending != "bmp" else (IMAGE // 4).astype(np.uint8)
        names = [f"a/s_rec{number:04d}.{ending}" for number in range(len(pages))]
        for name, page in zip(names, pages, strict=True):
            Image.fromarray(page).save(folder / name)
        log = "[Reconstruction]\nImage Pixel Size (um)=21.5\n"
        (folder / "a" / "s_rec.log").write_text(log, encoding="utf-8")
        yield f"slices, {ending}", ("a", [*names[:3], "a/s_rec.log"])


def _niftis(folder: Path) -> Iterator[tuple[str, Written]]:
    affine = np.diag([-0.02, -0.03, 0.04, 1])
    affine[:3, 3] = 1, 2, 3
    signed = IMAGE.T.astype(np.int16)
    for variant, image in {
        "plain": nibabel.Nifti1Image(signed, affine),
        "version 2": nibabel.Nifti2Image(signed, affine),
        "floats": nibabel.Nifti1Image(signed.astype(np.float32) / 7, affine),
        "big endian": nibabel.Nifti1Image(signed, affine, nibabel.Nifti1Header(endianness=">")),
    }.items():
        image.header.set_xyzt_units("mm")
        image.to_filename(folder / "a.nii")
        yield variant, ("a.nii", ())
    nibabel.Nifti1Image(signed, affine).to_filename(folder / "a.nii.gz")
    yield "gzip", ("a.nii.gz", ())
    nibabel.Nifti1Pair(signed, affine).to_filename(folder / "a.hdr")  # not read: no .nii
    yield "pair", ("a.hdr", ("a.hdr", "a.img"))
    nibabel.AnalyzeImage(signed, np.eye(4)).to_filename(folder / "a.hdr")
    yield "Analyze", ("a.hdr", ("a.hdr", "a.img"))


def _itk(path: Path, packed: bool = False) -> None:
    image = SimpleITK.GetImageFromArray(IMAGE.astype(np.int16))
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((1.0, 2.0, 3.0))
    SimpleITK.WriteImage(image, str(path), packed)


def _nrrds(folder: Path) -> Iterator[tuple[str, Written]]:
    for variant, packed in (("raw", False), ("gzip", True)):
        _itk(folder / "a.nrrd", packed)
        yield variant, ("a.nrrd", ())
    _itk(folder / "a.nhdr")
    yield "nhdr and raw", ("a.nhdr", ("a.nhdr", "a.raw"))
    stored = IMAGE.astype("<i2")
    words, digits = " ".join(map(str, stored.ravel())).encode(), stored.tobytes().hex("\n").encode()
    for encoding, content in (("ascii", words), ("hex", digits)):
        _itk(folder / "a.nrrd")
        header = (folder / "a.nrrd").read_bytes().partition(b"\n\n")[0]
        header = header.replace(b"encoding: raw", b"encoding: " + encoding.encode())
        (folder / "a.nrrd").write_bytes(header + b"\n\n" + content)
        yield encoding, ("a.nrrd", ())


def _metaimages(folder: Path) -> Iterator[tuple[str, Written]]:
    for name, beside in (("a.mha", ""), ("a.mhd", "raw")):
        for packed in (False, True):
            _itk(folder / name, packed)
            others = [f"a.{'z' if packed else ''}{beside}"] if beside else []
            yield f"{name[2:]}{', compressed' * packed}", (name, (name, *others))
    _itk(folder / "a.mha")
    content = (folder / "a.mha").read_bytes()
    header = content[: -IMAGE.nbytes].replace(b"OrderMSB = False", b"OrderMSB = True ")
    (folder / "a.mha").write_bytes(header + IMAGE.astype(">i2").tobytes())
    yield "mha, big endian", ("a.mha", ())


_LPS = "https://raw.githubusercontent.com/Slicer/Slicer/main/Markups/markups-schema-v1.0.3.json#"
_POINTS = {
    "voxels": ("p.csv", "scan,object,z,y,x\na,jaw,4.5,3,2.25\nb,jaw,1,2,3\na,left,1,2,3\n"),
    "mm": ("p.csv", "scan;x_mm;y_mm;z_mm\na;1.06;2.09;3.2\n"),
    "a row a scan": ("p.csv", "scan,jaw_z,jaw_y,jaw_x,ear_z,ear_y,ear_x\na,4.5,3,2.25,1,2,3\n"),
    "napari": ("a.csv", "index,axis-0,axis-1,axis-2\n0,4.5,3.0,2.25\n"),
    "locations": (
        "p.csv",
        "scan,object,status,z_voxels,y_voxels,x_voxels\na,jaw,ok,4.5,3,2.25\nb,jaw,failed,,,\n",
    ),
    "markups": (
        "a.mrk.json",
        '{"@schema": "' + _LPS + '", "markups": [{"type": "Fiducial", "coordinateSystem": "LPS",'
        ' "coordinateUnits": "mm",\n "controlPoints": [{"id": "1", "label": "jaw", "position":'
        ' [1.06, 2.09, 3.2],\n "positionStatus": "defined"}, {"label": "F-2", "position":'
        " [1.02, 2.03, 3.04]}]}]}\n",
    ),
    "fcsv": (
        "a.fcsv",
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
        "1,1.06,2.09,3.2,0,0,0,1,1,1,0,jaw,,\n2,1.02,2.03,3.04,0,0,0,1,1,1,0,F-2,,\n",
    ),
}


def _points(folder: Path) -> Iterator[tuple[str, Written]]:
    for variant, (name, text) in _POINTS.items():
        (folder / "images").mkdir()
        _itk(folder / "images" / "a.mha")
        (folder / name).write_text(text, encoding="utf-8")
        yield variant, (name, ())


def _lists(folder: Path) -> Iterator[tuple[str, Written]]:
    plain = "# scans of March\na.mha\nscans/b.mha  # the second\n\nscans/c d.mha\n"
    quoted = '\ufeff"a.mha"\r\n"scans\\b.mha"\r\nscans/c d.mha\r\n'
    for variant, text in {"plain": plain, "of Windows": quoted, "folders": "scans\n"}.items():
        (folder / "scans").mkdir()
        for name in ("a.mha", "scans/b.mha", "scans/c d.mha"):
            _itk(folder / name)
        (folder / "list.txt").write_text(text, encoding="utf-8", newline="")
        yield variant, ("list.txt", ())


WRITERS: dict[str, Writer] = {
    "labelled DICOM": _labelled,
    "DICOM series": _series,
    "TIFF": _tiffs,
    "NIfTI": _niftis,
    "NRRD": _nrrds,
    "MetaImage": _metaimages,
    "points": _points,
    "model": write_models,
    "list of scans": _lists,
    "userconf.yml": write_configs,
    "search space": write_spaces,
    "study": write_studies,
}
