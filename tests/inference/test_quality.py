"""Reference ranges are learned, compared with, and kept in a file."""

import json
from dataclasses import replace

import numpy as np
import pytest

from jawloc.inference.calibrate import (
    HeldOutPosition,
    learn_position_reference,
    learn_scan_reference,
    reference_ranges,
)
from jawloc.inference.conformal import Conformal
from jawloc.inference.out_of_distribution import (
    image_features,
    position_ood_scores,
    scan_ood_scores,
)
from jawloc.inference.quality import (
    UNCERTAIN_P_VALUE,
    Calibration,
    Quality,
    assess_quality,
    from_plain,
    to_plain,
)
from tests.inference.test_out_of_distribution import FULL, SHAPE, prediction_of, upright_scan


def held_out(seed, spread=2.0, fair=True):
    random = np.random.default_rng(seed)
    spread = spread * random.lognormal(0, 0.1)
    point = np.array([24, 6, 5]) + random.normal(0, 1, 3)
    contrasts = 10 + random.normal(size=2)
    found = prediction_of(point, spread, random.lognormal(-8, 1), *contrasts)
    ood_scores = position_ood_scores(found, 0, SHAPE)
    error = 0.1 * (seed + 1) if fair else None
    return HeldOutPosition(f"fish{seed}", error, spread, ood_scores)


@pytest.fixture(scope="module")
def calibration():
    every_features = [(image_features(upright_scan(seed)), FULL) for seed in range(30)]
    every = [held_out(seed) for seed in range(30)]
    return Calibration(
        learn_scan_reference(every_features, ("y", "x")), {"jaw": learn_position_reference(every)}
    )


def test_good_scans_are_ok_and_bad_ones_are_not(calibration):
    def quality(image, **other):
        return calibration.assess_quality(
            "jaw", image_features(image), FULL, held_out(99, **other).ood_scores, raw_input=False
        )

    good = [quality(upright_scan(seed)) for seed in range(100, 140)]
    assert [q.status for q in good].count("ok") >= 38
    assert quality(upright_scan(100)[::-1]).status == "not found"
    assert "flipped" in quality(upright_scan(100)[::-1]).reason
    # another scanner's grey scale is uncertain, but no evidence of a missing object
    for gain, offset in ((10, 0), (0.01, 0), (1, 30000), (3, -500)):
        other = quality(gain * upright_scan(100).astype(float) + offset)
        assert other.status == "uncertain"
        assert "grey values" in other.reason
    # to a network with raw grey values as input it is another scan
    features = image_features(10 * upright_scan(100).astype(float))
    raw = calibration.assess_quality("jaw", features, FULL, held_out(99).ood_scores, raw_input=True)
    assert raw.status == "not found"
    assert quality(upright_scan(100)[::-1] * 10).status == "not found"
    assert "flipped" in quality(upright_scan(100)[::-1] * 10).reason
    lost = quality(upright_scan(101), spread=20.0)
    assert lost.status == "not found"
    assert lost.reason == "heatmap is wider than in scans held out of training"


def test_only_fair_scans_set_the_radius():
    every = [held_out(seed, fair=seed < 9) for seed in range(20)]
    known = learn_position_reference(every)
    ratios = [h.error_voxels / h.width_voxels for h in every[:9]]
    assert known.conformal == Conformal(pytest.approx(max(ratios)), 0.9, 9)
    assert known.ranges["spread"].scans == 20
    assert learn_position_reference([held_out(1, fair=False)]).conformal is None


def test_few_specimens_have_no_radius_and_a_note_says_how_many_it_takes():
    few = learn_position_reference([held_out(0)])
    assert (few.conformal, few.specimens) == (None, 1)
    assert few.radius_note == (
        "unknown: give more test scans; a radius needs at least 6 specimens held out, and the "
        "model was tested on 1 specimen"
    )
    enough = learn_position_reference([held_out(seed) for seed in range(6)])
    assert (enough.conformal.confidence, enough.radius_note) == (pytest.approx(6 / 7), "")
    # six scans of one fish are one specimen
    again = [replace(held_out(seed), specimen="fish") for seed in range(6)]
    assert learn_position_reference(again).conformal is None


def test_a_radius_that_jawloc_0_1_0_calibrated_on_one_scan_is_not_stated(calibration):
    plain = json.loads(json.dumps(to_plain(calibration)))
    old = plain["objects"]["jaw"]
    del old["specimens"], old["conformal"]
    old["ball"] = {"factor": 1.0, "confidence": 0.5, "scans": 1}
    known = from_plain(plain | {"scan_ids": ["a"]}).objects["jaw"]
    assert (known.conformal, known.specimens) == (None, 1)
    old["ball"] = {"factor": 1.0, "confidence": 0.9, "scans": 30}
    assert from_plain(plain).objects["jaw"].conformal == Conformal(1.0, 0.9, 30)


def test_the_calibration_scans_are_not_flagged_themselves():
    """OodScores with heavy tails: without widening, several of these would be."""
    random = np.random.default_rng(1)
    few = [{"contrast": v} for v in random.standard_t(2, 48)]
    ranges = reference_ranges(few)
    assert all(
        assess_quality(ranges, ood_scores).p_value >= UNCERTAIN_P_VALUE * (1 - 1e-6)
        for ood_scores in few
    )
    # of 49 and more, the most extreme one may be
    heavy = reference_ranges([*few, {"contrast": -1e4}])
    assert assess_quality(heavy, {"contrast": -1e4}).status == "not found"


def test_a_status_learned_from_few_scans_says_so():
    """Regression: with one scan to validate and one to test, as by default, all was `ok`."""
    few, enough = (learn_position_reference([held_out(i) for i in range(n)]) for n in (2, 6))
    nothing_there = position_ood_scores(prediction_of((2, 2, 2), 40.0, 0.9, 0.5, 0.5), 0, SHAPE)
    assert assess_quality(few.ranges, nothing_there).status == "ok"
    assert "in 2 scans held out: hold out at least 6 (" in few.status_note
    assert assess_quality(enough.ranges, nothing_there).status == "not found"
    assert enough.status_note == ""


def test_a_note_names_some_of_the_objects_that_it_is_about():
    """Regression: with several objects, nobody knew which of them it was about."""
    counts = (1, 2, 6)
    few, two, enough = (learn_position_reference([*map(held_out, range(n))]) for n in counts)
    scans = learn_scan_reference([(image_features(upright_scan(0)), FULL)])
    objects = {"eye": enough, "jaw": two} | {f"rib_{n}": few for n in range(8)}
    of_jaw, of_ribs = Calibration(scans, objects).status_notes
    assert of_jaw == f"jaw: {two.status_note}"
    ribs = "rib_0, rib_1, rib_2, rib_3, rib_4, rib_5 and 2 more"
    assert of_ribs == f"{ribs}: {few.status_note}"
    assert Calibration(scans, {"eye": enough}).status_notes == []


def test_scores_without_a_reference_range_are_ok():
    assert assess_quality({}, {"contrast": 1.0}) == Quality("ok", 1.0)
    one = reference_ranges([{"contrast": 1.0}])
    assert assess_quality(one, {"contrast": -1e9}).status == "ok"


def test_one_scan_is_enough_to_learn_from():
    one = learn_scan_reference([(image_features(upright_scan(0)), FULL)])
    scores = scan_ood_scores(image_features(upright_scan(1)), FULL, one.profiles, one.upright)
    assert assess_quality(one.ranges, scores).status == "ok"


def test_plain_values_and_back(calibration):
    again = from_plain(json.loads(json.dumps(to_plain(calibration))))
    found = ("jaw", image_features(upright_scan(50)), FULL, held_out(50).ood_scores)
    expected = calibration.assess_quality(*found, raw_input=False)
    assert again.assess_quality(*found, raw_input=False) == expected
    assert again.objects == calibration.objects
