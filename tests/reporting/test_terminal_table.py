"""Tables for the terminal."""

from jawloc.reporting.terminal_table import number, shortened, table_lines


def test_numbers_stand_to_the_right_and_names_to_the_left():
    rows = [["jaw", "9.50", "3 of 12"], ["an otolith", None, "12 of 12"]]
    assert table_lines(["", "mean", "whole"], rows) == [
        "              mean     whole",
        "  jaw         9.50   3 of 12",
        "  an otolith        12 of 12",
    ]


def test_characters_that_take_two_columns_are_counted_as_two():
    heading, wide, plain = table_lines(["scan", "z"], [["斑马鱼", "1"], ["fish", "2"]], indent=0)
    assert (heading, wide, plain) == ("scan    z", "斑马鱼  1", "fish    2")


def test_a_long_name_keeps_its_ends_and_no_name_is_longer_than_asked():
    name = "2023-11-04_fish_0031_left_rescan"
    for longest in range(1, 40):
        short = shortened(name, longest)
        assert len(short) <= longest
        assert short == name if longest >= len(name) else "…" in short
    assert shortened(name, 11) == "2023-…escan"


def test_an_unknown_number_stays_unknown():
    assert (number(None), number(2.0), number(0.12345, 3)) == (None, "2.00", "0.123")
