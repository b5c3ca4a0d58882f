"""The locator: saved and loaded, it predicts the same; a file that isn't one is refused."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from jawloc import __version__
from jawloc.errors import InputError
from jawloc.geometry import Grid, map_points
from jawloc.heatmaps.decode import decode
from jawloc.inference.calibrate import (
    HeldOutPosition,
    ReferenceRange,
    learn_position_reference,
    learn_scan_reference,
)
from jawloc.inference.locator import (
    Locator,
    Prediction,
    load_locator,
    save_locator,
    to_full_size,
)
from jawloc.inference.out_of_distribution import PROFILE_BINS, image_features
from jawloc.inference.quality import Calibration, PositionReference, ScanReference
from jawloc.phantom import make_phantom, write_phantom
from jawloc.scans.dicom import write_labelled_dicom
from jawloc.scans.downsample import downsample
from jawloc.scans.reading import open_scan
from jawloc.training.dataset import IntensityConfig
from jawloc.training.network import build_network
from jawloc.training.stages import NetworkConfig, heatmap_shape

SHAPE, SIZE = (48, 24, 24), (24, 12, 12)
PERCENTILE = IntensityConfig(rule="percentile", low=1.0, high=99.5)
NETWORKS = {
    "unet": NetworkConfig(name="unet", coarse=1, channels=(4, 8), stride=2),
    "attention-unet": NetworkConfig(name="attention-unet"),
}
OBJECTS = {"upper jaw": (1, 3), "lower jaw": None}


def make_locator(config: NetworkConfig = NETWORKS["unet"], **changes) -> Locator:
    """Return an untrained locator whose weights differ from another network's."""
    torch.manual_seed(0)
    settings = {
        "networks": (build_network(config, len(OBJECTS)),),
        "network_config": config,
        "downsampled_size": SIZE,
        "intensity": PERCENTILE,
        "objects": OBJECTS,
        "sigma_voxels": ((2.5, 1.5)[: len(config.stages())],),
    }
    return Locator(**(settings | changes))


TWO_STAGES = NetworkConfig(coarse=2, channels=(4, 8), stride=2, window=(16, 16, 16))


def phantom_file(folder: Path, seed: int = 0) -> Path:
    path = folder / f"fish_{seed}.dcm"
    write_phantom(path, seed, SHAPE)
    return path


def small_image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, SIZE).astype(np.uint16)


def same(first: Prediction, second: Prediction) -> bool:
    names = ("points_voxels", "spread_voxels", "width_voxels", "probability", "ood_scores")
    return all(np.array_equal(getattr(first, n), getattr(second, n)) for n in names)


def test_a_locator_of_two_stages_is_the_same_from_its_file(tmp_path):
    locator = make_locator(TWO_STAGES, downsampled_size=(48, 24, 24))
    save_locator(locator, tmp_path / "twice.pth")
    loaded = load_locator(tmp_path / "twice.pth")
    assert loaded.network_config == TWO_STAGES
    image = np.random.default_rng(0).integers(0, 4000, (48, 24, 24)).astype(np.uint16)
    assert same(locator.predict(image), loaded.predict(image))
    assert locator.locate(phantom_file(tmp_path)) == loaded.locate(phantom_file(tmp_path))
    assert loaded.predict(image).probability.shape == (2, 24, 12, 12)


# --- predicting ----------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_prediction_has_a_point_a_spread_and_a_map_for_each_object(network):
    prediction = make_locator(network).predict(small_image())
    assert prediction.points_voxels.shape == (2, 3)
    assert prediction.points_voxels.dtype == np.float64
    assert prediction.spread_voxels.shape == (2,)
    assert prediction.probability.shape == (2, *heatmap_shape(SIZE, network.heatmap_stride))
    np.testing.assert_allclose(prediction.probability.sum((1, 2, 3)), 1, rtol=1e-5)
    assert ((prediction.points_voxels >= -0.5) & (prediction.points_voxels < SIZE)).all()


class RendersGaussian(torch.nn.Module):
    """Renders the same Gaussian for every image."""

    def __init__(self, point: tuple[float, float, float], stride: int, sigma: float) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))
        axes = [
            -0.5 * (((torch.arange(n) + 0.5) * stride - 0.5 - c) / sigma) ** 2
            for n, c in zip(heatmap_shape(SIZE, stride), point, strict=True)
        ]
        self.logits = axes[0][:, None, None] + axes[1][:, None] + axes[2]

    def forward(self, image):
        return self.logits[None, None]


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("point", [(11.3, 5.2, 6.9), (0.0, 11.0, 5.5), (23.4, -0.4, 0.2)])
def test_points_and_spread_are_in_voxels_of_the_image_whatever_the_stride(point, stride):
    """A heatmap of a coarser grid must not show in the numbers."""
    config = NetworkConfig(name="unet", coarse=1, channels=(4, 8), stride=stride)
    locator = make_locator(
        config,
        networks=(RendersGaussian(point, stride, 2.5),),
        objects={"jaw": None},
        test_time_augmentation=False,
    )
    prediction = locator.predict(small_image())
    np.testing.assert_allclose(prediction.points_voxels[0], point, atol=0.02 * stride)
    if point == (11.3, 5.2, 6.9) and stride < 4:  # away from borders
        assert prediction.width_voxels[0] == pytest.approx(2.5, rel=0.1)
        assert prediction.spread_voxels[0] < 0.5  # it is just as wide as it should be


def test_predicting_is_deterministic_though_the_network_was_left_in_training_mode():
    locator = make_locator(NETWORKS["attention-unet"])
    locator.networks[0].train()
    assert same(locator.predict(small_image()), locator.predict(small_image()))


def test_the_intensity_rule_is_applied():
    """Scanner gain and offset drop out by percentiles, and don't in raw values."""
    image = small_image()
    other = image * 3 + 100
    by_percentile = make_locator()
    np.testing.assert_allclose(
        by_percentile.predict(image).probability,
        by_percentile.predict(other).probability,
        atol=1e-5,
    )
    lab = make_locator(NETWORKS["attention-unet"], intensity=IntensityConfig(rule="raw"))
    assert not np.allclose(lab.predict(image).probability, lab.predict(other).probability)


# --- locating ------------------------------------------------------------------------


def test_locating_a_file_is_predicting_its_downsampled_image_and_mapping_to_full_size(tmp_path):
    path = phantom_file(tmp_path)
    locator, scan = make_locator(), open_scan(path)
    prediction = locator.predict(downsample(scan, SIZE).image)
    expected = map_points(prediction.points_voxels, Grid(SIZE), scan.grid)
    found = locator.locate(path)
    np.testing.assert_allclose([f.point_voxels for f in found], expected, atol=1e-9)
    # twice as many voxels along each axis
    np.testing.assert_allclose([f.spread_voxels for f in found], 2 * prediction.spread_voxels)
    assert [f.scan_id for f in found] == ["fish_0", "fish_0"]
    assert [f.object_name for f in found] == ["upper jaw", "lower jaw"]


def test_millimetres_are_voxels_times_the_full_size_spacing(tmp_path):
    path = phantom_file(tmp_path)
    spacing = open_scan(path).grid.spacing_mm_zyx
    assert spacing is not None
    for found in make_locator().locate(path):
        assert found.point_mm == pytest.approx(np.multiply(found.point_voxels, spacing))


def test_without_spacing_there_are_no_millimetres(tmp_path):
    scan = make_phantom(0, SHAPE)
    path = tmp_path / "fish.dcm"
    write_labelled_dicom(path, scan.image, scan.mask, Grid(SHAPE))
    assert [found.point_mm for found in make_locator().locate(path)] == [None, None]


def test_a_point_on_the_small_grid_lands_in_the_same_place_on_the_full_one():
    """The lab's script scaled by ratio: voxel 1500 of 2000 came back as 1497.8."""
    locator = make_locator(downsampled_size=(512, 128, 128), objects={"jaw": None})
    full = Grid((2000, 600, 600), (0.02, 0.02, 0.02))
    truth = np.array([[1500.0, 300.0, 123.4]])
    prediction = Prediction(
        map_points(truth, full, Grid((512, 128, 128))),
        np.array([1.0]),
        np.array([1.0]),
        np.zeros((1, 1, 1, 1)),
        (512, 128, 128),
        ({},),
        image_features(np.zeros((4, 4, 4))),
    )
    (found,) = locator.localise("131", prediction, full)
    assert found.point_voxels == pytest.approx(truth[0], abs=1e-6)
    assert found.point_mm == pytest.approx(truth[0] * 0.02, abs=1e-6)


def test_a_scan_smaller_than_the_grid_is_refused_by_name(tmp_path):
    path = phantom_file(tmp_path)
    with pytest.raises(InputError, match=r"fish_0\.dcm.*96x24x24.*train again with a smaller"):
        make_locator(downsampled_size=(96, 24, 24)).locate(path)


# --- the file ------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_a_saved_and_loaded_locator_predicts_the_same(tmp_path, network):
    locator = make_locator(network)
    save_locator(locator, tmp_path / "locator.pth")
    loaded = load_locator(tmp_path / "locator.pth")
    assert same(loaded.predict(small_image()), locator.predict(small_image()))
    found, expected = (x.locate(phantom_file(tmp_path)) for x in (loaded, locator))
    assert found == expected


def test_everything_that_using_it_needs_comes_back(tmp_path):
    locator = make_locator(intensity=IntensityConfig(rule="percentile", low=2.0, high=98.0))
    save_locator(locator, tmp_path / "locator.pth")
    loaded = load_locator(tmp_path / "locator.pth")
    names = [f.name for f in dataclasses.fields(Locator) if f.name not in ("networks", "objects")]
    assert {n: getattr(loaded, n) for n in names} == {n: getattr(locator, n) for n in names}
    objects = {k: None if v is None else tuple(v) for k, v in loaded.objects.items()}
    assert objects == OBJECTS
    assert list(loaded.objects) == list(OBJECTS)  # the order of the network's channels
    assert not loaded.networks[0].training


def test_the_file_loads_with_weights_only_and_holds_what_its_weights_need(tmp_path):
    """The lab's files held neither grid nor intensity rule nor network."""
    save_locator(make_locator(), tmp_path / "locator.pth")
    content = torch.load(tmp_path / "locator.pth", weights_only=True)
    (weights,) = content.pop("state_dicts")
    assert weights.keys() == make_locator().networks[0].state_dict().keys()
    assert content == {
        "format": "jawloc-locator-2",
        "jawloc_version": __version__,
        "network": {
            "name": "unet",
            "channels": (4, 8),
            "stride": 2,
            "coarse": 1,
            "coarse_stride": "auto",
            "window": "auto",
            "skip_connections": "add",
            "mask_supervision": "auto",
        },
        "downsampled_dicom_size": SIZE,
        "intensity": {"rule": "percentile", "low": 1.0, "high": 99.5},
        "objects": {"upper jaw": [1, 3], "lower jaw": None},
        "sigma_voxels": [[2.5]],
        "crop_size": None,
        "flipped_axes": [],
        "test_time_augmentation": True,
        "presence_classifiers": [],
        "calibration": None,
        "errors": None,
        "provenance": None,
    }


def test_the_weights_in_the_file_lie_on_the_cpu(tmp_path, monkeypatch):
    """The lab's files of a GPU didn't load without one."""
    locator = make_locator(networks=(make_locator().networks[0].to("meta"),))
    moved = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda t: moved.append(t) or torch.zeros(t.shape))
    save_locator(locator, tmp_path / "locator.pth")
    content = torch.load(tmp_path / "locator.pth", weights_only=True)
    (weights,) = content["state_dicts"]
    assert len(moved) == len(weights)
    assert {t.device.type for t in weights.values()} == {"cpu"}


def test_a_file_from_before_there_were_ensembles_loads(tmp_path):
    save_locator(make_locator(test_time_augmentation=False), tmp_path / "locator.pth")
    content = torch.load(tmp_path / "locator.pth", weights_only=True)
    (weights,), ((sigma,),) = content.pop("state_dicts"), content.pop("sigma_voxels")
    content["format"] = "jawloc-locator-1"
    for key in ("flipped_axes", "test_time_augmentation", "calibration"):
        content.pop(key)
    torch.save({**content, "state_dict": weights, "sigma_voxels": sigma}, tmp_path / "old.pth")
    old = load_locator(tmp_path / "old.pth")
    assert old.sigma_voxels == ((2.5,),)
    expected = make_locator(test_time_augmentation=True).predict(small_image())
    assert same(old.predict(small_image()), expected)


# --- ensembles, radius and quality flag ------------------------------------------------


def test_an_ensemble_averages_its_networks_and_is_as_uncertain_as_they_differ(tmp_path):
    points = (10.0, 5.0, 6.0), (13.0, 5.0, 6.0)
    parts = tuple(RendersGaussian(point, 1, 2.5) for point in points)
    config = dataclasses.replace(NETWORKS["unet"], stride=1)

    def of(networks):
        return make_locator(
            config,
            networks=networks,
            sigma_voxels=((2.5,),) * len(networks),
            objects={"jaw": None},
            test_time_augmentation=False,
        ).predict(small_image())

    both, alone = of(parts), [of((part,)) for part in parts]
    np.testing.assert_allclose(both.points_voxels, [[11.5, 5, 6]], atol=0.05)
    # the spread holds what they differ by; the width is that of a single network's map
    np.testing.assert_allclose(both.width_voxels, alone[0].width_voxels, rtol=0.02)
    variance = np.mean([one.spread_voxels**2 for one in alone], axis=0)
    np.testing.assert_allclose(both.spread_voxels**2, variance + 1.5**2 / 3, rtol=0.02)
    assert both.ood_scores[0]["disagreement"] == pytest.approx(
        np.log(np.sqrt(3**2 / 2 / 3)), abs=0.02
    )
    assert both.ood_scores[0]["spread"] == pytest.approx(alone[0].ood_scores[0]["spread"], abs=0.02)

    two = make_locator(networks=make_locator().networks * 2, sigma_voxels=((2.5,), (2.0,)))
    save_locator(two, tmp_path / "two.pth")
    loaded = load_locator(tmp_path / "two.pth")
    assert (len(loaded.networks), loaded.sigma_voxels) == (2, ((2.5,), (2.0,)))
    assert same(loaded.predict(small_image()), two.predict(small_image()))


def test_calibration_gives_radius_confidence_and_status(tmp_path):
    """For a scan like all others, and for one ten times as bright."""
    paths = [phantom_file(tmp_path, seed) for seed in range(6)]
    locator = make_locator(objects={"jaw": None}, networks=(build_network(NETWORKS["unet"], 1),))
    held_out, scans = [], []
    for path in paths:
        scan = open_scan(path)
        prediction = locator.predict(downsample(scan, SIZE).image)
        scans.append((prediction.image_features, scan.grid))
        (width,) = to_full_size(prediction.width_voxels, prediction, scan.grid)
        held_out.append(HeldOutPosition(path.stem, 1.5, width, prediction.ood_scores[0]))
    positions = {"jaw": learn_position_reference(held_out)}
    calibration = Calibration(learn_scan_reference(scans), positions)
    locator = dataclasses.replace(locator, calibration=calibration)
    save_locator(locator, tmp_path / "locator.pth")

    (found,) = load_locator(tmp_path / "locator.pth").locate(paths[0])
    assert found.status == "ok"
    assert found.confidence == pytest.approx(6 / 7)
    width = [h.width_voxels for h in held_out]
    assert found.radius_voxels == pytest.approx(1.5 / min(width) * found.width_voxels)
    assert found.spread_voxels < found.width_voxels
    spacing = open_scan(paths[0]).grid.spacing_mm_zyx
    assert found.radius_mm == pytest.approx(found.radius_voxels * max(spacing))

    phantom = make_phantom(0, SHAPE)
    bright = (phantom.image.astype(np.uint32) * 10).clip(0, 65535).astype(np.uint16)
    write_labelled_dicom(tmp_path / "bright.dcm", bright, phantom.mask, phantom.grid)
    (found,) = locator.locate(tmp_path / "bright.dcm")
    assert found.status == "uncertain"  # the network's input does not depend on the grey scale
    assert "grey values" in found.reason


def test_another_process_that_has_only_the_file_predicts_the_same(tmp_path):
    locator, path = make_locator(), phantom_file(tmp_path)
    save_locator(locator, tmp_path / "locator.pth")
    code = (
        "import json, sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from jawloc.inference.locator import load_locator\n"
        "found = load_locator(Path(sys.argv[1])).locate(Path(sys.argv[2]))\n"
        "print(json.dumps([f.point_voxels for f in found]))"
    )
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "locator.pth"), str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    expected = [f.point_voxels for f in locator.locate(path)]
    np.testing.assert_allclose(json.loads(answer.stdout), expected, atol=1e-3)


def test_a_bare_state_dict_is_refused_with_the_reason(tmp_path):
    path = tmp_path / "lab.pth"
    torch.save(build_network(NETWORKS["attention-unet"], 1).state_dict(), path)
    with pytest.raises(InputError, match=r"^lab\.pth: not a jawloc locator; .*which grid"):
        load_locator(path)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 half a zip"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(InputError, match=r"^x\.pth: not a model file") as caught:
        load_locator(tmp_path / "x.pth")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.pth: no such model file"):
        load_locator(tmp_path / "none.pth")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("sigma_voxels"),
        lambda content: content.update(sigma_voxels=[[2.5, 1.5]]),
        lambda content: content["network"].update(depth=3),
        lambda content: content["network"].update(channels=(4, 9)),
        lambda content: content["state_dicts"][0].popitem(),
        lambda content: content.update(objects={"jaw": None}),
        lambda content: content.update(objects=[]),
        lambda content: content.update(downsampled_dicom_size=[2**31] * 3),
        lambda content: content.update(sigma_voxels=[[float("nan")]]),
        lambda content: content.update(flipped_axes=["w"]),
        lambda content: content["network"].update(channels=[2**20, 2**20]),
        lambda content: content["intensity"].update(low="x"),
        lambda content: next(iter(content["state_dicts"][0].values())).fill_(float("nan")),
    ],
    ids=[
        "a part is missing",
        "a sigma too many",
        "unknown setting",
        "other network",
        "weights missing",
        "one object",
        "no objects",
        "a grid of 2^93 voxels",
        "a sigma that is no number",
        "an axis that there isn't",
        "a network of 2^40 weights",
        "a percentile that is no number",
        "weights that are no numbers",
    ],
)
def test_a_locator_whose_parts_do_not_fit_is_refused_in_one_sentence(tmp_path, change):
    path = tmp_path / "locator.pth"
    save_locator(make_locator(), path)
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    with pytest.raises(InputError, match=r"^locator\.pth: .*must fit together") as caught:
        load_locator(path)
    assert "\n" not in str(caught.value)


def test_positions_that_are_not_finite_are_refused_with_the_scans_name():
    locator = make_locator()
    prediction = locator.predict(small_image())
    points = prediction.points_voxels * np.inf
    with pytest.raises(InputError, match=r"^131: positions must be finite; with this model"):
        locator.localise("131", dataclasses.replace(prediction, points_voxels=points), Grid(SIZE))


@pytest.mark.parametrize(
    "change",
    [
        lambda calibration: calibration.update(objects={}),
        lambda calibration: calibration["ranges"]["peak"].update(mean="x"),
        lambda calibration: calibration["profiles"].pop(),
        lambda calibration: calibration.update(profiles=[[[1.0]]] * 3),
        lambda calibration: calibration["profiles"][0][0].__setitem__(0, ""),
        lambda calibration: calibration["profiles"][0][0].__setitem__(0, math.nan),
    ],
    ids=["no object", "no number", "two axes", "another grid", "a profile of text", "or of nan"],
)
def test_a_calibration_that_does_not_fit_is_refused(tmp_path, change):
    ranges = {"peak": ReferenceRange(0.5, 0.2, 9)}
    profiles = tuple(np.ones((2, min(n, PROFILE_BINS))) for n in SIZE)
    positions = dict.fromkeys(OBJECTS, PositionReference(None, ranges, 0))
    calibration = Calibration(ScanReference(profiles, (None,) * 3, ranges), positions)
    save_locator(make_locator(calibration=calibration), tmp_path / "locator.pth")
    content = torch.load(tmp_path / "locator.pth", weights_only=True)
    load_locator(tmp_path / "locator.pth")
    change(content["calibration"])
    torch.save(content, tmp_path / "locator.pth")
    with pytest.raises(InputError, match=r"^locator\.pth: .*must fit together"):
        load_locator(tmp_path / "locator.pth")


def test_presence_is_one_more_score_kept_in_the_file_whatever_the_intensity_rule(tmp_path):
    from jawloc.training.presence_classifier import PresenceClassifier

    torch.manual_seed(0)
    network = PresenceClassifier(2).eval()
    network.pitch_voxels.copy_(torch.tensor([[0.5, 0.5, 0.5], [1.0, 0.7, 0.7]]))
    logits = {}
    for rule in ("percentile", "raw"):
        locator = make_locator(
            presence_classifiers=(network,), intensity=IntensityConfig(rule=rule)
        )
        save_locator(locator, tmp_path / "locator.pth")
        prediction = load_locator(tmp_path / "locator.pth").predict(small_image())
        assert same(prediction, locator.predict(small_image()))
        logits[rule] = [ood_scores["presence"] for ood_scores in prediction.ood_scores]
        assert np.isfinite(logits[rule]).all() and logits[rule][0] != logits[rule][1]
    assert "presence" not in make_locator().predict(small_image()).ood_scores[0]
    # two networks are averaged
    two = make_locator(presence_classifiers=(network, network)).predict(small_image())
    assert [s["presence"] for s in two.ood_scores] == pytest.approx(logits["percentile"])


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [(8.0, (8.0, 1.0)), (2.0, (2.0, 1.0)), (1.2, (1.5, 1.0)), (0.9, (1.5, 0.9))],
)
def test_a_file_of_0_1_0_gives_the_sigmas_that_its_stages_were_trained_at(
    tmp_path, sigma, expected
):
    """It holds the curriculum's one; coarse heatmap voxels are 4 long here, the window 16."""
    save_locator(make_locator(TWO_STAGES), tmp_path / "new.pth")
    content = torch.load(tmp_path / "new.pth", weights_only=True)
    old = {**content, "format": "jawloc-locator-1", "sigma_voxels": [sigma]}
    torch.save(old, tmp_path / "old.pth")
    loaded = load_locator(tmp_path / "old.pth")
    assert loaded.sigma_voxels == (expected,)
    with_both = make_locator(TWO_STAGES, sigma_voxels=(expected,))
    assert same(loaded.predict(small_image()), with_both.predict(small_image()))
    save_locator(loaded, tmp_path / "again.pth")
    assert load_locator(tmp_path / "again.pth").sigma_voxels == (expected,)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_file_that_does_not_state_the_coarse_stages_stride_has_that_of_its_weights(
    tmp_path, stride
):
    """It was the fine stage's, and then a longer one."""
    config = dataclasses.replace(TWO_STAGES, coarse_stride=stride)
    save_locator(make_locator(config), tmp_path / "new.pth")
    content = torch.load(tmp_path / "new.pth", weights_only=True)
    del content["network"]["coarse_stride"]
    torch.save(content, tmp_path / "old.pth")
    loaded = load_locator(tmp_path / "old.pth")
    assert [stage.stride for stage in loaded.network_config.stages()] == [stride, 2]
    assert same(loaded.predict(small_image()), make_locator(config).predict(small_image()))


def test_each_stage_reads_its_heatmap_at_the_sigma_of_the_file(monkeypatch):
    sigmas = []

    def noting(maps, sigma):
        sigmas.append(sigma)
        return decode(maps, sigma)

    monkeypatch.setattr("jawloc.training.coarse_to_fine.decode", noting)
    make_locator(TWO_STAGES, sigma_voxels=((6.0, 1.7),)).predict(small_image())
    coarse, fine = TWO_STAGES.stages()
    assert sigmas == [6.0 / coarse.heatmap_stride, 1.7 / fine.heatmap_stride]
