"""Finished trainings, in a file of JSON lines for each workload."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reproduction.training import Trial


class Results:
    """Keeps every outcome as soon as it is known, so that a run that was interrupted goes on where it was.

    Args:
        folder: with a file ``<workload>.jsonl`` for each workload; made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._outcomes: dict[Trial, dict[str, Any]] = {}
        for path in sorted(folder.glob("*.jsonl")):
            content = path.read_text("utf-8")
            complete = content[: content.rfind("\n") + 1]
            if complete != content:  # a run ended while it wrote a line
                path.write_text(complete, "utf-8")
            for line in complete.splitlines():
                kept = json.loads(line)
                self._outcomes[Trial(**kept["trial"])] = kept["outcome"]

    def __contains__(self, trial: Trial) -> bool:
        return trial in self._outcomes

    def __getitem__(self, trial: Trial) -> dict[str, Any]:
        return self._outcomes[trial]

    def add(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """Keep an outcome."""
        with (self._folder / f"{trial.workload}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"trial": asdict(trial), "outcome": outcome}) + "\n")
        self._outcomes[trial] = outcome
