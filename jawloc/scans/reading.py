"""Any supported file or folder -> ScanFile (slab by slab) or Scan (whole)."""

from __future__ import annotations

from pathlib import Path

from jawloc.errors import InputError
from jawloc.scans.dicom import open_dicom
from jawloc.scans.scan import SCAN_ENDINGS, Scan, ScanFile, scan_ending
from jawloc.scans.tiff import open_tiff
from jawloc.scans.volumes import open_folder, open_volume


def open_scan(path: Path) -> ScanFile:
    """Open a scan of any supported kind, reading headers only.

    Parameters
    ----------
    path : Path
        A file: DICOM with several frames (.dcm, .dicom; with a mask or without), TIFF (.tif,
        .tiff), NIfTI (.nii, .nii.gz), NRRD (.nrrd, .nhdr) or MetaImage (.mha, .mhd). Or a folder
        of slices: one DICOM series, or 2-D TIFFs.

    Returns
    -------
    ScanFile
        Only labelled DICOMs have a mask.

    Raises
    ------
    InputError
        If there is nothing at `path`, its ending is not supported, or it is damaged, not 3-D,
        of one slice, coloured, or of a spacing that is not positive and finite.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path.name}: a scan must be a file or folder; there is none at {path}")
    if path.is_dir():
        return open_folder(path)
    ending = scan_ending(path)
    if ending in (".dcm", ".dicom"):
        return open_dicom(path)
    if ending in (".tif", ".tiff"):
        return open_tiff(path)
    if ending is None:
        raise InputError(
            f"{path.name}: the file's ending must be one of {', '.join(sorted(SCAN_ENDINGS))}"
        )
    return open_volume(path)


def read_scan(path: Path) -> Scan:
    """Read a whole scan of any supported kind into memory; otherwise as `open_scan`."""
    scan = open_scan(path)
    slices = scan.grid.shape_zyx[0]
    mask = None if scan.read_mask is None else scan.read_mask(0, slices)
    return Scan(scan.scan_id, scan.read_grey_values(0, slices), mask, scan.grid)
