"""Debian's own packages of PostgreSQL, Valkey and Bitcoin Knots in a private folder.

Nothing is installed into the machine and no rights are needed: apt resolves the packages down to the C library against
an empty list of installed ones, from the archive that this machine already uses and with its keys. They are unpacked
into one prefix, and the programs are told once (`patchelf`) to load the libraries of that prefix.
"""

import hashlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infra.local.parts.store import Failed, Store, remove

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
SUITE = "sid"  # The only one that has bitcoin-knots.
WITHOUT = ("systemd", "debconf", "perl", "init-system-helpers", "cdebconf")  # Only install scripts want them.
PROGRAMS = {
    "bitcoin-knots": ("usr/bin/bitcoind", "usr/bin/bitcoin-cli"),
    "valkey-server": ("usr/bin/valkey-check-rdb", "usr/bin/valkey-server"),
    "postgresql-18": tuple(
        f"usr/lib/postgresql/18/bin/{name}"
        for name in ("postgres", "initdb", "psql", "pgbench", "pg_dump", "pg_restore")
    ),
}
UNREACHABLE = "Debian's packages could not be fetched: check that apt-get works, or put {} on PATH, and run again"
UNUSABLE = "Debian's packages cannot be used here: put postgres, valkey-server and bitcoind on PATH and run again"


def usable() -> bool:
    """Whether this machine's apt can do it."""
    return KEYRING.exists() and all(shutil.which(name) for name in ("apt-get", "dpkg"))


def prefix(store: Store, packages: Sequence[str], patchelf: Path) -> Path:
    """The folder with these packages unpacked, their programs ready to run."""
    names = sorted(packages)
    key = f"debian-{hashlib.sha256(' '.join([SUITE, *names]).encode()).hexdigest()[:12]}"

    def build(folder: Path) -> None:
        cure = UNREACHABLE.format(", ".join(names))
        _download(store, folder, names, cure)
        for archive in sorted((folder / "apt" / "cache" / "archives").glob("*.deb")):
            if not archive.name.startswith(WITHOUT):
                store.run(
                    "debian",
                    "Debian's packages could not be unpacked: see that the disk has room",
                    ["dpkg", "-x", archive, folder],
                )
        remove(folder / "apt")
        _patch(store, folder, [program for name in names for program in PROGRAMS[name]], patchelf)

    return store.item(key, build, what=f"Debian packages {', '.join(names)}", usually="30 s")


def _download(store: Store, folder: Path, names: list[str], cure: str) -> None:
    apt = folder / "apt"
    (apt / "lists" / "partial").mkdir(parents=True)
    (apt / "cache" / "archives" / "partial").mkdir(parents=True)
    (apt / "status").touch()  # An empty file of our own, never /dev/null: apt puts its locks beside it.
    (apt / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_archive(cure)} {SUITE} main\n")
    settings = {
        "Dir::Etc::sourcelist": apt / "sources.list",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "-",
        "Dir::State": apt,
        "Dir::State::lists": apt / "lists",
        "Dir::State::status": apt / "status",
        "Dir::Cache": apt / "cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    store.run("debian", cure, ["apt-get", *options, "-q", "update"])
    store.run(
        "debian",
        cure,
        ["apt-get", *options, "-q", "install", "-y", "--download-only", "--no-install-recommends", *names],
    )


def _archive(cure: str) -> str:
    """The archive that this machine's own apt is set up to use."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    archives = sorted({line for line in listing.stdout.split() if "-security" not in line})
    if not archives:
        raise Failed(f"{cure} (apt has no archive in its sources).")
    return archives[0]


def _patch(store: Store, folder: Path, programs: list[str], patchelf: Path) -> None:
    """Let the programs use the C library and the other libraries of the prefix, whatever the machine has."""
    loader = next(iter(sorted(folder.glob("usr/lib*/ld-linux*.so.?"))), None)
    libraries = next(iter(sorted(folder.glob("usr/lib/*-linux-gnu*"))), None)
    if loader is None or libraries is None:
        raise Failed(f"{UNUSABLE}.")
    rpath = f"{libraries}:{folder / 'usr/lib'}"
    for program in programs:
        if (folder / program).is_symlink() or not (folder / program).exists():
            continue
        change = ("--set-interpreter", loader, "--force-rpath", "--set-rpath", rpath)
        store.run("debian", UNUSABLE, [patchelf, *change, folder / program])
