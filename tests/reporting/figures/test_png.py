"""Small files, whole files, and the colours kept."""

import io

import numpy as np
import pytest
from PIL import Image

from jawloc.reporting.figures.style import LARGEST_FILE_BYTES, write_png

YELLOW, RED = (240, 228, 66), (255, 42, 42)


@pytest.fixture
def noisy():
    """A scan's noise with a few pixels of a marker and of an outline."""
    grey = np.random.default_rng(0).normal(90, 20, (800, 900)).clip(0, 255).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    picture[:50] = 255
    picture[50:60] = 0
    picture[400:403, 300:320] = YELLOW
    picture[500, 100:400] = RED
    return picture


def test_a_noisy_picture_is_made_small_and_its_marks_keep_their_colours(noisy, tmp_path):
    # a palette made for all pixels loses the few of a marker among a scan's many greys
    plain = io.BytesIO()
    Image.fromarray(noisy).save(plain, "PNG")
    assert plain.tell() > LARGEST_FILE_BYTES
    path = tmp_path / "new" / "folder" / "slices.png"
    write_png(noisy, path)
    assert path.stat().st_size <= LARGEST_FILE_BYTES
    written = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert np.abs(written - noisy).max() <= 5
    for exact in (np.s_[:60], np.s_[400:403, 300:320], np.s_[500, 100:400]):
        np.testing.assert_array_equal(written[exact], noisy[exact])


def test_a_simple_picture_is_written_exactly(tmp_path):
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[5:9, 5:9] = (1, 2, 3)
    write_png(picture, tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), picture)


def test_a_write_that_fails_leaves_the_old_picture(tmp_path, monkeypatch):
    path = tmp_path / "losses.png"
    path.write_bytes(b"old")

    def fail(self, target):
        raise OSError("disk full")

    monkeypatch.setattr(type(path), "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_png(np.zeros((4, 4, 3), np.uint8), path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["losses.png"]
