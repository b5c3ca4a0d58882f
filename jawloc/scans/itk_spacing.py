"""The spacing by which ITK, and so 3D Slicer, shows a volume: it ignores the unit of a header."""

from __future__ import annotations

from pathlib import Path

from jawloc.geometry import Triple


def itk_spacing(path: Path) -> Triple | None:
    """Return the spacing (z, y, x) by which ITK shows a volume; None if it can't read one in 3-D.

    A fourth dimension of one volume is none, as for jawloc.
    """
    import SimpleITK  # takes a fifth of a second

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    sizes, spacing = reader.GetSize(), reader.GetSpacing()
    if len(sizes) < 3 or any(size != 1 for size in sizes[3:]):
        return None
    x, y, z = spacing[:3]
    return z, y, x
