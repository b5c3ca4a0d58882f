"""Numbers under flat names."""

from jawloc.reporting.tables import flatten


def test_keys_are_joined_and_what_is_unknown_is_left_out():
    nested = {"error": {"": 2, "mm": {"a": 3}, "b": None}, "coverage": None, "": {"rows": 4}}
    assert flatten(nested) == {"error": 2.0, "error_mm_a": 3.0, "rows": 4.0}
