"""Numbers in words."""

import pytest

from jawloc.inference.quantities import counted, short


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (1234.5, "1234"),
        (999.7, "1000"),
        (999.4, "999"),
        (12.0, "12"),
        (2e-5, "2e-05"),
        (30, "30"),
        ("a", "a"),
    ],
)
def test_fractions_are_short_and_other_values_stay(value, text):
    """Regression: 1234 voxels were 1.23e+03, and 999.7 were 1e+03."""
    assert short(value) == text


def test_one_has_no_plural():
    assert [counted(number, "scan") for number in (0, 1, 2)] == ["0 scans", "1 scan", "2 scans"]
