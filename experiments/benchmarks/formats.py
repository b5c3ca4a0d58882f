"""Shrinking a full-size scan from each format: seconds beside the lab's way, and memory.

    python experiments/benchmarks/formats.py                # about 15 minutes, 9 GB of disk
    python experiments/benchmarks/formats.py --quick        # a minute; into script_output

One phantom is written as a labelled DICOM, and as an image with its mask in two TIFFs, two NIfTIs
and two NIfTIs packed by gzip. jawloc opens and averages image and mask; the lab's way reads both
whole with the format's common library and zooms them with scipy (cubic for the image, nearest for
the mask). Limit: reading the files' bytes once.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from contenders import Contender, Work, measure, summarise
from downsampling import Shape, by_scipy_zoom, jawloc_downsample, read_bytes, zoomed
from reporting import RESULTS, ROOT, Bars, Row, Table, report

from jawloc.phantom import write_phantoms
from jawloc.scans.reading import read_scan

FULL_SIZE, TARGET = (2000, 600, 600), (512, 128, 128)
QUICK_SIZE, QUICK_TARGET = (250, 150, 150), (64, 32, 32)
GOAL_MB, GOAL_TIMES = 600.0, 29.0
ENDINGS = {"TIFF": ".tif", "NIfTI": ".nii", "NIfTI, gzip": ".nii.gz"}


def main() -> None:
    """Measure every format and report it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a small scan")
    parser.add_argument("--repeats", type=int, default=3, help="of jawloc; the lab's way runs once")
    wanted = parser.parse_args()
    source, target = (QUICK_SIZE, QUICK_TARGET) if wanted.quick else (FULL_SIZE, TARGET)
    rows: list[Row] = []
    with TemporaryDirectory() as folder:
        (dicom,) = write_phantoms(Path(folder), 1, source)
        rows.append(_compared("DICOM", [dicom], target, wanted.repeats))
        scan = read_scan(dicom)
        for name, ending in ENDINGS.items():
            files = [Path(folder) / f"{part}{ending}" for part in ("image", "mask")]
            for path, voxels in zip(files, (scan.image, scan.mask), strict=True):
                _write(path, voxels)
            rows.append(_compared(name, files, target, wanted.repeats))
            for path in files:
                path.unlink()
    sizes = [" × ".join(map(str, shape)) for shape in (source, target)]
    title = f"A scan of {sizes[0]} with its mask down to {sizes[1]}, from each format"
    times, memory = "the lab's way takes so many times as long", "peak memory of the process (MB)"
    report(
        "formats_quick" if wanted.quick else "formats",
        [
            Table("times", title, rows, Bars("lab_takes_times", times, limit=(GOAL_TIMES, "goal"))),
            Table(
                "memory",
                f"{title}: memory",
                [{"contender": row["contender"], "peak_mb": row["peak_mb"]} for row in rows],
                Bars("peak_mb", memory, limit=(GOAL_MB, "goal")),
            ),
        ],
        params={"source_zyx": source, "target_zyx": target, "repeats": wanted.repeats},
        note=(
            "Medians of interleaved runs of jawloc and of the limit, and one run of the lab's way, "
            "each in a process of its own. Imports are left out of the times and count for the "
            "memory. Files are in the page cache; unpacking gzip counts, on both sides."
        ),
        results=ROOT / "script_output" / "benchmarks" if wanted.quick else RESULTS,
    )


def _compared(name: str, files: Sequence[Path], target: Shape, repeats: int) -> Row:
    """Return a format's row: jawloc's seconds and memory beside the lab's way and the limit."""
    own: dict[str, Contender] = {"limit": partial(read_bytes, files)}
    if len(files) == 1:
        own["jawloc"] = partial(jawloc_downsample, files[0], target)
        lab = partial(by_scipy_zoom, files[0], target)
    else:
        own["jawloc"] = partial(_jawloc_pair, files[0], files[1], target)
        lab = partial(_zoomed_pair, files[0], files[1], target)
    print(name)
    limit, jawloc = summarise(measure(own, repeats))
    (by_lab,) = summarise(measure({"lab": lab}, 1))
    seconds, read = float(str(jawloc["seconds"])), float(str(limit["seconds"]))
    return {
        "contender": name,
        "gigabytes": sum(path.stat().st_size for path in files) / 1e9,
        "seconds": seconds,
        "cpu_seconds": jawloc["cpu_seconds"],
        "reading_the_bytes": read,
        "against_limit": seconds / read,
        "lab_seconds": by_lab["seconds"],
        "lab_takes_times": float(str(by_lab["seconds"])) / seconds,
        "peak_mb": jawloc["peak_mb"],
        "lab_peak_mb": by_lab["peak_mb"],
    }


def _write(path: Path, voxels: np.ndarray) -> None:
    if path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, voxels, photometric="minisblack")
        return
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))


def _jawloc_pair(image: Path, mask: Path, shape: Shape) -> Work:
    """Open an image with its mask, and average, hash and count labels, as for a labelled DICOM."""
    import nibabel  # noqa: F401 (these are imported before the time counts)
    import tifffile  # noqa: F401

    from jawloc.scans.downsample import downsample
    from jawloc.scans.listing import ListedScan
    from jawloc.scans.pairs import open_paired

    def work() -> None:
        downsample(open_paired(ListedScan("image", image, labels=(mask,))), shape)

    return work


def _zoomed_pair(image: Path, mask: Path, shape: Shape) -> Work:
    """Read both whole with tifffile or nibabel, and zoom them as the lab does."""
    import nibabel
    import tifffile
    from scipy import ndimage  # noqa: F401

    def read(path: Path) -> np.ndarray:
        if path.suffix == ".tif":
            return tifffile.imread(path)
        return np.asarray(nibabel.load(path).dataobj).T  # type: ignore[attr-defined]

    def work() -> None:
        zoomed(read(image), read(mask), shape)

    return work


if __name__ == "__main__":
    main()
