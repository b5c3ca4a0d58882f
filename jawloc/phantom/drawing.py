"""Draws the parameters of a phantom from the statistics of real scans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jawloc.errors import InputError
from jawloc.geometry import Grid, Shape
from jawloc.phantom.anatomy import JAW_TO_OTOLITHS_HEADS, OTOLITHS_HEADS, Fish
from jawloc.phantom.scanner import GreyLevels
from jawloc.phantom.skeleton import jaw as jaw_bones
from jawloc.phantom.tissue import Pose, path_terms

# Source of the numbers below: 465 real scans, Jean Golding Institute, University of Bristol, MIT.
# Quantiles at these probabilities, and the correlations of their normal scores.
PROBABILITIES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
FISH_LENGTH_MM = (14.89, 17.26, 19.37, 24.94, 27.95, 30.26, 33.80, 35.43, 40.11)
AGE_MONTHS = (3.0, 3.0, 3.0, 8.0, 12.0, 24.0, 30.0, 36.0, 36.0)
VOXEL_MM = (0.0199, 0.0199, 0.0200, 0.0201, 0.0210, 0.0222, 0.0231, 0.0235, 0.0235)
JAW_HEIGHT_SHARE = (0.5395, 0.6338, 0.6752, 0.7530, 0.8030, 0.8460, 0.8950, 0.9169, 0.9655)
CORRELATIONS = (
    # length, age, voxel, height
    (1.00, 0.50, 0.22, 0.40),
    (0.50, 1.00, 0.37, 0.09),
    (0.22, 0.37, 1.00, -0.07),
    (0.40, 0.09, -0.07, 1.00),
)
NATIVE_SHAPE: Shape = (2000, 600, 600)
# The jaw's place (y, x) from the tube's axis, in mm: mean and standard deviation. Most real fish
# turn their back towards -y.
JAW_YX_MEAN_MM, JAW_YX_SD_MM = (0.63, -0.06), (1.48, 1.75)
# The otoliths lie this far below the jaw: mm at a length, slope, standard deviation.
OTOLITH_BELOW_JAW = (2.27, 0.0832, 0.509)
# The otoliths' (y, x), given the jaw's: constant, share of the jaw's, standard deviation.
OTOLITH_YX_MM, OTOLITH_YX_SHARE, OTOLITH_YX_SD = (-1.54, 0.0), 0.65, (0.55, 0.68)

DRAW, MOTTLE, RINGS = (0, 1, 2)  # purposes that seeds are derived for (and NOISE in the scanner)


@dataclass(frozen=True)
class Phantom:
    """The parameters from which one phantom is rendered.

    Attributes
    ----------
    seed : int
    grid : Grid
        Shape and spacing to render.
    age_months : float
    fish, pose, grey_levels
        The animal, its position in the tube, the scan's grey levels.
    arch_labels : bool
        Whether the mask labels the lower arch 1 and the upper arch 2; otherwise both are 1.
    """

    seed: int
    grid: Grid
    age_months: float
    fish: Fish
    pose: Pose
    grey_levels: GreyLevels
    arch_labels: bool = False


def seeded_generator(seed: int, purpose: int) -> np.random.Generator:
    """Return a random generator for one seed and one purpose."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose])))


def draw_phantom(
    seed: int,
    shape_zyx: Sequence[int] = NATIVE_SHAPE,
    *,
    any_rotation: bool = True,
    arch_labels: bool = False,
) -> Phantom:
    """Draw the parameters of a phantom.

    Parameters
    ----------
    seed : int
        The same seed is the same fish in the same place at every shape.
    shape_zyx : three ints
        Grid to render; it spans the same space whatever its shape.
    any_rotation : bool
        Turn each fish by a random angle about the tube's axis. Without it the back points about
        to -y, as in most of the real scans.
    arch_labels : bool
        Label the lower arch 1 and the upper arch 2 instead of both 1.

    Raises
    ------
    InputError
        Where the shape has an axis under 8 voxels.
    """
    if len(shape_zyx) != 3 or min(shape_zyx) < 8:
        raise InputError(
            f"phantom: a shape is three numbers of at least 8 voxels; {tuple(shape_zyx)}"
        )
    rng = seeded_generator(seed, DRAW)
    scores = np.linalg.cholesky(np.array(CORRELATIONS)) @ rng.standard_normal(4)
    shares = [0.5 * (1 + math.erf(score / math.sqrt(2))) for score in scores]
    columns = (FISH_LENGTH_MM, AGE_MONTHS, VOXEL_MM, JAW_HEIGHT_SHARE)
    length, age, voxel, height = (
        float(np.interp(share, PROBABILITIES, column))
        for share, column in zip(shares, columns, strict=True)
    )
    native = Grid(NATIVE_SHAPE, (voxel, voxel, voxel))
    below = OTOLITH_BELOW_JAW[0] + OTOLITH_BELOW_JAW[1] * length
    below += OTOLITH_BELOW_JAW[2] * float(np.clip(rng.standard_normal(), -2.5, 2.5))
    fish = Fish(
        length_mm=length,
        head_mm=below / JAW_TO_OTOLITHS_HEADS,
        depth_mm=length * rng.uniform(0.215, 0.275),
        width_ratio=rng.uniform(0.88, 1.15),
        gape_radians=rng.uniform(0.0, 0.35),
        fin_fold=rng.uniform(0.0, 1.0),
        shape_seed=int(rng.integers(2**31)),
    )
    tube_radius = 0.49 * NATIVE_SHAPE[1] * voxel
    jaw_z = (height * NATIVE_SHAPE[0] + 0.5) * voxel
    pose = _draw_pose(rng, fish, jaw_z, tube_radius, any_rotation)
    grey_levels = _draw_grey_levels(rng, tube_radius, age)
    return Phantom(
        seed, native.resized(shape_zyx), float(round(age)), fish, pose, grey_levels, arch_labels
    )


def _draw_pose(
    rng: np.random.Generator, fish: Fish, jaw_z: float, tube_radius: float, any_rotation: bool
) -> Pose:
    jaw = np.array(JAW_YX_MEAN_MM) + np.array(JAW_YX_SD_MM) * rng.standard_normal(2)
    jaw *= min(1.0, (tube_radius - 1.4) / float(np.linalg.norm(jaw)))
    otolith = np.array(OTOLITH_YX_MM) + OTOLITH_YX_SHARE * jaw
    otolith = otolith + np.array(OTOLITH_YX_SD) * rng.standard_normal(2)
    tail = rng.normal(0, 0.9, 2)
    lean = otolith - jaw
    # The back points to -y, somewhat towards where the otoliths lie from the jaw.
    towards = math.atan2(lean[1], -lean[0]) if lean[0] < 0 else 0.0
    dorsal = math.pi - 0.5 * towards + rng.normal(0, 0.2)
    turn = rng.uniform(0, 2 * math.pi) if any_rotation else 0.0
    cos, sin = math.cos(turn), math.sin(turn)
    jaw, otolith, tail = (p @ np.array([[cos, sin], [-sin, cos]]) for p in (jaw, otolith, tail))
    dorsal += turn
    jaw_s, jaw_d, _ = jaw_bones(fish).centroid_mm()
    back = np.array([math.cos(dorsal), math.sin(dorsal)])
    otolith_s, otolith_d = np.array(OTOLITHS_HEADS) * fish.head_mm
    knots = np.stack([jaw - jaw_d * back, otolith - otolith_d * back, tail])
    bend = 0.3 * fish.length_mm
    terms = path_terms(np.array([jaw_s, otolith_s, fish.length_mm]), bend)
    return Pose(jaw_z + jaw_s, np.linalg.solve(terms, knots), bend, dorsal)


def _draw_grey_levels(rng: np.random.Generator, tube_radius: float, age: float) -> GreyLevels:
    return GreyLevels(
        medium=rng.uniform(0.05, 0.55),
        plastic=rng.uniform(0.45, 0.9),
        bone_contrast=rng.uniform(1.5, 2.6) + 0.015 * age,
        texture=rng.uniform(0.04, 0.10),
        noise=rng.uniform(0.06, 0.20),
        rings=rng.uniform(0.03, 0.12),
        shading=rng.uniform(0.0, 0.08),
        gain=math.exp(rng.uniform(math.log(3500), math.log(9500))),
        offset=rng.uniform(800, 6000),
        tube_radius_mm=tube_radius,
    )
