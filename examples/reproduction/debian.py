"""Fetches the data that Debian ships, without installing it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

# Licences, by the packages' own words: Expat; public domain; public domain.
PACKAGES = ("dataset-fashion-mnist", "sword-text-web", "sword-text-sparv")


def fetch(folder: Path) -> None:
    """Put what the packages share into ``folder``, 37 MB: ``datasets``, ``sword``, and their licences in ``doc``.

    Raises:
        RuntimeError: a tool is missing or fails.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise RuntimeError(f"{tool} is needed to fetch {', '.join(PACKAGES)}: run this on Debian or Ubuntu")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        _call("apt-get", "download", *PACKAGES, cwd=scratch)
        for package in sorted(Path(scratch).glob("*.deb")):
            _call("dpkg-deb", "-x", str(package), f"{scratch}/files", cwd=scratch)
        shutil.copytree(f"{scratch}/files/usr/share", folder, dirs_exist_ok=True)


def _call(*command: str, cwd: str) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"`{' '.join(command)}` failed: {done.stderr.strip()}\nIf a package is unknown, run `apt-get update` first"
        )
