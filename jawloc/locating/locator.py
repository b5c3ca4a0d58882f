"""The trained locator: save, load, scan in -> position out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jawloc import __version__
from jawloc.errors import InputError
from jawloc.geometry import Grid, Shape, Triple, map_points, voxels_to_mm
from jawloc.scans.downsample import downsample_image
from jawloc.scans.reading import open_scan
from jawloc.training.checkpoint import read_weights_file, save_atomically
from jawloc.training.intensity import IntensityConfig, normalise
from jawloc.training.looks import Seen, look
from jawloc.training.network import NetworkConfig, build_network

FORMAT = "jawloc-locator-1"


@dataclass(frozen=True)
class Localisation:
    """Where one object is in one full-size scan.

    Attributes
    ----------
    point_voxels : (z, y, x) in voxels of the full-size scan, sub-voxel
    point_mm : point_voxels times the spacing; None where the spacing is unknown
    spread_voxels : root mean square distance, per axis, of the probability map from the point,
        in voxels of the downsampled grid
    radius_voxels, radius_mm : how far off the point may be; None where that isn't known
    confidence : from 0 to 1; None where it isn't known
    status : "ok", or what makes the position doubtful
    """

    scan_id: str
    object_name: str
    point_voxels: Triple
    point_mm: Triple | None
    spread_voxels: float
    radius_voxels: float | None = None
    radius_mm: float | None = None
    confidence: float | None = None
    status: str = "ok"


@dataclass(frozen=True)
class Prediction:
    """What the network says of one downsampled image.

    Attributes
    ----------
    points_voxels : array, shape (object, 3), voxels of the downsampled grid
    spread_voxels : array, shape (object,), voxels of the downsampled grid
    probability : array, shape (object, z, y, x), on the heatmap's own, coarser grid; zero where
        a close look did not reach
    """

    points_voxels: np.ndarray
    spread_voxels: np.ndarray
    probability: np.ndarray


@dataclass(frozen=True)
class Locator:
    """A trained network and all that using it needs."""

    network: nn.Module
    network_config: NetworkConfig
    downsampled_size: Shape
    intensity: IntensityConfig
    objects: Mapping[str, Sequence[int] | None]
    sigma_voxels: float  # that the kept weights were trained at, in downsampled voxels
    jawloc_version: str = __version__

    def predict(self, image: np.ndarray) -> Prediction:
        """Find the objects in a downsampled image (z, y, x) of the locator's size."""
        device = next(self.network.parameters()).device
        values = torch.from_numpy(normalise(image, self.intensity))[None, None].to(device)
        self.network.eval()
        with torch.inference_mode():
            seen = look(self.network, self.network_config.looks(), values, self.sigma_voxels)
            found = seen[-1].decode()
            probability = seen[-1].probability(image.shape)
        return Prediction(
            points_voxels=found.points[0].double().cpu().numpy(),
            spread_voxels=_spread(seen)[0].cpu().numpy(),
            probability=probability[0].cpu().numpy(),
        )

    def locate(self, path: Path) -> list[Localisation]:
        """Find the objects in a full-size scan, which is read slab by slab.

        Raises
        ------
        InputError
            A file that can't be read as a scan, or a scan smaller than the locator's grid.
        """
        scan = open_scan(path)
        prediction = self.predict(downsample_image(scan, self.downsampled_size))
        return self.localise(scan.scan_id, prediction, scan.grid)

    def localise(self, scan_id: str, prediction: Prediction, full: Grid) -> list[Localisation]:
        """Carry a prediction to the full-size grid."""
        points = map_points(prediction.points_voxels, Grid(self.downsampled_size), full)
        mm = voxels_to_mm(points, full)
        return [
            Localisation(
                scan_id=scan_id,
                object_name=name,
                point_voxels=_triple(points[i]),
                point_mm=None if mm is None else _triple(mm[i]),
                spread_voxels=float(prediction.spread_voxels[i]),
            )
            for i, name in enumerate(self.objects)
        ]


def save_locator(locator: Locator, path: Path) -> None:
    """Write everything that using the locator needs into one `.pth`, atomically.

    The file holds tensors (on the CPU) and plain values only, so that it loads with
    weights-only loading on a machine without the training device.
    """
    weights = {name: t.detach().cpu() for name, t in locator.network.state_dict().items()}
    content = {
        "format": FORMAT,
        "jawloc_version": locator.jawloc_version,
        "network": asdict(locator.network_config),
        "downsampled_dicom_size": tuple(locator.downsampled_size),
        "intensity": asdict(locator.intensity),
        "objects": {k: None if v is None else list(v) for k, v in locator.objects.items()},
        "sigma_voxels": float(locator.sigma_voxels),
        "state_dict": weights,
    }
    save_atomically(content, path)


def load_locator(path: Path, device: str = "cpu") -> Locator:
    """Read a locator that `save_locator` wrote.

    Raises
    ------
    InputError
        No such file, not a file of plain weights, or not a locator that jawloc can rebuild.
    """
    content = read_weights_file(Path(path))
    if content.get("format") != FORMAT:
        raise InputError(
            f"{Path(path).name}: not a jawloc locator; it doesn't say which grid, intensity rule "
            f"and network its weights need"
        )
    try:
        locator = _from_content(content)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{Path(path).name}: the weights and settings of a locator must fit together; these, "
            f"of jawloc {content.get('jawloc_version')}, don't"
        ) from error
    locator.network.to(device)
    return locator


def _spread(seen: Sequence[Seen]) -> torch.Tensor:
    """Return the spread of the last look, widened by what the first was unsure of.

    A close look sees its window only: that the object might be elsewhere, the coarse map says, by
    being wider than it should be.
    """
    variance = seen[-1].decode().spread.square()
    for earlier in seen[:-1]:
        variance = variance + earlier.spread_beyond_target().square()
    return variance.sqrt()


def _from_content(content: Mapping[str, Any]) -> Locator:
    # files written before there were coarse looks don't name them
    config = NetworkConfig(**{"coarse": 1, **content["network"]})
    network = build_network(config, len(content["objects"]))
    network.load_state_dict(content["state_dict"])
    return Locator(
        network=network.eval(),
        network_config=config,
        downsampled_size=content["downsampled_dicom_size"],
        intensity=IntensityConfig(**content["intensity"]),
        objects=content["objects"],
        sigma_voxels=content["sigma_voxels"],
        jawloc_version=content["jawloc_version"],
    )


def _triple(values: np.ndarray) -> Triple:
    z, y, x = (float(v) for v in values)
    return z, y, x
