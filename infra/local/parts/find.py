"""Programs that this machine already has: one on PATH in a fitting version is always preferred to a download."""

import re
import shutil
import subprocess
from pathlib import Path


def program(name: str, at_least: tuple[int, ...], *, ask: tuple[str, ...] = ("--version",)) -> Path | None:
    """The program called `name` on PATH, with links followed, if it runs and says that it is at least that version."""
    found = shutil.which(name)
    return Path(found).resolve() if found is not None and fits(Path(found), at_least, ask=ask) else None


def fits(found: Path, at_least: tuple[int, ...], *, ask: tuple[str, ...] = ("--version",)) -> bool:
    """Whether a program runs here and says that it is at least that version."""
    try:
        answer = subprocess.run(
            [found, *ask], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    said = version_in(answer)
    return said is not None and said >= at_least


def version_in(text: str) -> tuple[int, ...] | None:
    """The first version number in what a program says of itself."""
    found = re.search(r"(?<![\d.])v?(\d+(?:\.\d+)+)", text)
    return tuple(int(part) for part in found.group(1).split(".")) if found else None
