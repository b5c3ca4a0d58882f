"""Which scans the errors of a locator may be learned from."""

from types import SimpleNamespace

from jawloc.inference.calibrate import fairly_tested


def test_scans_of_a_specimen_or_image_that_was_learned_from_are_not_tested_fairly():
    """Regression: lists of ids that divide a fish, and copies, calibrated the radius."""

    def file(scan_id, content_hash):
        return SimpleNamespace(scan_id=scan_id, content_hash=content_hash)

    learned = [file("fish1_left", "a"), file("fish2", "b"), file("old", "")]
    tested = [file("fish1_right", "c"), file("backup", "b"), file("fish3", "d"), file("x", "")]
    assert fairly_tested(tested, learned) == {"fish3", "x"}
