"""Any supported file or folder -> ScanFile (slab by slab) or Scan (whole)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.dicom import DICOM_ENDINGS, open_dicom
from jawloc.scans.dicom.folder import dicom_slices
from jawloc.scans.dicom.series import open_dicom_series
from jawloc.scans.opening import files_in
from jawloc.scans.padding import without_padding
from jawloc.scans.projections import refuse_projections
from jawloc.scans.scan import SCAN_ENDINGS, Scan, ScanFile, scan_ending
from jawloc.scans.slice_folder import open_slice_folder, picture_slices
from jawloc.scans.tiff import TIFF_ENDINGS, open_tiff
from jawloc.scans.volumes import open_volume


def open_scan(path: Path, *, series: Sequence[str] = (), is_label: bool = False) -> ScanFile:
    """Open a scan of any supported kind, reading headers only; only labelled DICOMs have a mask.

    A file is a DICOM with several frames (.dcm, .dicom), TIFF (.tif, .tiff), NIfTI (.nii,
    .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd); a folder holds the slices of one scan,
    a DICOM series or 2-D TIFFs, BMPs or PNGs. Voxels without a grey value are read as the lowest
    grey value (`without_padding`).

    Parameters
    ----------
    series : SeriesInstanceUIDs, one of which names the series of a folder of DICOM files; none: the
        folder must have only one that may be a volume
    is_label : whether the voxels are label values, which are read as they are stored

    Raises
    ------
    InputError
        If there is nothing at `path`, its ending is not supported, or it is damaged, not 3-D,
        of one slice, coloured, or of a spacing that is not positive and finite.
    """
    return without_padding(_open(Path(path), series, is_label), is_label=is_label)


def _open(path: Path, series: Sequence[str], is_label: bool) -> ScanFile:
    if not path.exists():
        raise InputError(f"{path.name}: a scan must be a file or folder; there is none at {path}")
    if path.is_dir():
        return _open_folder(path, series, is_label)
    if not path.is_file():  # a pipe or a device, which may never end
        raise InputError(f"{path.name}: a scan must be a file or folder; this is neither")
    ending = scan_ending(path)
    if ending is None:
        raise InputError(
            f"{path.name}: the file's ending must be one of {', '.join(sorted(SCAN_ENDINGS))}"
        )
    if ending in DICOM_ENDINGS:
        return open_dicom(path, is_label=is_label)
    return open_tiff(path) if ending in TIFF_ENDINGS else open_volume(path)


def _open_folder(folder: Path, series: Sequence[str], is_label: bool) -> ScanFile:
    """Open a folder of slices, all pictures of one kind or all one DICOM series, as one scan."""
    files = [p for p in files_in(folder) if p.is_file() and not p.name.startswith(".")]
    pictures, dicoms = picture_slices(files), dicom_slices(files)
    tiffs = [path for path in pictures if path.suffix.lower() in TIFF_ENDINGS]
    if dicoms and tiffs:
        raise InputError(
            f"{folder.name}: the slices of a folder must be TIFF or DICOM, not both; "
            f"it has {len(tiffs)} and {len(dicoms)}"
        )
    if dicoms:
        return open_dicom_series(folder, dicoms, named=series, is_label=is_label)
    if not pictures:
        raise InputError(
            f"{folder.name}: a folder that is one scan must hold 2-D TIFFs, BMPs, PNGs or a DICOM "
            f"series; none of its files ({len(files)}) is one"
        )
    refuse_projections(folder, pictures)
    return open_slice_folder(folder, pictures, is_label=is_label)


def read_scan(path: Path) -> Scan:
    """Read a whole scan of any supported kind into memory; otherwise as `open_scan`."""
    scan = open_scan(path)
    slices = scan.grid.shape_zyx[0]
    mask = None if scan.read_mask is None else scan.read_mask(0, slices)
    return Scan(scan.scan_id, scan.read_grey_values(0, slices), mask, scan.grid)
