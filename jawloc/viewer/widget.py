"""The widget "Find the jaw" of napari: runs a model on the open layer."""

# without the annotations of __future__: magicgui makes the widget's fields of these types

from pathlib import Path

import napari
from magicgui import magic_factory

from jawloc.errors import InputError
from jawloc.viewer.plugin import find_in_layer, position_layer


@magic_factory(
    call_button="Find",
    model={"label": "model", "mode": "r", "filter": "*.pth"},
    layout="vertical",
)
def find_the_jaw(scan: napari.layers.Image, model: Path) -> napari.types.LayerDataTuple:
    """Find the objects of a model in a layer, and add their positions as points.

    A layer of a file that jawloc opened is read from that file, at full size; any other is taken
    as it is, voxel by voxel.
    """
    if scan is None or not model.is_file():
        raise InputError("Find the jaw: choose a layer with a scan, and a model (.pth)")
    return position_layer(scan, find_in_layer(scan, model))
