"""The cache of downloads and builds.

An item is a folder named by what it holds and in which version. It is filled in place, under a lock of its own, and
counts only once its `.complete` mark is there: whatever interrupts a build, the next run finds no mark and begins that
item again. Places never move, so virtual environments and patched binaries may hold their own path.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

LINES_OF_A_LOG, LONGEST_LINE = 20, 400


class Failed(Exception):
    """Something could not be provided. One sentence says what to do; a program's own last words may follow it."""


def end_of(log: Path, begin: int = 0) -> str:
    """What was last written to a log from byte `begin` on, set apart line by line; nothing when nothing was."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(begin, size - LINES_OF_A_LOG * LONGEST_LINE))
        lines = [line.rstrip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return "".join(f"\n  | {line[:LONGEST_LINE]}" for line in lines[-LINES_OF_A_LOG:])


class Progress:
    """Says, with the time passed, what is being done; a reminder follows while something long is under way."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._spoke = self._start
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[float, str]] = {}

    def say(self, text: str) -> None:
        """Print one line on standard error."""
        with self._lock:
            self._spoke = time.monotonic()
            print(f"[{self._spoke - self._start:4.0f} s] {text}", file=sys.stderr, flush=True)

    @contextmanager
    def step(self, what: str, usually: str) -> Iterator[None]:
        """Announce a long step and, when it worked, its end."""
        began = time.monotonic()
        self._under_way[what] = (began, usually)
        self.say(f"{what} (usually {usually})")
        try:
            yield
        finally:
            self._under_way.pop(what, None)
        self.say(f"{what}: done in {time.monotonic() - began:.0f} s")

    def remind(self, every_s: float = 20) -> None:
        """Say what is still under way when nothing was said for a while."""
        now = time.monotonic()
        under_way = [
            f"{what} ({now - began:.0f} s of usually {usually})"
            for what, (began, usually) in list(self._under_way.items())
        ]
        if under_way and now - self._spoke >= every_s:
            self.say("still: " + "; ".join(under_way))


class Children:
    """The programs that provisioning runs; all of them end when the person presses Ctrl-C."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self.stopped = False

    def run(
        self, command: Sequence[str | Path], *, log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        """Run to the end with its output in `log`; raise `subprocess.CalledProcessError` when it fails."""
        with log.open("ab") as out, self._lock:
            if self.stopped:
                raise Failed("Interrupted: run the same command again to go on.")
            child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                process_group=0,
            )
            self._running.add(child)
        try:
            code = child.wait()
        finally:
            with self._lock:
                self._running.discard(child)
        if code != 0:
            raise subprocess.CalledProcessError(code, str(command[0]))

    def stop(self) -> None:
        """Kill what runs, start nothing more."""
        with self._lock:
            self.stopped = True
            for child in self._running:
                try:
                    os.killpg(child.pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue


class Store:
    """The cache folder, with what provisioning needs at hand."""

    open_ones: ClassVar[list["Store"]] = []

    def __init__(self, folder: Path) -> None:
        self.open_ones.append(self)
        self.folder = folder
        self.progress = Progress()
        self.children = Children()
        try:
            for name in ("locks", "logs"):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Failed(
                f"The cache folder {folder} cannot be written ({error.strerror}): set MILLRACE_CACHE to one that can."
            ) from None

    def item(self, key: str, build: Callable[[Path], None], *, what: str, usually: str) -> Path:
        """The complete folder `key`, built now unless it is there. `usually` tells a person how long that takes."""
        folder = self.folder / key
        mark = folder / ".complete"
        if mark.exists():
            return folder
        with self.lock(key):
            if mark.exists():
                return folder
            remove(folder)
            folder.mkdir(parents=True)
            with self.progress.step(what, usually):
                build(folder)
            mark.touch()
        return folder

    def has(self, key: str) -> bool:
        """Whether the item is there, complete."""
        return (self.folder / key / ".complete").exists()

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """One holder at a time among all runs on this cache; the kernel frees it when its holder dies."""
        told = False
        with (self.folder / "locks" / name).open("w") as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if self.children.stopped:
                        raise Failed("Interrupted: run the same command again to go on.") from None
                    if not told:
                        self.progress.say(f"{name}: waiting for another run that is making it")
                        told = True
                    time.sleep(0.2)
            yield

    def run(
        self,
        name: str,
        cure: str,
        command: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Run a program with its output in the log `name`; when it fails, raise `Failed`: `cure` and its last words."""
        log = self.folder / "logs" / f"{name}.log"
        begin = log.stat().st_size if log.exists() else 0
        try:
            self.children.run(command, log=log, env=env, cwd=cwd)
        except FileNotFoundError:
            raise Failed(f"{cure} ({command[0]} is not installed here).") from None
        except subprocess.CalledProcessError as error:
            raise Failed(f"{cure} (exit {error.returncode}; details: {log}).{end_of(log, begin)}") from None


def remove(folder: Path) -> None:
    """Delete a folder with all in it, also what was made read-only; nothing happens when it is not there."""
    if not folder.exists():
        return
    for path, _, _ in os.walk(folder):
        Path(path).chmod(0o700)
    shutil.rmtree(folder)
