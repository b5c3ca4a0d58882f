"""MkDocs hooks: pages may link to the repository's other files as on a code host.

A link that leads out of `docs/`, such as `../experiments/log.md`, is right in the repository. For
the built pages, what it leads to is added, with all that this links to in turn: `docs/x.md` lies at
`x.md` there, and every other file where the repository has it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#|/)([^)\s#]+)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside `docs/` that pages link to."""
    wanted = [file.src_uri for file in files if file.is_documentation_page()]
    wanted += _pages_of(config.nav)
    seen: set[str] = set()
    while wanted:
        uri = wanted.pop()
        if uri in seen:
            continue
        seen.add(uri)
        path = _in_repository(uri)
        if files.get_file_from_path(uri) is None and path.is_file():
            files.append(File.generated(config, uri, abs_src_path=str(path)))
        if path.suffix == ".md" and path.is_file():
            links = LINK.findall(path.read_text(encoding="utf-8"))
            wanted += [uri_of for link in links if (uri_of := _site_uri(path, link)) is not None]
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let each link lead to where the built pages have its file."""
    path = _in_repository(page.file.src_uri)

    def relative(found: re.Match[str]) -> str:
        uri = _site_uri(path, found[1])
        if uri is None:
            return found[1]
        return os.path.relpath(uri, PurePosixPath(page.file.src_uri).parent)

    return LINK.sub(relative, markdown)


def _pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    entries = nav.values() if isinstance(nav, dict) else nav or []
    return [page for entry in entries for page in _pages_of(entry)]


def _in_repository(uri: str) -> Path:
    own = REPOSITORY / "docs" / uri
    return own if own.exists() else REPOSITORY / uri


def _site_uri(page: Path, link: str) -> str | None:
    """Return where the built pages have what a page in the repository links to."""
    target = Path(os.path.normpath(page.parent / link))
    if not target.is_file() or not target.is_relative_to(REPOSITORY):
        return None
    path = target.relative_to(REPOSITORY)
    return (path.relative_to("docs") if path.parts[0] == "docs" else path).as_posix()
