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
from jawloc.inference.predict import Prediction, predict
from jawloc.inference.quality import Calibration, from_plain, to_plain
from jawloc.scans.downsample import downsample_image
from jawloc.scans.reading import open_scan
from jawloc.training.checkpoint import read_weights_file, save_atomically
from jawloc.training.intensity import IntensityConfig
from jawloc.training.network import build_network
from jawloc.training.presence_classifier import PresenceClassifier
from jawloc.training.provenance import Provenance
from jawloc.training.provenance import from_plain as provenance_from_plain
from jawloc.training.provenance import to_plain as plain_provenance
from jawloc.training.stages import NetworkConfig

FORMAT = "jawloc-locator-2"
OLD_FORMAT = "jawloc-locator-1"  # of jawloc 0.1.0: one sigma a network, the curriculum's
FORMATS = (OLD_FORMAT, FORMAT)
# What files of jawloc 0.1.0 call these.
RENAMED = {
    "turned_axes": "flipped_axes",
    "variants": "test_time_augmentation",
    "presence": "presence_classifiers",
}


@dataclass(frozen=True)
class Localisation:
    """Where one object is in one full-size scan.

    Attributes
    ----------
    point_voxels : (z, y, x) in voxels of the full-size scan, sub-voxel
    point_mm : point_voxels times the spacing; None where the spacing is unknown
    spread_voxels : by how much, per axis, the probability map is wider than the Gaussian that the
        network was trained to give, and the answers of networks and of changed copies differ; in
        voxels of the full-size scan
    width_voxels : root mean square distance, per axis, of the probability map from the point,
        the Gaussian's own width included; likewise
    radius_voxels : of the sphere round the point that holds the truth, in voxels of the full-size
        scan; None where too little is known of the locator's errors
    radius_mm : the same along the axis on which voxels are longest; None where the spacing is
        unknown
    confidence : share of new scans in which that is so, at least
    status : "ok", "uncertain" or "not found"
    reason : what is odd, where the status is not "ok"
    radius_note : why there is no radius, where there is none
    """

    scan_id: str
    object_name: str
    point_voxels: Triple
    point_mm: Triple | None
    spread_voxels: float
    width_voxels: float = 0.0
    radius_voxels: float | None = None
    radius_mm: float | None = None
    confidence: float | None = None
    status: str = "ok"
    reason: str = ""
    radius_note: str = ""


@dataclass(frozen=True)
class Locator:
    """A trained network, or several whose answers are averaged, and all that using them needs.

    Attributes
    ----------
    networks : at least one, of one configuration
    sigma_voxels : that the kept weights of each network's stages were trained at, in order, in
        downsampled voxels; the last stage gives the position
    crop_size : (z, y, x) of the crops, in voxels of the full-size scan; None where the file
        doesn't say
    flipped_axes : out of z, y and x: those along which training turned scans over
    test_time_augmentation : whether changed copies of an image are looked at too
    presence_classifiers : whose logits, averaged, tell whether the place found shows the object;
        may be none
    calibration : how far to trust it; None where no scan was held out
    provenance : what it has seen; None where the file doesn't say (jawloc 0.1.0, bare weights)
    """

    networks: tuple[nn.Module, ...]
    network_config: NetworkConfig
    downsampled_size: Shape
    intensity: IntensityConfig
    objects: Mapping[str, Sequence[int] | None]
    sigma_voxels: tuple[tuple[float, ...], ...]
    crop_size: Shape | None = None
    flipped_axes: tuple[str, ...] = ()
    test_time_augmentation: bool = True
    presence_classifiers: tuple[PresenceClassifier, ...] = ()
    calibration: Calibration | None = None
    provenance: Provenance | None = None
    jawloc_version: str = __version__

    def predict(self, image: np.ndarray) -> Prediction:
        """Find the objects in a downsampled image (z, y, x) of the locator's size."""
        return predict(
            image,
            self.networks,
            self.network_config.stages(),
            self.sigma_voxels,
            self.intensity,
            test_time_augmentation=self.test_time_augmentation,
            flipped_axes=self.flipped_axes,
            presence_classifiers=self.presence_classifiers,
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
        """Carry a prediction to the full-size grid, and say how far to trust it."""
        points = map_points(prediction.points_voxels, Grid(self.downsampled_size), full)
        mm = voxels_to_mm(points, full)
        spreads = to_full_size(prediction.spread_voxels, prediction, full)
        widths = to_full_size(prediction.width_voxels, prediction, full)
        return [
            Localisation(
                scan_id=scan_id,
                object_name=name,
                point_voxels=_triple(points[i]),
                point_mm=None if mm is None else _triple(mm[i]),
                spread_voxels=spreads[i],
                width_voxels=widths[i],
                **self._trust(i, name, widths[i], prediction, full),
            )
            for i, name in enumerate(self.objects)
        ]

    def _trust(
        self, index: int, name: str, width: float, prediction: Prediction, full: Grid
    ) -> dict[str, Any]:
        if self.calibration is None:
            unknown = "nothing is known of this model's errors"
            return {"status": "uncertain", "reason": unknown, "radius_note": f"unknown: {unknown}"}
        quality = self.calibration.assess_quality(
            name,
            prediction.image_features,
            full,
            prediction.ood_scores[index],
            sees_grey_scale=self.intensity.rule == "raw",
        )
        known = self.calibration.objects[name]
        trust = {"status": quality.status, "reason": quality.reason}
        if known.conformal is None:
            return {**trust, "radius_note": known.why_no_radius}
        radius, spacing = known.conformal.radius(width), full.spacing_mm_zyx
        return {
            **trust,
            "radius_voxels": radius,
            "radius_mm": None if spacing is None else radius * max(spacing),
            "confidence": known.conformal.confidence,
        }


def to_full_size(lengths: np.ndarray, prediction: Prediction, full: Grid) -> list[float]:
    """Return lengths on the downsampled grid in voxels of the full-size one.

    They are of no direction, so that the geometric mean of the axes' ratios counts.
    """
    ratios = np.divide(full.shape_zyx, prediction.shape_zyx)
    return [float(length * np.prod(ratios) ** (1 / 3)) for length in lengths]


def save_locator(locator: Locator, path: Path) -> None:
    """Write everything that using the locator needs into one `.pth`, atomically.

    The file holds tensors (on the CPU) and plain values only, so that it loads with
    weights-only loading on a machine without the training device.
    """
    known, stage_predictions = locator.calibration, locator.provenance
    content = {
        "format": FORMAT,
        "jawloc_version": locator.jawloc_version,
        "network": asdict(locator.network_config),
        "downsampled_dicom_size": tuple(locator.downsampled_size),
        "intensity": asdict(locator.intensity),
        "objects": {k: None if v is None else list(v) for k, v in locator.objects.items()},
        "sigma_voxels": [[float(sigma) for sigma in own] for own in locator.sigma_voxels],
        "crop_size": None if locator.crop_size is None else tuple(locator.crop_size),
        "flipped_axes": list(locator.flipped_axes),
        "test_time_augmentation": locator.test_time_augmentation,
        "calibration": None if known is None else to_plain(known),
        "provenance": None if stage_predictions is None else plain_provenance(stage_predictions),
        "state_dicts": [_weights(network) for network in locator.networks],
        "presence_classifiers": [_weights(network) for network in locator.presence_classifiers],
    }
    save_atomically(content, path)


def _weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def load_locator(path: Path, device: str = "cpu") -> Locator:
    """Read a locator that `save_locator` wrote.

    Raises
    ------
    InputError
        No such file, not a file of plain weights, or not a locator that jawloc can rebuild.
    """
    content = read_weights_file(Path(path))
    if content.get("format") not in FORMATS:
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
    for network in (*locator.networks, *locator.presence_classifiers):
        network.to(device)
    return locator


def _from_content(content: Mapping[str, Any]) -> Locator:
    content = {RENAMED.get(key, key): value for key, value in content.items()}
    # files written before there was a coarse stage don't name it
    config = NetworkConfig(**{"coarse": 1, **content["network"]})
    # nor do files from before there were ensembles hold lists
    every = content.get("state_dicts") or [content["state_dict"]]
    sigmas = content["sigma_voxels"]
    if content["format"] == OLD_FORMAT:
        sigmas = _sigmas_of_0_1_0(config, sigmas if isinstance(sigmas, list) else [sigmas])
    if {len(own) for own in sigmas} != {len(config.stages())}:
        raise ValueError("a sigma for each stage of each network")
    networks = [build_network(config, len(content["objects"])).eval() for _ in every]
    for network, weights in zip(networks, every, strict=True):
        network.load_state_dict(weights)
    logits = content.get("presence_classifiers", ())
    presence_networks = [PresenceClassifier(len(content["objects"])).eval() for _ in logits]
    for presence_network, weights in zip(presence_networks, logits, strict=True):
        presence_network.load_state_dict(weights)
    known, stage_predictions = content.get("calibration"), content.get("provenance")
    return Locator(
        networks=tuple(networks),
        network_config=config,
        downsampled_size=content["downsampled_dicom_size"],
        intensity=IntensityConfig(**content["intensity"]),
        objects=content["objects"],
        sigma_voxels=tuple(tuple(own) for own in sigmas),
        crop_size=content.get("crop_size"),
        flipped_axes=tuple(content.get("flipped_axes", ())),
        test_time_augmentation=content.get("test_time_augmentation", True),
        presence_classifiers=tuple(presence_networks),
        calibration=None if known is None else from_plain(known),
        provenance=None if stage_predictions is None else provenance_from_plain(stage_predictions),
        jawloc_version=content["jawloc_version"],
    )


def _sigmas_of_0_1_0(config: NetworkConfig, sigmas: Sequence[float]) -> list[list[float]]:
    """Return the sigmas that networks were trained at whose files hold the curriculum's alone.

    Two stages shared it: the coarse one was trained at 0.375 of its heatmap voxels at least, the
    fine one at a sixteenth of its window at most. Both numbers are of that version and stay so.
    """
    stages = config.stages()
    if len(stages) == 1:
        return [[sigma] for sigma in sigmas]
    least = 0.375 * stages[0].heatmap_stride
    most = min(stages[1].window or ()) / 16
    return [[max(sigma, least), min(sigma, most)] for sigma in sigmas]


def _triple(values: np.ndarray) -> Triple:
    z, y, x = (float(v) for v in values)
    return z, y, x
