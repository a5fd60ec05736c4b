"""`./run check`: every static check, one after the other, and all of them even when one fails."""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

BIN = Path(sys.executable).parent
CHECKS: dict[str, Sequence[str]] = {
    "lint": (str(BIN / "ruff"), "check", "."),
    "format": (str(BIN / "ruff"), "format", "--check", "."),
    "types": (sys.executable, "-m", "mypy"),
    "types, second opinion": (sys.executable, "-m", "basedpyright"),
    "imports": (str(BIN / "lint-imports"),),
    "tidy": (sys.executable, "-m", "pytest", "-q", "tests/tidy"),
}


def main() -> int:
    """Run all; the exit code is 0 only when every check passed."""
    failed = []
    for name, command in CHECKS.items():
        if name == "tidy" and not Path("tests/tidy").exists():
            continue
        began = time.monotonic()
        passed = subprocess.run(command, check=False).returncode == 0
        print(f"check: {name}: {'passed' if passed else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
        if not passed:
            failed.append(name)
    print(f"check: {len(failed)} failed: {', '.join(failed)}" if failed else "check: all passed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
