"""Text files of results, which appear whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jawloc.scans.atomic import atomic_path
from jawloc.scans.manifest import record_file


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as indented JSON."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a text file; names of files in it need not be UTF-8."""
    record_file(path)
    content = text.encode("utf-8", errors="surrogateescape")
    with atomic_path(path, len(content)) as temporary:
        temporary.write_bytes(content)
