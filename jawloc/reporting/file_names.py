"""Names of results that are of one object of one scan: no two share one, none leads elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNUSUAL = re.compile(r"[^\w .-]")  # which settings allow in no object's name, but a model may have


def object_endings(objects: Sequence[str]) -> dict[str, str]:
    """Return what the names of each object's files end with: nothing where there is only one.

    It is `_<object>`. Where that could be read in two ways, since one object's name ends as
    another's (scan `a_b` and object `c`, scan `a` and object `b_c`), it is `@<object>`.
    """
    if len(objects) == 1:
        return dict.fromkeys(objects, "")
    names = {name: encoded(name) for name in objects}
    # as some disks have it, on which upper and lower case are the same
    folded = [name.casefold() for name in names.values()]
    unclear = any(own.endswith(f"_{other}") for own in folded for other in folded)
    return {name: f"{'@' if unclear else '_'}{shown}" for name, shown in names.items()}


def encoded(object_name: str) -> str:
    """Return an object's name with every character that may mean more replaced by its bytes."""
    return _UNUSUAL.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "replace")),
        object_name,
    )
