"""The bar below the views: what is looked at, how many are left, and a button for each key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget


@dataclass(frozen=True)
class Action:
    """Something that a person can do: its key, its name, and what it means."""

    key: str
    name: str
    meaning: str


class Bar(QWidget):
    """The bar; `buttons` are those of the actions, by their keys."""

    def __init__(self, actions: Mapping[str, Action]) -> None:
        super().__init__()
        self.title, self.said, self.progress = QLabel(), QLabel(), QProgressBar()
        self.title.setStyleSheet("font-weight: bold")
        self.title.setWordWrap(True)
        self.said.setWordWrap(True)
        above, below, whole = QHBoxLayout(), QHBoxLayout(), QVBoxLayout(self)
        above.addWidget(self.title, 3)
        above.addWidget(self.progress, 1)
        self.buttons = {}
        for name, action in actions.items():
            button = QPushButton(f"{action.name} ({action.key})")
            button.setToolTip(action.meaning)
            self.buttons[name] = button
            below.addWidget(button)
        for part in (above, below):
            whole.addLayout(part)
        whole.addWidget(self.said)

    def show_left(self, left: int, total: int) -> None:
        """Say how many positions are left."""
        self.progress.setMaximum(total)
        self.progress.setValue(total - left)
        self.progress.setFormat(f"{left} of {total} left")
