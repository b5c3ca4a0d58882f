"""Pages of results: their templates, and the policy by which they run and load nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_SCRIPT = re.compile(r"<script[^>]*>(.*?)</script>", re.DOTALL | re.IGNORECASE)
_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:"


def page_templates() -> Environment:
    """Return this folder's templates, which escape every value and state the policy of a page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["policy"] = page_policy
    return environment


def page_policy(style: str, script: str | None = None) -> str:
    """Return the policy of a page of pictures with one style sheet, and one script or none."""
    runs = "" if script is None else f"; script-src {_sources([script])}"
    return f"{_NOTHING}; style-src {_sources([style])}{runs}"


def plotly_policy(page: str) -> str:
    """Return the policy of a page of Plotly's figures: only the scripts that it has now run.

    Two sources are as wide as they are because of Plotly: it styles its figures by inline styles,
    and builds the drawing functions of parallel coordinates from text (`unsafe-eval`).
    """
    scripts = f"{_sources(_SCRIPT.findall(page))} 'unsafe-eval'"
    return f"{_NOTHING} blob:; style-src 'unsafe-inline'; script-src {scripts}"


def _sources(texts: Iterable[str]) -> str:
    """Return what allows inline texts, by their hashes, as browsers compute them."""
    every = (text.replace("\r\n", "\n").replace("\r", "\n").encode() for text in texts)
    hashes = (base64.b64encode(hashlib.sha256(text).digest()).decode() for text in every)
    return " ".join(f"'sha256-{one}'" for one in dict.fromkeys(hashes))
