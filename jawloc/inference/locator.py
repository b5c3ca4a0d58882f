"""The trained locator: scan -> positions; saved to and loaded from one file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from jawloc import __version__
from jawloc.errors import InputError
from jawloc.geometry import Grid, Shape, Triple, map_points, voxels_to_mm
from jawloc.inference.ensemble import average_networks, combine_copies
from jawloc.inference.held_out_errors import HeldOutErrors, errors_from_plain, plain_errors
from jawloc.inference.model_content import (
    OF_0_1_0,
    check_calibration,
    check_content,
    check_weights,
    coarse_stride_of,
)
from jawloc.inference.out_of_distribution import ensemble_ood_scores, image_features
from jawloc.inference.predict import Prediction, predict_stages
from jawloc.inference.quality import Calibration, from_plain, to_plain
from jawloc.inference.test_time_augmentation import AugmentedCopy, augmented_copies
from jawloc.scans.downsample import TargetTooLargeError, downsample_image
from jawloc.scans.reading import open_scan
from jawloc.scans.scan import ScanFile
from jawloc.training.checkpoint import read_weights_file, save_atomically
from jawloc.training.intensity import IntensityConfig, normalise
from jawloc.training.network import build_network
from jawloc.training.presence_classifier import (
    INTENSITY,
    PresenceClassifier,
    presence_logits,
)
from jawloc.training.provenance import Provenance
from jawloc.training.provenance import from_plain as provenance_from_plain
from jawloc.training.provenance import to_plain as plain_provenance
from jawloc.training.stages import NetworkConfig

FORMAT = "jawloc-locator-2"
OLD_FORMAT = "jawloc-locator-1"  # of jawloc 0.1.0: one sigma a network, the curriculum's
FORMATS = (OLD_FORMAT, FORMAT)
RENAMED = {  # since jawloc 0.1.0
    "turned_axes": "flipped_axes",
    "variants": "test_time_augmentation",
    "presence": "presence_classifiers",
}


@dataclass(frozen=True)
class Localisation:
    """Where one object is in one full-size scan; lengths in its voxels, and in mm where known.

    The radius is conformal: the sphere round the point holds the truth in a share of at least
    `confidence` of new scans. It is None where too few errors of the locator are known.
    """

    scan_id: str
    object_name: str
    point_voxels: Triple  # (z, y, x), sub-voxel
    point_mm: Triple | None  # point_voxels times the spacing
    # per axis: how much wider the heatmap is than the Gaussian that the network was trained to
    # render, and how far the predictions of networks and augmented copies differ
    spread_voxels: float
    width_voxels: float = 0.0  # per axis: root mean square distance of the heatmap from the point
    radius_voxels: float | None = None
    radius_mm: float | None = None  # along the axis with the longest voxels
    confidence: float | None = None
    status: str = "ok"
    reason: str = ""  # why the status is not "ok"
    radius_note: str = ""  # why there is no radius


@dataclass(frozen=True)
class Locator:
    """One network or an ensemble, and everything that using it needs."""

    networks: tuple[nn.Module, ...]  # at least one, of one configuration
    network_config: NetworkConfig
    downsampled_size: Shape
    intensity: IntensityConfig
    objects: Mapping[str, Sequence[int] | None]  # label values; None: every non-zero one
    sigma_voxels: tuple[tuple[float, ...], ...]  # that each network's stages were trained at
    crop_size: Shape | None = None  # in voxels of the full-size scan
    flipped_axes: tuple[str, ...] = ()  # out of z, y and x: those along which training flipped
    test_time_augmentation: bool = True
    presence_classifiers: tuple[PresenceClassifier, ...] = ()
    calibration: Calibration | None = None  # None where no scan was held out
    provenance: Provenance | None = None  # None: unknown, as with jawloc 0.1.0 and bare weights
    errors: HeldOutErrors | None = None  # None: unknown, as with files of jawloc 0.1.0
    jawloc_version: str = __version__

    def predict(self, image: np.ndarray) -> Prediction:
        """Find the objects in a downsampled image (z, y, x), averaged over networks and copies.

        The mean logit of the presence classifiers is one more out-of-distribution score of the
        objects that all of them were taught.
        """
        device = next(self.networks[0].parameters()).device
        values = torch.from_numpy(normalise(image, self.intensity))[None].to(device)
        images, copies = [values], [AugmentedCopy(image.shape)]
        if self.test_time_augmentation:
            images, copies = augmented_copies(values, self.flipped_axes)
        stages, parts = self.network_config.stages(), []
        with torch.inference_mode():
            for network, sigmas in zip(self.networks, self.sigma_voxels, strict=True):
                predictions = predict_stages(network.eval(), stages, images, sigmas)
                parts.append(combine_copies(predictions, copies, image.shape))
        found = average_networks(parts)
        scores = ensemble_ood_scores(parts, image.shape)
        if self.presence_classifiers:
            if self.intensity != INTENSITY:
                values = torch.from_numpy(normalise(image, INTENSITY))[None].to(device)
            logits = [
                presence_logits(classifier, values[0], found.points, self.flipped_axes)
                for classifier in self.presence_classifiers
            ]
            present = np.mean(logits, axis=0).tolist()
            scores = [
                own if np.isnan(logit) else {**own, "presence": logit}
                for own, logit in zip(scores, present, strict=True)
            ]
        z, y, x = image.shape
        estimates = (found.points, found.spread, found.width, found.probability)
        features, coarse = image_features(image), found.coarse_probability
        return Prediction(*estimates, (z, y, x), tuple(scores), features, coarse)

    def downsample(self, scan: ScanFile) -> np.ndarray:
        """Average a scan onto the locator's grid; InputError if it is too small for that."""
        try:
            return downsample_image(scan, self.downsampled_size)
        except TargetTooLargeError as error:
            raise TargetTooLargeError(
                f"{error}; for smaller scans, train again with a smaller downsampled_dicom_size"
            ) from None

    def warm_up(self) -> None:
        """Predict once for nothing: what PyTorch prepares at its first call is then ready."""
        ramp = np.linspace(0, 1, math.prod(self.downsampled_size), dtype=np.float32)
        self.predict(ramp.reshape(self.downsampled_size))

    def locate(self, path: Path) -> list[Localisation]:
        """Find the objects in a full-size scan; InputError if it can't be read or is too small."""
        scan = open_scan(path)
        prediction = self.predict(self.downsample(scan))
        return self.localise(scan.scan_id, prediction, scan.grid)

    def localise(self, scan_id: str, prediction: Prediction, full: Grid) -> list[Localisation]:
        """Map a prediction to the full-size grid, with the radius and quality of each position.

        Raise InputError if a position isn't finite, as by weights that are too large.
        """
        if not np.isfinite(prediction.points_voxels).all():
            raise InputError(
                f"{scan_id}: positions must be finite; with this model they aren't, as its weights "
                f"or the scan's grey values are too large"
            )
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
                **self._radius_and_quality(i, name, widths[i], prediction, full),
            )
            for i, name in enumerate(self.objects)
        ]

    def _radius_and_quality(
        self, index: int, name: str, width: float, prediction: Prediction, full: Grid
    ) -> dict[str, Any]:
        if self.calibration is None:
            reason = "the model's errors are unknown"
            return {"status": "uncertain", "reason": reason, "radius_note": f"unknown: {reason}"}
        scores, raw = prediction.ood_scores[index], self.intensity.rule == "raw"
        features, reference = prediction.image_features, self.calibration.objects[name]
        quality = self.calibration.assess_quality(name, features, full, scores, raw_input=raw)
        fields = {"status": quality.status, "reason": quality.reason}
        if reference.conformal is None:
            return {**fields, "radius_note": reference.radius_note}
        radius, spacing = reference.conformal.radius(width), full.spacing_mm_zyx
        return {
            **fields,
            "radius_voxels": radius,
            "radius_mm": None if spacing is None else radius * max(spacing),
            "confidence": reference.conformal.confidence,
        }


def to_full_size(lengths: np.ndarray, prediction: Prediction, full: Grid) -> list[float]:
    """Scale lengths without direction by the geometric mean of the grids' ratios along the axes."""
    ratios = np.divide(full.shape_zyx, prediction.shape_zyx)
    return [float(length * np.prod(ratios) ** (1 / 3)) for length in lengths]


def save_locator(locator: Locator, path: Path) -> None:
    """Write a locator into one `.pth`, atomically, as CPU tensors and plain values only."""
    calibration, provenance = locator.calibration, locator.provenance
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
        "calibration": calibration and to_plain(calibration),
        "provenance": provenance and plain_provenance(provenance),
        "errors": plain_errors(locator.errors),
        "state_dicts": [_weights(network) for network in locator.networks],
        "presence_classifiers": [_weights(network) for network in locator.presence_classifiers],
    }
    save_atomically(content, path)


def _weights(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu() for name, tensor in network.state_dict().items()}


def load_locator(path: Path, device: str = "cpu") -> Locator:
    """Read a locator that `save_locator` wrote; an InputError says what is wrong with the file."""
    content = read_weights_file(Path(path))
    if content.get("format") not in FORMATS:
        raise InputError(
            f"{Path(path).name}: not a jawloc locator; it doesn't say which grid, intensity rule "
            f"and network its weights need"
        )
    try:
        locator = _from_content(content)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{Path(path).name}: the weights and settings of a locator must fit together; these, "
            f"of jawloc {content.get('jawloc_version')}, don't"
        ) from error
    for network in (*locator.networks, *locator.presence_classifiers):
        network.to(device)
    return locator


def _from_content(content: Mapping[str, Any]) -> Locator:
    content = {RENAMED.get(key, key): value for key, value in content.items()}
    # the first files of jawloc 0.1.0 had no coarse stage, and one network instead of a list
    of_0_1_0 = {"coarse": 1, "skip_connections": "concatenate", "mask_supervision": False}
    state_dicts = content.get("state_dicts") or [content["state_dict"]]
    network = {"coarse_stride": coarse_stride_of(state_dicts[0]), **content["network"]}
    config = NetworkConfig(**{**of_0_1_0, **network})
    sigmas = content["sigma_voxels"]
    if content["format"] == OLD_FORMAT:
        sigmas = _sigmas_of_0_1_0(config, sigmas if isinstance(sigmas, list) else [sigmas])
    if {len(own) for own in sigmas} != {len(config.stages())}:
        raise ValueError("a sigma for each stage of each network")
    values = {**OF_0_1_0, **content, "sigma_voxels": sigmas}
    intensity = IntensityConfig(**content["intensity"])
    check_content(values, config, intensity)
    count = len(content["objects"])
    calibration, provenance = content.get("calibration"), content.get("provenance")
    calibration = calibration and from_plain(calibration)
    if calibration:
        check_calibration(calibration, list(content["objects"]), content["downsampled_dicom_size"])
    return Locator(
        networks=_with_weights(state_dicts, lambda: build_network(config, count)),
        network_config=config,
        downsampled_size=content["downsampled_dicom_size"],
        intensity=intensity,
        objects=content["objects"],
        sigma_voxels=tuple(tuple(own) for own in sigmas),
        crop_size=values["crop_size"],
        flipped_axes=tuple(values["flipped_axes"]),
        test_time_augmentation=values["test_time_augmentation"],
        presence_classifiers=_with_weights(
            content.get("presence_classifiers", ()), lambda: PresenceClassifier(count)
        ),
        calibration=calibration,
        provenance=provenance and provenance_from_plain(provenance),
        errors=errors_from_plain(content.get("errors")),
        jawloc_version=content["jawloc_version"],
    )


def _with_weights(
    state_dicts: Sequence[Mapping[str, torch.Tensor]], build: Callable[[], nn.Module]
) -> tuple[Any, ...]:
    check_weights(state_dicts, build)
    networks = tuple(build().eval() for _ in state_dicts)
    for network, weights in zip(networks, state_dicts, strict=True):
        network.load_state_dict(weights)
    return networks


def _sigmas_of_0_1_0(config: NetworkConfig, sigmas: Sequence[float]) -> list[list[float]]:
    """Return each stage's sigma from the curriculum's, the only one in files of jawloc 0.1.0."""
    stages = config.stages()
    if len(stages) == 1:
        return [[sigma] for sigma in sigmas]
    least = 0.375 * stages[0].heatmap_stride  # limits at which that version trained
    most = min(stages[1].window or ()) / 16
    return [[max(sigma, least), min(sigma, most)] for sigma in sigmas]


def _triple(values: np.ndarray) -> Triple:
    z, y, x = (float(v) for v in values)
    return z, y, x
