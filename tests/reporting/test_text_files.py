"""Text files and tables: whole or not at all, and read back as they were."""

import csv
import json

import pytest

from jawloc.heatmaps.metrics import HeatmapMetrics
from jawloc.inference.exports import table_text
from jawloc.reporting.text_files import write_json, write_text
from jawloc.training.loop import EpochRecord


@pytest.mark.parametrize("mm", [0.5, None])
def test_the_table_can_be_read_back(tmp_path, mm):
    metrics = HeatmapMetrics(1.5, 0.5, 1e-7, 3.0, 2.0, 9.0, mm, mm, mm)
    records = [EpochRecord(n, 8.0 / n, 1e-3, metrics, metrics, 2.5) for n in (1, 2)]
    write_text(tmp_path / "metrics.csv", table_text([record.flat() for record in records]))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [{k: float(v) for k, v in row.items()} for row in rows] == [r.flat() for r in records]
    assert ("val_error_mm" in rows[0]) == (mm is not None)


def test_a_file_is_whole_or_the_old_one(tmp_path):
    write_json(tmp_path / "x.json", {"é": [1, None]})
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"é": [1, None]}
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "x.json", "good so far \ud800")
    assert json.loads((tmp_path / "x.json").read_text(encoding="utf-8")) == {"é": [1, None]}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
