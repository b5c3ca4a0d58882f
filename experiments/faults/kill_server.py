"""Runs jawloc's commands in forked processes and ends each at a chosen moment.

    python experiments/faults/kill_server.py      # requests in, answers out: JSON, one a line

What takes seconds (importing PyTorch and MLflow) is done once, before the first fork, so that a
command takes about a second. A moment is either a time or the number of an *event*: a change of a
file below the work folder (Python's audit hooks tell of it just before it happens), a statement
that changes the database of runs, or a step of an optimiser. No file of jawloc's is changed and no
variable of the environment is read for this.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.truncate"}
STATEMENTS = ("INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP")
LAZILY_IMPORTED = ("PIL.", "joblib", "matplotlib.", "mlflow.", "monai.", "pandas.", "plotly.")
LAZILY_IMPORTED += ("pyarrow.", "scipy.", "sklearn", "torch.", "jawloc.", "optuna.", "pydicom.")
LONGEST_SECONDS = 240.0
POLLING_SECONDS = 0.002


class Moments:
    """Counts events, and sends this process a signal before the one of a number."""

    def __init__(self, below: str, number: int | None, which: int) -> None:
        self.below, self.number, self.which = below, number, which
        self.seen: list[str] = []
        self.on = True

    def tell(self, event: str) -> None:
        if not self.on:
            return
        self.seen.append(event)
        if len(self.seen) - 1 == self.number:
            self.on = self.which != signal.SIGKILL
            os.kill(os.getpid(), self.which)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, str | os.PathLike):
            place = os.path.join(os.getcwd(), os.fspath(path))  # noqa: PTH109, PTH118 - quick
            if place.startswith(self.below):
                self.tell(f"{event} {place[len(self.below) :]}")


def watch(moments: Moments) -> None:
    """Tell of events from now on, to the end of this process."""
    import sqlalchemy
    import torch

    def statement(_conn: Any, _cursor: Any, sql: str, *_: Any) -> None:
        if sql.lstrip().upper().startswith(STATEMENTS):
            moments.tell(f"sql {' '.join(sql.split()[:3])}")

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", statement)
    sqlalchemy.event.listen(sqlalchemy.Engine, "commit", lambda _: moments.tell("sql commit"))
    step = torch.optim.AdamW.step

    def counted(self: Any, *arguments: Any, **settings: Any) -> Any:
        moments.tell("step")
        return step(self, *arguments, **settings)

    torch.optim.AdamW.step = counted  # type: ignore[method-assign]
    sys.addaudithook(moments.audit)


def draw_little() -> None:
    """Let pictures be a few pixels: drawing axes would take most of the time; files stay."""
    import numpy as np
    from matplotlib.figure import Figure

    from jawloc.reporting.figures import style
    from jawloc.workflows.tune import study_report

    def blank(*_: object, **__: object) -> Any:
        return Figure(figsize=(0.2, 0.2))

    def save_drawn(_draw: object, path: Path, *_: object) -> None:
        style.save_figure(blank(), path)

    for module in [m for name, m in sys.modules.items() if name.startswith("jawloc.")]:
        for name in vars(module).copy():
            if name.startswith("plot_") or name == "location_picture":
                setattr(module, name, blank)
            elif name == "figure_to_array":
                setattr(module, name, lambda _: np.zeros((20, 20, 3), np.uint8))
    study_report.save_drawn = save_drawn
    study_report.PLOTS = {k: v for k, v in study_report.PLOTS.items() if k == "history"}


def run_here(request: dict[str, Any]) -> int:
    """Run a command in this process, a fresh fork; return its exit code."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    os.chdir(request["folder"])
    for number, name in ((1, "out"), (2, "err")):
        file = os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    if not request["pictures"]:
        draw_little()
    which = signal.Signals[request["signal"]]
    moments = Moments(request["below"], request["event"], which)
    watch(moments)
    try:
        run_command(request["command"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 99  # as no command of jawloc's ends
    else:
        code = 0
    moments.on = False
    sys.stdout.flush()
    told = {"events": moments.seen, "modules": sorted(sys.modules)}
    Path(request["told"]).write_text(json.dumps(told), encoding="utf-8")
    return code


def run_command(command: list[str]) -> None:
    """Run one of jawloc's commands, or make what all projects share."""
    if command[0] != "prepare":
        from jawloc.cli import jawloc

        jawloc(command, prog_name="jawloc")
        return
    from jawloc.phantom import write_phantoms
    from jawloc.reporting.tracking.store import prepare_store, store_database

    number, *shape = map(int, command[1:])
    z, y, x = shape
    write_phantoms(Path("scans"), number, (z, y, x), progress=False)
    prepare_store(Path("empty"))
    with sqlite3.connect(store_database(Path("empty"))) as database:
        database.execute("PRAGMA journal_mode=DELETE")  # one file
        # its artifacts would go to the folder that it was made in
        database.execute("UPDATE experiments SET name = 'other' WHERE name = 'jaw_location'")


def forked(request: dict[str, Any]) -> int:
    """Begin a command in a process of its own; return its number."""
    child = os.fork()
    if child:
        return child
    code = 98
    try:
        code = run_here(request)
    finally:
        os._exit(code)


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Run a command in a process of its own, end it if so asked, and tell how it ended.

    With `meanwhile`, a request, run a second one beside it, `begin` seconds later.
    """
    started, sent = time.monotonic(), False
    child, second = forked(request), 0
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        passed = time.monotonic() - started
        other = request["meanwhile"]
        if other is not None and not second and (pid or passed > other["begin"]):
            second = forked({**request, **other})
        if pid:
            break
        if request["after"] is not None and passed > request["after"] and not sent:
            sent = True
            os.kill(child, signal.Signals[request["signal"]])
        if passed > LONGEST_SECONDS:
            os.kill(child, signal.SIGKILL)
        time.sleep(POLLING_SECONDS)
    if not status:
        import_too(json.loads(Path(request["told"]).read_text(encoding="utf-8"))["modules"])
    answer = {"code": os.waitstatus_to_exitcode(status), "seconds": passed}
    if second:
        answer["second"] = os.waitstatus_to_exitcode(os.waitpid(second, 0)[1])
    return answer


def import_too(modules: list[str]) -> None:
    """Import what a command imported on its way, so that the next has it."""
    for name in modules:
        if name.startswith(LAZILY_IMPORTED):
            with suppress(Exception):
                importlib.import_module(name)


def prepare() -> None:
    """Import what every command needs; begin no thread."""
    import mlflow.pyfunc
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store
    import mlflow.utils.requirements_utils
    import torch._dynamo  # noqa: F401 - the first optimiser imports it

    import jawloc.cli
    import jawloc.reporting.tracking.model_files
    import jawloc.workflows.cross_validate
    import jawloc.workflows.demo
    import jawloc.workflows.locate
    import jawloc.workflows.tune  # noqa: F401

    with suppress(AttributeError):  # seconds, whenever a model is logged
        mlflow.utils.requirements_utils._init_modules_to_packages_map()


def main(answer: Callable[[str], object]) -> None:
    prepare()
    answer("ready")
    for line in sys.stdin:
        answer(json.dumps(serve(json.loads(line))))


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    main(lambda text: print(text, file=channel, flush=True))
