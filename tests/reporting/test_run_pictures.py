"""Pictures of a run: what is drawn, where, with which texts."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jawloc.geometry import Grid, map_points
from jawloc.heatmaps.target import render
from jawloc.inference.evaluate_scan import ScanError, evaluate_positions
from jawloc.inference.locator import Locator, Prediction
from jawloc.inference.out_of_distribution import image_features
from jawloc.reporting import run_pictures
from jawloc.reporting.figures.location import describe_error
from jawloc.reporting.run_pictures import predicted_picture, target_picture, write_test_pictures
from jawloc.scans.cache import CacheConfig, build_cache, open_example
from jawloc.scans.reading import read_scan
from jawloc.training.dataset import IntensityConfig
from jawloc.training.stages import NetworkConfig, Stage

SIZE = (24, 12, 12)
ARCHES = {"left": (1,), "right": (2,)}
TEST_PICTURES = (
    "test_heatmap.png",
    "test_centroid_downsampled.png",
    "test_centroid_truth.png",
    "test_centroid.png",
    "test_cropped.png",
    "truth_cropped.png",
)


@pytest.fixture(scope="module")
def cached(phantom_folder, tmp_path_factory):
    base = tmp_path_factory.mktemp("outputs")
    config = CacheConfig(dicom_dirs=(str(phantom_folder),), downsampled_dicom_size=SIZE)
    return build_cache([phantom_folder / "phantom_003.dcm"], config, base=base).cached[0]


@pytest.fixture
def jaw(cached):
    return open_example(cached, {"jaw": None}).read()


@pytest.fixture
def arches(cached):
    return open_example(cached, ARCHES).read()


def known_locator(points, objects, stride=2):
    """A locator that finds the points it is told, on a heatmap of its own."""

    class Known(Locator):
        def predict(self, image):
            probability = np.zeros((len(points), *(n // stride for n in SIZE)))
            for row, point in enumerate(points):
                probability[(row, *np.rint((point + 0.5) / stride - 0.5).astype(int))] = 1
            look, ood_scores = image_features(image), ({},) * len(points)
            return Prediction(
                points, *np.ones((2, len(points))), probability, SIZE, ood_scores, look
            )

    network = torch.nn.Identity()
    config = NetworkConfig(coarse=1, stride=stride)
    return Known((network,), config, SIZE, IntensityConfig(), objects, ((2.5,),))


@pytest.fixture
def shown(monkeypatch):
    """Every picture that is drawn, by what it is drawn of, and by its file if it has one."""
    seen = []

    def drawn(*image, **about):
        seen.append({"image": image, "file": None, **about})
        return seen[-1]

    def saved(figure, path):
        figure["file"] = path.name
        path.touch()

    monkeypatch.setattr(run_pictures, "plot_slices", drawn)
    monkeypatch.setattr(run_pictures, "plot_crop", drawn)
    monkeypatch.setattr(run_pictures, "save_figure", saved)
    return seen


def test_a_target_peaks_at_the_truth_and_is_as_wide_as_sigma(jaw, shown):
    target_picture(jaw, 3.0, Stage(stride=2), "Epoch 4")
    (picture,) = shown
    heatmap = picture["heatmap"]
    assert heatmap.shape == (12, 6, 6)
    peak = np.array(np.unravel_index(heatmap.argmax(), heatmap.shape))
    truth = jaw.points_voxels[0]
    assert np.abs((peak + 0.5) * 2 - 0.5 - truth).max() <= 1
    assert picture["heatmap_stride"] == 2
    np.testing.assert_array_equal(picture["points"]["true centre"], truth)
    for words in ("Epoch 4", "target heatmap", "scan phantom_003", "sigma 3.00 voxels"):
        assert words in picture["title"]


def test_a_coarse_stages_target_is_drawn_in_its_own_long_voxels(jaw, shown):
    """Regression: sigma 8 was drawn at the fine stage's stride, which nobody trained on."""
    coarse = NetworkConfig(coarse=2, stride=4, window=(16, 16, 16)).stages()[0]
    target_picture(jaw, 8.0, coarse, "Epoch 1")
    (picture,) = shown
    assert picture["heatmap"].shape == (3, 2, 2)  # of 24 x 12 x 12, in voxels of 8
    assert picture["heatmap_stride"] == 8
    assert "target heatmap of the coarse stage" in picture["title"]
    assert "sigma 8.00 voxels, heatmap voxels of 8 voxels" in picture["title"]
    points = (torch.from_numpy(jaw.points_voxels) + 0.5) / 8 - 0.5
    expected = render(points[None], (3, 2, 2), 8.0 / 8)[0, 0]
    np.testing.assert_allclose(picture["heatmap"], expected, atol=1e-6)


def test_the_sigma_of_a_prediction_is_that_of_the_stage_that_gives_the_position(jaw, shown):
    locator = known_locator(jaw.points_voxels, {"jaw": None})
    for sigmas, said in (
        (((6.0, 1.6),), "sigma 1.60 voxels"),
        (((6.0, 1.6), (6.0, 2.0)), "sigma 1.60 to 2.00 voxels"),
    ):
        predicted_picture(jaw, replace(locator, sigma_voxels=sigmas), "Training")
        assert said in shown[-1]["title"]


def test_a_prediction_is_shown_beside_the_truth_with_its_error(jaw, shown):
    offset = np.array([[0.0, 3.0, 4.0]])
    predicted_picture(jaw, known_locator(jaw.points_voxels + offset, {"jaw": None}), "Training")
    (picture,) = shown
    np.testing.assert_array_equal(picture["points"]["true centre"], jaw.points_voxels[0])
    found = picture["points"]["predicted centre"]
    np.testing.assert_array_equal(found, (jaw.points_voxels + offset)[0])
    in_mm = np.linalg.norm(offset * jaw.grid.spacing_mm_zyx)
    assert f"error 5.00 downsampled voxels, {in_mm:.3f} mm" in picture["title"]
    assert "sigma 2.50 voxels" in picture["title"]


def test_without_spacing_no_mm_is_invented(jaw, shown):
    unknown = replace(jaw, grid=Grid(SIZE))
    predicted_picture(unknown, known_locator(jaw.points_voxels, {"jaw": None}), "Training")
    (picture,) = shown
    assert picture["spacing_mm_zyx"] is None
    assert "mm" not in picture["title"]


def test_several_objects_are_marked_in_one_picture(arches, shown):
    target_picture(arches, 2.0, Stage(stride=2), "t")
    predicted_picture(arches, known_locator(arches.points_voxels, ARCHES), "t")
    true, found = (
        [f"{kind} centre of {name}" for name in ARCHES] for kind in ("true", "predicted")
    )
    assert list(shown[0]["points"]) == true
    assert list(shown[1]["points"]) == true + found
    assert "(left 0.00, right 0.00)" in shown[1]["title"]
    for picture in shown:
        # no slice goes through both, so their heatmaps are projected, as the points are
        assert picture["heatmap"].shape_zyx == (12, 6, 6)
        assert picture["heatmap_label"] == "highest probability along the line of sight"
        peak = picture["heatmap"].axial.max()
        for _, y, x in np.rint((arches.points_voxels + 0.5) / 2 - 0.5).astype(int):
            assert picture["heatmap"].axial[y, x] > 0.8 * peak


@pytest.mark.parametrize("lacking", [0, 1])
def test_an_object_that_a_scan_lacks_is_said_to_be_missing(arches, shown, lacking):
    points = arches.points_voxels.copy()
    points[lacking] = np.nan
    one = replace(arches, points_voxels=points)
    target_picture(one, 2.0, Stage(stride=2), "t")
    predicted_picture(one, known_locator(np.add(arches.points_voxels, (0, 3, 4)), ARCHES), "t")
    missing, other = (list(ARCHES)[n] for n in (lacking, 1 - lacking))
    target, predicted = shown
    assert list(target["points"]) == [f"true centre of {other}"]
    assert np.isfinite(target["heatmap"].axial).all()
    assert np.isfinite(target["centre"]).all()
    assert set(predicted["points"]) == {
        f"true centre of {other}",
        *(f"predicted centre of {name}" for name in ARCHES),
    }
    assert f"error 5.00 downsampled voxels ({other} 5.00)" in predicted["title"]
    for picture in shown:
        assert picture["title"].endswith(f"; not in this scan: {missing}")


def test_the_test_scans_pictures_are_of_the_full_size_scan(jaw, shown, tmp_path):
    found = jaw.points_voxels + np.array([1.0, 0.5, -1.0])
    locator = known_locator(found, {"jaw": None})
    (error,) = evaluate_positions([jaw], lambda _: found, ["jaw"])
    paths = write_test_pictures(tmp_path, locator, jaw, error, (20, 10, 10))
    files = {picture["file"]: picture for picture in shown}
    assert set(files) == {path.name for path in paths} == set(TEST_PICTURES)
    down = files["test_centroid_downsampled.png"]
    np.testing.assert_allclose(down["points"]["predicted centre"], found[0])
    np.testing.assert_allclose(down["points"]["true centre"], jaw.points_voxels[0])

    scan = read_scan(jaw.source)
    truth = np.argwhere(scan.mask).mean(axis=0)
    predicted = map_points(found, jaw.grid, jaw.source_grid)[0]
    for kind, whole, crop, point in (
        ("true", "test_centroid_truth.png", "truth_cropped.png", truth),
        ("predicted", "test_centroid.png", "test_cropped.png", predicted),
    ):
        picture = files[whole]
        np.testing.assert_allclose(picture["points"][f"{kind} centre"], point, atol=1e-6)
        np.testing.assert_array_equal(picture["image"][0].axial, scan.image[round(point[0])])
        assert picture["title"].startswith(f"{kind.title()} centre on the full-size scan")
        start, stop = picture["window"]
        np.testing.assert_array_equal(stop - start, (20, 10, 10))
        image, mask = files[crop]["image"]
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        np.testing.assert_array_equal(image, scan.image[box])
        np.testing.assert_array_equal(mask, scan.mask[box])
        title = f"Crop of 20×10×10 voxels around the {kind} centre ("
        assert files[crop]["title"].startswith(title)
        for name in (whole, crop):
            assert files[name]["spacing_mm_zyx"] == scan.grid.spacing_mm_zyx
    assert down["spacing_mm_zyx"] == jaw.grid.spacing_mm_zyx
    for name in set(files) - {"test_heatmap.png"}:
        assert describe_error(error) in files[name]["title"]
        assert "scan phantom_003" in files[name]["title"]


def test_only_the_object_that_is_shown_is_red(arches, shown, tmp_path):
    """Regression: the crop was said to cut the jaw off where another label reached its border."""
    locator = known_locator(arches.points_voxels, ARCHES)
    errors = evaluate_positions([arches], lambda e: e.points_voxels, list(ARCHES))
    paths = write_test_pictures(tmp_path, locator, arches, errors[1], (20, 10, 10))
    assert {p.name for p in paths} == {n.replace(".png", "_right.png") for n in TEST_PICTURES}
    for picture in shown[1:]:
        assert all(name.endswith(" centre of right") for name in picture["points"])
        named = picture.get("object_name") or picture["mask_label"].removesuffix(" mask")
        assert named == "right"
    masks = [picture["mask"] for picture in shown[1:] if "mask" in picture]
    crops = [picture["image"][1] for picture in shown if len(picture["image"]) == 2]
    assert len(masks) == 3
    assert len(crops) == 2
    planes = [
        p for m in masks for p in ([m] if isinstance(m, np.ndarray) else [m.axial, m.coronal])
    ]
    assert {int(value) for part in (*planes, *crops) for value in np.unique(part)} == {0, 2}
    assert all("scan phantom_003, right, " in picture["title"] for picture in shown[1:])


def test_an_error_is_said_in_every_unit_that_is_known():
    error = ScanError("a", "jaw", np.zeros(3), np.ones(3), 1.234, 5.678, 0.12345)
    said = "1.23 downsampled voxels, 5.68 full-size voxels"
    assert describe_error(error) == f"{said}, 0.123 mm"
    assert describe_error(replace(error, error_mm=None)) == said
