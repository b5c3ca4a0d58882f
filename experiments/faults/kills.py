"""Commands that are killed, interrupted or started twice; the same command must go on.

Half of the kills come at a random event (see `kill_server.py`), drawn from each phase of a command
alike, half at a random time. After each the user types the same command again, by turns as it was
and with `--resume`; some are killed a second time. In the end weights, tables, files, and runs in
MLflow must be those of a command that nothing disturbed.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kill_checks as checks
import yaml
from campaign import Outcome, Plan

from jawloc.reporting.folders.run_folder import is_finished

SCANS, SHAPE, TRIALS = 5, (24, 16, 16), 2
SETTINGS = {
    "downsampled_dicom_size": [16, 16, 16],
    "initial_kernel_size": 4,
    "num_epochs": 3,
    "crop_size": [12, 12, 12],
    "learning_rate": 0.003,
    "network": {"channels": [4, 8], "stride": 2},
    "presence_classifier": {"steps": 3},
    "curriculum": {"threshold": 100.0, "minimum_sigma": 1.5},
}
RUN = Path("script_output") / "jaw_location" / "m"
TWICE_SHARE = 0.2  # of the kills that are followed by another one
ONE_AT_A_TIME = ("train", "train --folds", "locate")  # of a study, all commands work together
PICTURES_SHARE = 0.05  # of the commands that draw real pictures


@dataclass(frozen=True)
class Kind:
    """A command to kill, and how to tell that it was done in the end."""

    name: str
    command: tuple[str, ...]
    wrong: Callable[[Path, Path], list[str]]  # of a project, compared with an undisturbed one
    again: tuple[str, ...] = ("--resume",)
    share: float = 1.0  # of the kills


KINDS = {
    kind.name: kind
    for kind in (
        Kind("train", ("train", "--model-name", "m"), checks.wrong_training, share=0.5),
        Kind(
            "train --folds",
            ("train", "--model-name", "m", "--folds", "2"),
            checks.wrong_training,
            share=0.2,
        ),
        Kind(
            "tune",
            ("tune", "--trials", str(TRIALS), "--epochs", "2"),
            lambda base, other: checks.wrong_study(base, other, TRIALS),
            (),
            share=0.15,
        ),
        Kind(
            "locate",
            ("locate", "../model.pth", "../scans", "--output-dir", "out"),
            checks.wrong_locations,
            share=0.15,
        ),
    )
}


class Lab:
    """Scans, a server that runs commands, and what an undisturbed command of each kind leaves."""

    def __init__(self, work: Path) -> None:
        self.work = work
        server = Path(__file__).with_name("kill_server.py")
        self.server = subprocess.Popen(
            [sys.executable, server], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()
        self.references: dict[str, tuple[Path, list[str], float]] = {}
        self.number = 0

    def _answer(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline()

    def ask(self, folder: Path, command: Sequence[str], **how: Any) -> dict[str, Any]:
        """Run a command in a folder; `how` says when which signal ends it."""
        request = {"folder": str(folder), "command": list(command), "below": f"{folder}/"}
        request |= {"out": str(self.work / "out.txt"), "err": str(self.work / "err.txt")}
        request |= {"told": str(self.work / "told.json"), "pictures": False}
        request |= {"signal": "SIGKILL", "event": None, "after": None, "meanwhile": None, **how}
        assert self.server.stdin is not None
        self.server.stdin.write(f"{json.dumps(request)}\n")
        self.server.stdin.flush()
        answer = json.loads(self._answer())
        said = Path(request["err"]).read_text(encoding="utf-8", errors="replace")
        return {**answer, "said": said.strip()}

    def prepare(self) -> None:
        """Make the scans, an empty store, and a model to locate with."""
        self.ask(self.work, ["prepare", str(SCANS), *map(str, SHAPE)])
        first = self.project("first")
        done = self.ask(first, KINDS["train"].command)
        assert done["code"] == 0, done["said"]
        shutil.copyfile(first / RUN / "m.pth", self.work / "model.pth")

    def project(self, name: str = "") -> Path:
        """Return a new project folder with settings and an empty store."""
        self.number += 1
        folder = self.work / (name or f"project_{self.number}")
        shutil.copytree(self.work / "empty", folder)
        settings = {**SETTINGS, "dicom_dirs": [str(self.work / "scans")]}
        text = yaml.safe_dump({"jaw_loc_config": settings})
        (folder / "userconf.yml").write_text(text, encoding="utf-8")
        return folder

    def reference(self, kind: Kind) -> tuple[Path, list[str], float]:
        """Return an undisturbed command's project, its events, and its seconds."""
        if kind.name not in self.references:
            folder = self.project(f"whole_{len(self.references)}")
            done = self.ask(folder, kind.command)
            assert done["code"] == 0, done["said"]
            told = json.loads((self.work / "told.json").read_text(encoding="utf-8"))
            self.references[kind.name] = folder, told["events"], done["seconds"]
        return self.references[kind.name]

    def close(self) -> None:
        self.server.kill()
        self.server.wait()


def phases(events: Sequence[str]) -> dict[str, list[int]]:
    """Return the numbers of a command's events by what it does then."""
    found: dict[str, list[int]] = {}
    saved = [i for i, event in enumerate(events) if "checkpoint.pt" in event]
    first, last = (saved[0], saved[-2]) if saved else (len(events), len(events))
    for number, event in enumerate(events):
        if "downsampled_dicoms" in event:
            phase = "while the cache is built"
        elif "checkpoint.pt" in event:
            phase = "while a checkpoint is written"
        elif ".png" in event and "mlruns" not in event:
            phase = "while pictures are drawn"
        elif "sql" in event or "mlruns" in event:
            phase = "while MLflow logs"
        elif event == "step" and number < first:
            phase = "in the first epoch"
        elif event == "step":
            phase = "in a later epoch" if number < last else "while the presence network learns"
        else:
            phase = "while folders and tables are written"
        found.setdefault(phase, []).append(number)
    return found


def one_sentence(said: str) -> bool:
    """Return whether an error is one sentence, which a warning about the model may precede."""
    said = "\n".join(line for line in said.splitlines() if not line.startswith("warning: "))
    return said.startswith("Error: ") and len(said.splitlines()) == 1


def kill(lab: Lab, kind: Kind, draw: random.Random, way: str, which: str) -> Outcome:
    """End a command somewhere, go on with it, and compare with an undisturbed one."""
    reference, events, seconds = lab.reference(kind)
    base = lab.project()
    by_event = draw.random() < 0.5
    phase, how, where = "at a random time", {"after": draw.uniform(0.05, seconds)}, ""
    if by_event:
        every = phases(events)
        phase = draw.choice(sorted(every))
        number = draw.choice(every[phase])
        how, where = {"event": number}, f"event {number} ({events[number]})"
    fault = f"{kind.name}: {which} {phase}"
    pictures = draw.random() < PICTURES_SHARE
    repeated = draw.random() < TWICE_SHARE
    first = lab.ask(base, kind.command, signal=which, pictures=pictures, **how)
    detail = f"{where or how}, {way}"
    if which == "SIGKILL" and first["code"] not in (-9, 0):
        return Outcome(fault, "LOST", f"{detail}: code {first['code']}: {first['said'][-300:]}")
    wrong = [] if which == "SIGKILL" else wrong_interruption(base, first, which)
    run_ids = known_runs(base)
    if repeated and first["code"] != 0:
        more = ("--resume",) if way == "resume" and kind.again else ()
        after = draw.uniform(0.05, seconds)
        again = lab.ask(base, (*kind.command, *more), signal="SIGKILL", after=after)
        first = again if again["code"] == 0 else first  # it came too late
        detail += f", again after {after:.2f} s"
        run_ids |= known_runs(base)
    if first["code"] != 0 or way == "resume":
        wrong += go_on(lab, kind, base, way)
    wrong += kind.wrong(base, reference)
    if run_ids - set(checks.Store(base).finished().values()):
        wrong.append("it went on in another run")
    shutil.rmtree(base)
    text = f"{detail}: {'; '.join(wrong)}" if wrong else detail
    return Outcome(fault, "LOST" if wrong else "survived", text)


def start_twice(lab: Lab, kind: Kind, draw: random.Random) -> Outcome:
    """Begin a command a second time while it works: one of the two must do it, undisturbed."""
    reference, _, seconds = lab.reference(kind)
    base, begin = lab.project(), draw.uniform(0, 0.8 * seconds)
    second = {"begin": begin, "err": str(lab.work / "err_2.txt"), "told": str(lab.work / "told_2")}
    ended = lab.ask(base, kind.command, meanwhile=second)
    others = Path(second["err"]).read_text(encoding="utf-8", errors="replace").strip()
    said = {ended["code"]: ended["said"], ended["second"]: others}
    wrong = [] if said.keys() == {0, 2} else [f"exit codes {sorted(said)}: {said}"]
    if 2 in said and not one_sentence(said[2]):
        wrong.append(f"it said: {said[2][-300:]!r}")
    wrong += kind.wrong(base, reference)
    shutil.rmtree(base)
    detail = "; ".join([f"after {begin:.2f} s", *wrong])
    return Outcome(f"{kind.name}: twice at once", "LOST" if wrong else "survived", detail)


def known_runs(base: Path) -> set[str]:
    """Return the ids of the runs that have a checkpoint to go on with."""
    paths = (base / "script_output").rglob(checks.CHECKPOINT)
    mine = [path for path in paths if ".replac" not in str(path)]
    whole = not mine or (base / RUN / checks.CHECKPOINT).is_file()  # else nothing counts yet
    return {str(checks.run_of_checkpoint(path)) for path in mine} if whole else set()


def go_on(lab: Lab, kind: Kind, base: Path, way: str) -> list[str]:
    """Type the command again; return what is wrong with what it says."""
    if way == "plain" or not kind.again:
        done = lab.ask(base, kind.command)
        if done["code"] == 0:
            return []
        if done["code"] == 2 and is_finished(base / RUN) and "is taken" in done["said"]:
            return []  # it was killed after it had done everything
        if done["code"] != 2 or not one_sentence(done["said"]) or "--resume" not in done["said"]:
            return [f"the plain command: code {done['code']}: {done['said'][-400:]}"]
    done = lab.ask(base, (*kind.command, *kind.again))
    return [] if done["code"] == 0 else [f"--resume: code {done['code']}: {done['said'][-400:]}"]


def wrong_interruption(base: Path, ended: dict[str, Any], which: str) -> list[str]:
    """Return what is wrong with how a command ended after Ctrl-C or SIGTERM."""
    expected = 128 + int(signal.Signals[which])
    if ended["code"] == 0:  # the signal came too late
        return []
    if ended["said"] in ("", "Aborted!"):  # or before the command had begun
        return []
    last = (ended["said"].splitlines() or [""])[-1]
    wrong = [] if ended["code"] == expected else [f"exit code {ended['code']}, not {expected}"]
    if "same command" not in last:
        wrong.append(f"it doesn't say how to go on: {ended['said'][-300:]!r}")
    if (base / RUN / checks.CHECKPOINT).is_file() and "--resume" not in last:
        wrong.append(f"it doesn't say --resume: {last!r}")
    return wrong


def faults(plan: Plan) -> Iterator[Outcome]:
    """Kill 200 commands, interrupt 40, and start 20 twice; in short, 5, 2 and 1."""
    kills, signals, twice = (5, 2, 1) if plan.short else (200, 40, 20)
    draw, lab = plan.random, Lab(plan.work.resolve())
    try:
        lab.prepare()
        for number in range(kills + signals):
            which = "SIGKILL" if number < kills else ("SIGINT", "SIGTERM")[number % 2]
            kind = draw.choices([*KINDS.values()], [k.share for k in KINDS.values()])[0]
            way = ("plain", "resume")[number // 2 % 2]
            yield kill(lab, kind, draw, way, which)
        for _ in range(twice):
            yield start_twice(lab, KINDS[draw.choice(ONE_AT_A_TIME)], draw)
    finally:
        lab.close()
