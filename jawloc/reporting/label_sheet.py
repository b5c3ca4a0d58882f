"""All labelled scans on one page, each with its labelled points: `labels.html`.

Whoever exchanged two axes, or took the mask of another scan, sees it here before the training ends.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from jawloc.geometry import Shape, map_points
from jawloc.reporting.content_policy import page_templates
from jawloc.reporting.figures.thumbnail import label_thumbnail
from jawloc.reporting.text_files import write_text
from jawloc.scans.cache import ExampleFile
from jawloc.scans.orthogonal_slices import orthogonal_slices

LABEL_SHEET = "labels.html"
TEMPLATE = "label_sheet.html.j2"
JPEG_QUALITY = 85  # a fifth of a PNG's size, since scans are noisy


@dataclass(frozen=True)
class LabelCard:
    """A labelled object of a scan on the page."""

    scan_id: str
    object_name: str
    picture: str  # base64 of a JPEG file
    point_voxels: np.ndarray  # (z, y, x) in the full-size scan
    shape_zyx: Shape  # of the full-size scan
    source: str  # what was labelled: a mask or a point


def write_label_sheet(folder: Path, examples: Iterable[ExampleFile]) -> Path:
    """Write the page of these scans, in their order, and return its path.

    The slices are those of the downsampled scans, which are read from the cache one by one; raise
    InputError if one of them is damaged.
    """
    cards = [card for example in examples for card in _cards(example)]
    page = (
        page_templates()
        .get_template(TEMPLATE)
        .render(
            cards=cards,
            scans=len({card.scan_id for card in cards}),
            several=len({card.object_name for card in cards}) > 1,
        )
    )
    write_text(folder / LABEL_SHEET, page)
    return folder / LABEL_SHEET


def _cards(file: ExampleFile) -> Iterator[LabelCard]:
    image = file.read().image
    full_size = map_points(file.points_voxels, file.grid, file.source_grid)
    for name, small, point in zip(file.object_names, file.points_voxels, full_size, strict=True):
        if np.isfinite(point).all():
            slices = orthogonal_slices(image, small)
            picture = _jpeg(label_thumbnail(point, file.source_grid, slices))
            source = "a mask" if file.has_mask else "a point"
            yield LabelCard(file.scan_id, name, picture, point, file.source_grid.shape_zyx, source)


def _jpeg(picture: np.ndarray) -> str:
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return base64.b64encode(content.getvalue()).decode()
