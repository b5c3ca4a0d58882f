"""Names of files of an object of a scan: no two share one."""

from itertools import product

import pytest

from jawloc.reporting.file_names import object_endings
from jawloc.scans.atomic import is_file_name


@pytest.mark.parametrize(
    ("objects", "endings"),
    [
        (["jaw"], [""]),
        (["../x"], [""]),
        (["upper jaw", "otolith"], ["_upper jaw", "_otolith"]),
        (["c", "b_c"], ["@c", "@b_c"]),
        (["C", "b_c"], ["@C", "@b_c"]),
        (["c", "_c"], ["@c", "@_c"]),
        (["a/b", "a_b", ".."], ["_a%2Fb", "_a_b", "_.."]),
        (["a\0", "b\\é"], ["_a%00", "_b%5Cé"]),
    ],
)
def test_endings(objects, endings):
    assert object_endings(objects) == dict(zip(objects, endings, strict=True))


@pytest.mark.parametrize("objects", [("c", "b_c"), ("c", "B_C", "b"), ("a", "b"), ("x@c", "c")])
def test_no_two_objects_of_any_two_scans_share_a_name(objects):
    """Regression: scan `a_b` and object `c` had the file of scan `a` and object `b_c`."""
    scans = ["a", "a_b", "a_b_c", "a@b", "a@x@c", "a_", "a_b@c"]
    endings = object_endings(objects)
    names = {f"{scan}{endings[name]}".casefold() for scan, name in product(scans, objects)}
    assert len(names) == len(scans) * len(objects)


@pytest.mark.parametrize("name", ["a", "a.tif", "..a", "a b", "=a", "é"])
def test_names_of_files(name):
    assert is_file_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a/", "../a", "a\0"])
def test_what_is_no_name_of_a_file(name):
    assert not is_file_name(name)
