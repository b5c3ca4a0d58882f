"""Scans and positions in napari; the only package that imports napari, Qt and npe2.

Everything here comes with the extra `napari`; `jawloc.viewer.availability` says in a sentence
where it, or a display, is missing.
"""
