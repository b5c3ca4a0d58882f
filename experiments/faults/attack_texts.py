"""Secrets, formulas and elements of pages in texts: none is shown, computed or run."""

from __future__ import annotations

import csv
import io
import logging
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from attack_files import empty_row
from campaign import Outcome, Plan

from jawloc.errors import InputError, without_secrets
from jawloc.inference.comparison import Decision
from jawloc.inference.exports import csv_text, napari_text, read_rows, table_text
from jawloc.inference.model_evaluation import Failure, ModelEvaluation
from jawloc.reporting.evaluation_report import html_report

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
SIGNS = "-._~!$*+,;=:/@%"  # that people put into passwords, though addresses want some encoded
SCHEMES = ("postgresql", "postgresql+psycopg", "mysql", "http", "https", "s3", "wasbs")
RUN = ("=", "+", "-", "@", "\t", "\r")  # what table programs take for a formula
FORMULA_STARTS = (*RUN, "'=", "''@")
MARKUP = (
    *("<script>{}</script>", "'\"><img src=x onerror={}>", "</style><script>{}</script>"),
    *("<svg onload={}>", "javascript:{}", "{{{{ {} }}}}", "{{% {} %}}", "</title><b id={}>"),
    *("<meta http-equiv=refresh content='0;url={}'>", "<base href={}>", "<!-- {} -->", "&lt;{}"),
)
NETWORK_ELEMENTS = {"script", "iframe", "object", "embed", "link", "base", "form", "svg", "b"}


def text_faults(plan: Plan) -> Iterator[Outcome]:
    rng = plan.random
    for _ in range(200 if plan.short else 10_000):
        yield _address(rng)
    for number in range(50 if plan.short else 2000):
        yield _cell(rng, plan.work / "locations.csv", number)
    for markup in MARKUP:
        for number in range(1 if plan.short else 20):
            yield _page(markup.format(f"alert({number})"))
    yield _host()


def _word(rng: random.Random, letters: str, longest: int) -> str:
    return "".join(rng.choice(letters) for _ in range(rng.randrange(1, longest)))


def _address(rng: random.Random) -> Outcome:
    """Quote an address with a secret in it in a sentence, an error and a line of MLflow's log."""
    secret = f"Zq{_word(rng, LETTERS + SIGNS, 12)}qZ"
    user, host = _word(rng, LETTERS, 8), _word(rng, LETTERS, 8)
    scheme = rng.choice(SCHEMES)
    query = re.sub(r"[^A-Za-z0-9._~%-]", "", secret)
    address, shown = rng.choice(
        [
            (f"{scheme}://{user}:{secret}@{host}:5432/runs", secret),
            (f"{scheme}://{host}/x?a=1&{rng.choice(KEYS)}={query}&b=2", query),
        ]
    )
    sentence = f"{address}: the store can't be reached; no answer from {address}"
    record = logging.LogRecord("mlflow.x", logging.ERROR, "", 0, "gone: %s", (address,), None)
    texts = [without_secrets(sentence), str(InputError(sentence)), _logged(record)]
    lost = any(shown in text or host not in text for text in texts)
    detail = f"{address!r}: {texts[0]}"
    return Outcome("a secret in an address", "LOST" if lost else "survived", detail)


KEYS = ("password", "token", "access_token", "sig", "api_key", "sslpassword")


def _logged(record: logging.LogRecord) -> str:
    import jawloc.reporting.tracking.store  # noqa: F401 - which hides secrets in MLflow's lines

    handlers = logging.getLogger("mlflow").handlers
    if not handlers:
        raise AssertionError("MLflow's log has no handler")
    for handler in handlers:
        handler.filter(record)
    return record.getMessage()


def _cell(rng: random.Random, path: Path, number: int) -> Outcome:
    """Write a name that a table program would compute, and read it back as it was."""
    name = rng.choice(FORMULA_STARTS) + rng.choice(("cmd|' /C calc'!A0", "1+1", "SUM(A1)", "é,\"'"))
    row = empty_row(scan=name, reason=name, z_voxels=-1.5, z_mm=-0.25)
    text = csv_text([row])
    path.write_text(text, "utf-8", newline="")
    tables = (text, table_text([{"a": name}]), napari_text([row]))
    lines = (line for table in tables for line in csv.reader(io.StringIO(table)))
    cells = [cell for line in lines for cell in line]
    computed = [cell for cell in cells if cell.startswith(RUN) and not _number(cell)]
    lost = computed or "-1.5" not in cells or read_rows(path) != [row]
    return Outcome("a formula in a cell", "LOST" if lost else "survived", f"{number}: {name!r}")


def _number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?", text) is not None


class _Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.handlers: list[str] = []
        self.policy = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.handlers += [name for name, _ in attrs if name.startswith("on")]
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs).get("content") or ""


def _page(text: str) -> Outcome:
    """Name the model, its object, a scan and a reason after elements of a page."""
    failure = Failure(text, text, text)
    report = ModelEvaluation(text, text, (1, 1, 1), (text,), (), (failure,), (), text)
    page = _Elements(html_report(report, {}, Decision(reason=text)))
    foreign = NETWORK_ELEMENTS.intersection(page.names) or page.handlers
    open_policy = "default-src 'none'" not in page.policy or "script-src" in page.policy
    lost = foreign or open_policy or page.names.count("meta") != _OWN_METAS
    return Outcome("elements of a page in a name", "LOST" if lost else "survived", repr(text))


_OWN_METAS = 3  # encoding, policy, width


def _host() -> Outcome:
    from jawloc.cli import ui

    (host,) = [option.default for option in ui.params if option.name == "host"]
    what = "survived" if host == "127.0.0.1" else "LOST"
    return Outcome("pages that other machines reach unasked", what, str(host))
