"""The measures and outlines of an adult zebrafish, in millimetres, before it is posed in a tube.

Fish axes are (s, d, l): s from the snout's tip towards the tail, d towards the back, l towards
the fish's left. The tables are drawn by eye from the general anatomy of the animal, not from any
scan.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# From the jaw's centroid to the otoliths, in head lengths: a head's length follows from it and
# from the distance in mm, which the table of real scans gives.
JAW_TO_OTOLITHS_HEADS = 0.66
OTOLITHS_HEADS = (0.84, 0.13)  # (s, d) of their middle
VERTEBRAE = 31

# The body's outline at stations u (0 snout, 1 end of the head, 4 end of the body): upper and lower
# edge and half width, in head lengths up to u = 0.4 and in greatest body depths from u = 1.2.
OUTLINE = np.array(
    [
        # u     upper   lower  half width
        [0.00, -0.015, -0.065, 0.045],
        [0.03, 0.030, -0.115, 0.095],
        [0.10, 0.080, -0.170, 0.150],
        [0.30, 0.205, -0.265, 0.225],
        [0.60, 0.340, -0.360, 0.280],
        [1.00, 0.425, -0.460, 0.315],
        [1.40, 0.475, -0.525, 0.320],
        [1.80, 0.475, -0.520, 0.305],
        [2.20, 0.435, -0.440, 0.260],
        [2.70, 0.335, -0.310, 0.195],
        [3.20, 0.235, -0.225, 0.135],
        [3.60, 0.195, -0.190, 0.090],
        [3.85, 0.200, -0.200, 0.060],
        [3.97, 0.180, -0.180, 0.040],
        [4.03, 0.040, -0.040, 0.020],
    ]
)


def _smooth_outline() -> np.ndarray:
    """Return OUTLINE's columns (4, n) on a fine, rounded scale of stations."""
    fine = np.linspace(0, 1, 241) ** 1.7 * OUTLINE[-1, 0]
    columns = np.stack([np.interp(fine, OUTLINE[:, 0], OUTLINE[:, k]) for k in (1, 2, 3)])
    for _ in range(40):
        columns[:, 1:-1] = columns[:, 1:-1] / 2 + (columns[:, :-2] + columns[:, 2:]) / 4
    return np.concatenate([fine[None], columns])


_SMOOTH_OUTLINE = _smooth_outline()


@dataclass(frozen=True)
class Fish:
    """One fish's measures.

    Attributes
    ----------
    length_mm : float
        From the snout's tip to the end of the backbone (standard length).
    head_mm, depth_mm, width_ratio : float
        Length of the head; greatest depth of the body; width relative to the outline's.
    gape_radians, fin_fold : float
        How far the lower jaw is dropped; 0 for fins spread, 1 for fins folded back.
    shape_seed : int
        Seed of the small differences between bones.
    """

    length_mm: float
    head_mm: float
    depth_mm: float
    width_ratio: float
    gape_radians: float
    fin_fold: float
    shape_seed: int

    def outline_mm(self, s_mm: np.ndarray | float) -> np.ndarray:
        """Return the cross-sections' (centre d, half depth, half width), shape (3, ...)."""
        s = np.asarray(s_mm, float)
        trunk = (self.length_mm - self.head_mm) / 3
        u = np.where(s < self.head_mm, s / self.head_mm, 1 + (s - self.head_mm) / trunk)
        place = np.interp(u, _SMOOTH_OUTLINE[0], np.arange(_SMOOTH_OUTLINE.shape[1]))
        low = np.minimum(place.astype(int), _SMOOTH_OUTLINE.shape[1] - 2)
        part = place - low
        upper, lower, half = (
            _SMOOTH_OUTLINE[1:, low] * (1 - part) + _SMOOTH_OUTLINE[1:, low + 1] * part
        )
        scale = np.interp(u, [0.4, 1.2], [self.head_mm, self.depth_mm])
        return np.stack([(upper + lower) / 2, (upper - lower) / 2, half * self.width_ratio]) * scale

    def skin_mm(
        self, s_mm: np.ndarray | float, angle: np.ndarray | float, inset: float = 1.0
    ) -> np.ndarray:
        """Return points (..., 3) on the left skin; angle 0 is the back's ridge, pi the belly."""
        centre, depth, half = self.outline_mm(s_mm)
        d = centre + inset * depth * np.cos(angle)
        return np.stack(np.broadcast_arrays(s_mm, d, inset * half * np.sin(angle)), -1)

    def kept_inside(self, points_mm: np.ndarray, limit: float = 0.93) -> np.ndarray:
        """Pull points (n, 3) that stick out of the skin back under it."""
        centre, depth, half = self.outline_mm(points_mm[:, 0])
        d, side = points_mm[:, 1] - centre, points_mm[:, 2]
        pull = limit / np.maximum(np.hypot(d / depth, side / half), limit)
        return np.stack([points_mm[:, 0], centre + pull * d, pull * side], 1)

    def column_mm(self, s_mm: np.ndarray | float) -> np.ndarray:
        """Return the backbone's d at s."""
        share = (self.length_mm - np.asarray(s_mm)) / (self.length_mm - self.head_mm)
        return 0.055 * self.head_mm * np.clip(share, 0, 1.2)


# Bones of the left half of the head: name, density, radius and path (s, d, l), in head lengths.
# A bone with any l above zero has a mirror image on the right.
Bone = tuple[str, float, float, tuple[tuple[float, float, float], ...]]
JAW_BONES: tuple[Bone, ...] = (
    (
        "dentary",
        0.95,
        0.018,
        (
            (0.36, -0.165, 0.135),
            (0.26, -0.165, 0.125),
            (0.15, -0.140, 0.100),
            (0.065, -0.105, 0.055),
            (0.035, -0.080, 0.000),
        ),
    ),
    ("coronoid", 0.9, 0.016, ((0.29, -0.160, 0.130), (0.235, -0.105, 0.128))),
    ("dentary blade", 0.9, 0.014, ((0.24, -0.135, 0.122), (0.14, -0.118, 0.094))),
    (
        "premaxilla",
        0.9,
        0.017,
        ((0.25, -0.085, 0.128), (0.15, -0.050, 0.100), (0.07, -0.020, 0.055), (0.04, -0.008, 0.0)),
    ),
    ("maxilla", 0.9, 0.014, ((0.27, -0.100, 0.138), (0.19, -0.035, 0.112), (0.11, 0.010, 0.06))),
)
HEAD_BONES: tuple[Bone, ...] = (
    ("parasphenoid", 0.9, 0.013, ((0.13, 0.015, 0.0), (0.5, 0.02, 0.0), (1.0, 0.05, 0.0))),
    ("ethmoid", 0.8, 0.022, ((0.13, 0.03, 0.0), (0.2, 0.05, 0.06), (0.25, 0.06, 0.1))),
    ("nasal", 0.8, 0.010, ((0.09, 0.045, 0.04), (0.2, 0.115, 0.05))),
    ("frontal", 0.9, 0.013, ((0.16, 0.10, 0.05), (0.35, 0.175, 0.10), (0.6, 0.245, 0.12))),
    ("sphenotic", 0.9, 0.020, ((0.55, 0.17, 0.17), (0.7, 0.16, 0.20), (0.85, 0.15, 0.17))),
    ("pterotic", 1.0, 0.022, ((0.7, 0.16, 0.20), (0.95, 0.12, 0.16), (1.02, 0.1, 0.1))),
    ("supraoccipital", 1.0, 0.014, ((0.75, 0.29, 0.0), (0.93, 0.29, 0.0), (1.04, 0.31, 0.0))),
    ("basioccipital", 1.05, 0.035, ((0.75, 0.04, 0.0), (1.0, 0.055, 0.0))),
    ("exoccipital", 1.0, 0.018, ((1.0, 0.06, 0.03), (0.98, 0.15, 0.11), (0.97, 0.25, 0.03))),
    ("hyomandibula", 0.95, 0.020, ((0.72, 0.13, 0.20), (0.68, 0.02, 0.21), (0.60, -0.10, 0.19))),
    ("symplectic", 0.85, 0.013, ((0.60, -0.10, 0.19), (0.48, -0.13, 0.165), (0.38, -0.155, 0.14))),
    ("quadrate", 0.9, 0.018, ((0.50, -0.17, 0.165), (0.385, -0.16, 0.139))),
    ("pterygoid", 0.8, 0.012, ((0.40, -0.12, 0.14), (0.30, -0.03, 0.12), (0.2, 0.02, 0.09))),
    (
        "preopercle",
        0.95,
        0.015,
        ((0.70, 0.12, 0.235), (0.685, -0.08, 0.24), (0.60, -0.2, 0.21), (0.42, -0.2, 0.165)),
    ),
    (
        "ceratohyal",
        1.0,
        0.022,
        ((0.63, -0.13, 0.175), (0.52, -0.19, 0.12), (0.40, -0.215, 0.06), (0.32, -0.2, 0.02)),
    ),
    ("basihyal", 0.9, 0.016, ((0.22, -0.15, 0.0), (0.34, -0.195, 0.0))),
    ("urohyal", 0.8, 0.012, ((0.36, -0.23, 0.0), (0.62, -0.30, 0.0))),
    ("basibranchial", 0.8, 0.014, ((0.36, -0.185, 0.0), (0.8, -0.17, 0.0))),
    (
        "pharyngeal jaw",
        1.15,
        0.028,
        ((0.80, -0.18, 0.02), (0.88, -0.19, 0.08), (0.93, -0.10, 0.12), (0.96, 0.0, 0.10)),
    ),
    (
        "cleithrum",
        1.05,
        0.023,
        (
            (1.00, 0.16, 0.225),
            (1.05, 0.02, 0.27),
            (1.06, -0.14, 0.265),
            (1.00, -0.30, 0.19),
            (0.88, -0.38, 0.07),
            (0.80, -0.39, 0.012),
        ),
    ),
    ("coracoid", 0.85, 0.015, ((1.08, -0.22, 0.24), (1.02, -0.33, 0.12), (0.95, -0.36, 0.03))),
    ("scapula", 0.9, 0.020, ((1.07, -0.12, 0.255), (1.13, -0.17, 0.26))),
)
# One of four gill arches, each shaped like a jaw arch; the others follow behind it.
GILL_ARCH = np.array(
    [
        [0.42, -0.185, 0.015],
        [0.50, -0.200, 0.090],
        [0.60, -0.120, 0.150],
        [0.62, -0.020, 0.140],
        [0.60, 0.020, 0.070],
    ]
)
GILL_ARCH_STEP = np.array([[0.085], [0.085], [0.08], [0.075], [0.07]]) * (1, 0, 0)
# Roots of the teeth in the throat, which are the densest bone of the head.
TEETH = ((0.86, -0.13, 0.05), (0.885, -0.12, 0.065), (0.91, -0.105, 0.078), (0.93, -0.08, 0.085))
