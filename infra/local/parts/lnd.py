"""LND, built once from its published Go module, whose exact versions are pinned in `infra/local/lnd`.

No prebuilt LND is published in a package registry. The build turns inlining off: it takes half the time and the node
runs somewhat slower, which must be mentioned with any rate that is measured on it.
"""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from infra.local.parts import find
from infra.local.parts.store import Failed, Store, remove

MODULE = Path(__file__).resolve().parent.parent / "lnd"
LND = "github.com/lightningnetwork/lnd"
TAGS = "signrpc walletrpc chainrpc invoicesrpc lowscrypt"
CURE = "LND could not be built: it needs 2 GB of memory, 5 GB of disk and Go's module proxy; see to that and run again"
PROTOS_NEEDED = (
    "lightning.proto",
    "stateservice.proto",
    "routerrpc/router.proto",
    "invoicesrpc/invoices.proto",
    "walletrpc/walletkit.proto",
    "signrpc/signer.proto",
)


def version() -> str:
    """The pinned version of LND, as its module names it."""
    found = re.search(rf"^\s*(?:require )?{re.escape(LND)} (\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise Failed("infra/local/lnd/go.mod names no version of LND: restore it from git.")
    return found.group(1)


def key() -> str:
    """Version and checksum of everything that is built."""
    pins = (MODULE / "go.mod").read_bytes() + (MODULE / "go.sum").read_bytes() + TAGS.encode()
    return f"{version()}-{hashlib.sha256(pins).hexdigest()[:12]}"


def _go_environment(store: Store, go: Path) -> dict[str, str]:
    """Go with folders of its own: an interrupted build goes on from them, a finished one deletes them."""
    work = store.folder / "go-work"
    return {
        "GOPATH": str(work / "path"),
        "GOMODCACHE": str(work / "mod"),
        "GOCACHE": str(work / "build"),
        "GOFLAGS": "-modcacherw -mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "CGO_ENABLED": "0",
        "PATH": f"{go.parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def protos(store: Store, go: Path) -> Path:
    """The `.proto` files of exactly the pinned version."""

    def build(folder: Path) -> None:
        listing = folder / "module.json"
        environment = _go_environment(store, go)
        cure = "The source of LND could not be fetched: check that Go reaches its module proxy and run again"
        store.run(
            "lnd-protos",
            cure,
            ["sh", "-c", f'exec "$0" mod download -json {LND} > "$1"', go, listing],
            env=environment,
            cwd=MODULE,
        )
        source = Path(json.loads(listing.read_text())["Dir"]) / "lnrpc"
        for name in PROTOS_NEEDED:
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target)

    return store.item(f"lnd-protos-{key()}", build, what="LND's protocol files", usually="5 s")


def build_program(store: Store, go: Path, name: str = "lnd") -> Path:
    """Build `lnd` or `lncli`."""

    def build(folder: Path) -> None:
        command: list[str | Path] = [
            go,
            "build",
            "-trimpath",
            "-ldflags",
            "-s -w",
            "-gcflags=all=-l",
            "-tags",
            TAGS,
            "-o",
            folder / name,
            f"{LND}/cmd/{name}",
        ]
        store.run(f"{name}-build", CURE, command, env=_go_environment(store, go), cwd=MODULE)
        remove(store.folder / "go-work")

    return (
        store.item(f"{name}-{key()}", build, what=f"building {name} {version()}", usually="4 minutes on 2 cores") / name
    )


def on_path() -> Path | None:
    """An `lnd` on PATH that is new enough."""
    return find.program("lnd", (0, 20, 3))
