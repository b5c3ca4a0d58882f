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
from jawloc.locating.calibration import Calibration, from_plain, to_plain
from jawloc.locating.opinions import Opinion, Variant, agree, opinion, variants
from jawloc.locating.signs import ScanLook, look_of_scan, signs_of_networks
from jawloc.scans.downsample import downsample_image
from jawloc.scans.reading import open_scan
from jawloc.training.checkpoint import read_weights_file, save_atomically
from jawloc.training.intensity import IntensityConfig, normalise
from jawloc.training.looks import look
from jawloc.training.network import NetworkConfig, build_network
from jawloc.training.presence import INTENSITY, PresenceNetwork, presence_logits
from jawloc.training.provenance import Provenance
from jawloc.training.provenance import from_plain as provenance_from_plain
from jawloc.training.provenance import to_plain as plain_provenance

FORMAT = "jawloc-locator-2"
OLD_FORMAT = "jawloc-locator-1"  # of jawloc 0.1.0: one sigma a network, the curriculum's
FORMATS = (OLD_FORMAT, FORMAT)


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
class Prediction:
    """What the network says of one downsampled image.

    Attributes
    ----------
    points_voxels : array, shape (object, 3), voxels of the downsampled grid
    spread_voxels, width_voxels : arrays, shape (object,), voxels of the downsampled grid
        As in `Localisation`; of several networks, the width is that of a single one's map.
    probability : array, shape (object, z, y, x), on the heatmap's own, coarser grid; zero where
        a close look did not reach
    shape_zyx : of the downsampled grid
    signs : of each object's position, by name (see signs.py)
    look : what the image itself looks like
    """

    points_voxels: np.ndarray
    spread_voxels: np.ndarray
    width_voxels: np.ndarray
    probability: np.ndarray
    shape_zyx: Shape
    signs: tuple[Mapping[str, float], ...]
    look: ScanLook


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
    turned_axes : out of z, y and x: those along which training turned scans over
    variants : whether changed copies of an image are looked at too
    presence : what says whether the place found shows the object, averaged over several; may be
        none
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
    turned_axes: tuple[str, ...] = ()
    variants: bool = True
    presence: tuple[PresenceNetwork, ...] = ()
    calibration: Calibration | None = None
    provenance: Provenance | None = None
    jawloc_version: str = __version__

    def predict(self, image: np.ndarray) -> Prediction:
        """Find the objects in a downsampled image (z, y, x) of the locator's size."""
        device = next(self.networks[0].parameters()).device
        values = torch.from_numpy(normalise(image, self.intensity))[None, None].to(device)
        every, copies = values, [Variant(image.shape)]
        if self.variants:
            every, copies = variants(values, self.turned_axes)
        parts: list[Opinion] = []
        with torch.inference_mode():
            for network, sigmas in zip(self.networks, self.sigma_voxels, strict=True):
                seen = look(network.eval(), self.network_config.looks(), every, sigmas)
                parts.append(opinion(seen, copies, image.shape))
        found = agree(parts)
        signs = signs_of_networks(parts, image.shape)
        if self.presence:
            own = values[0, 0]
            if self.intensity != INTENSITY:
                own = torch.from_numpy(normalise(image, INTENSITY)).to(device)
            asked = [presence_logits(n, own, found.points, self.turned_axes) for n in self.presence]
            there = np.mean(asked, axis=0)
            signs = [{**sign, "presence": float(there[i])} for i, sign in enumerate(signs)]
        return Prediction(
            points_voxels=found.points,
            spread_voxels=found.spread,
            width_voxels=found.width,
            probability=found.probability,
            shape_zyx=self.downsampled_size,
            signs=tuple(signs),
            look=look_of_scan(image),
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
        verdict = self.calibration.judge(
            name,
            prediction.look,
            full,
            prediction.signs[index],
            sees_grey_scale=self.intensity.rule == "raw",
        )
        known = self.calibration.objects[name]
        trust = {"status": verdict.status, "reason": verdict.reason}
        if known.ball is None:
            return {**trust, "radius_note": known.why_no_radius}
        radius, spacing = known.ball.radius(width), full.spacing_mm_zyx
        return {
            **trust,
            "radius_voxels": radius,
            "radius_mm": None if spacing is None else radius * max(spacing),
            "confidence": known.ball.confidence,
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
    known, seen = locator.calibration, locator.provenance
    content = {
        "format": FORMAT,
        "jawloc_version": locator.jawloc_version,
        "network": asdict(locator.network_config),
        "downsampled_dicom_size": tuple(locator.downsampled_size),
        "intensity": asdict(locator.intensity),
        "objects": {k: None if v is None else list(v) for k, v in locator.objects.items()},
        "sigma_voxels": [[float(sigma) for sigma in own] for own in locator.sigma_voxels],
        "crop_size": None if locator.crop_size is None else tuple(locator.crop_size),
        "turned_axes": list(locator.turned_axes),
        "variants": locator.variants,
        "calibration": None if known is None else to_plain(known),
        "provenance": None if seen is None else plain_provenance(seen),
        "state_dicts": [_weights(network) for network in locator.networks],
        "presence": [_weights(network) for network in locator.presence],
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
    for network in (*locator.networks, *locator.presence):
        network.to(device)
    return locator


def _from_content(content: Mapping[str, Any]) -> Locator:
    # files written before there were coarse looks don't name them
    config = NetworkConfig(**{"coarse": 1, **content["network"]})
    # nor do files from before there were ensembles hold lists
    every = content.get("state_dicts") or [content["state_dict"]]
    sigmas = content["sigma_voxels"]
    if content["format"] == OLD_FORMAT:
        sigmas = _sigmas_of_0_1_0(config, sigmas if isinstance(sigmas, list) else [sigmas])
    if {len(own) for own in sigmas} != {len(config.looks())}:
        raise ValueError("a sigma for each stage of each network")
    networks = [build_network(config, len(content["objects"])).eval() for _ in every]
    for network, weights in zip(networks, every, strict=True):
        network.load_state_dict(weights)
    asked = content.get("presence", ())
    presence_networks = [PresenceNetwork(len(content["objects"])).eval() for _ in asked]
    for presence_network, weights in zip(presence_networks, asked, strict=True):
        presence_network.load_state_dict(weights)
    known, seen = content.get("calibration"), content.get("provenance")
    return Locator(
        networks=tuple(networks),
        network_config=config,
        downsampled_size=content["downsampled_dicom_size"],
        intensity=IntensityConfig(**content["intensity"]),
        objects=content["objects"],
        sigma_voxels=tuple(tuple(own) for own in sigmas),
        crop_size=content.get("crop_size"),
        turned_axes=tuple(content.get("turned_axes", ())),
        variants=content.get("variants", True),
        presence=tuple(presence_networks),
        calibration=None if known is None else from_plain(known),
        provenance=None if seen is None else provenance_from_plain(seen),
        jawloc_version=content["jawloc_version"],
    )


def _sigmas_of_0_1_0(config: NetworkConfig, sigmas: Sequence[float]) -> list[list[float]]:
    """Return the sigmas that networks were trained at whose files hold the curriculum's alone.

    Two stages shared it: the coarse one was trained at 0.375 of its heatmap voxels at least, the
    fine one at a sixteenth of its window at most. Both numbers are of that version and stay so.
    """
    looks = config.looks()
    if len(looks) == 1:
        return [[sigma] for sigma in sigmas]
    least = 0.375 * looks[0].heatmap_stride
    most = min(looks[1].window or ()) / 16
    return [[max(sigma, least), min(sigma, most)] for sigma in sigmas]


def _triple(values: np.ndarray) -> Triple:
    z, y, x = (float(v) for v in values)
    return z, y, x
