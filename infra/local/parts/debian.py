"""Debian's own packages of PostgreSQL, Valkey and bitcoind, each in a private folder.

Nothing is installed on the machine and no privileges are needed: apt resolves a package down to the C library against
an empty list of installed ones, from the archive that this machine already uses and with its keys. It is unpacked into
a prefix of its own, and its programs are patched once (`patchelf`) to load the libraries of that prefix.

The suites are asked in order, one at a time (backports with the suite that they build on), for any version that is new
enough and runs here. A suite that cannot be read, or lacks the package, is passed over. What was fetched once is never
looked for again.
"""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from infra.local.parts import find
from infra.local.parts.store import Failed, Store, end_of, remove

KEYRINGS = tuple(Path(f"/usr/share/keyrings/debian-archive-keyring.{kind}") for kind in ("gpg", "pgp"))
SUITES = ("sid", "testing", "stable-backports", "stable", "oldstable-backports", "oldstable")
WITHOUT = ("systemd", "debconf", "perl", "init-system-helpers", "cdebconf")  # Only install scripts want them.
UNPACK = "Debian's packages could not be unpacked: see that the disk has room"


@dataclass(frozen=True)
class Server:
    """What is looked for: packages by pattern, the preferred first; the first program that is there is the server."""

    name: str
    packages: tuple[str, ...]
    at_least: tuple[int, ...]
    folder: str
    programs: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names the item in the cache: neither a suite's new version nor another server's absence changes it."""
        return f"debian-{self.name}-{'.'.join(map(str, self.at_least))}"

    def found(self, prefix: Path) -> list[Path]:
        """Its programs in an unpacked prefix."""
        places = [sorted(prefix.glob(f"{self.folder}/{program}")) for program in self.programs]
        return [place[-1] for place in places if place]


POSTGRES = Server(
    "postgres",
    (r"postgresql-18", r"postgresql-\d+"),
    (15,),
    "usr/lib/postgresql/*/bin",
    ("postgres", "initdb", "psql", "pgbench", "pg_dump", "pg_restore"),
)
REDIS = Server(
    "redis",
    (r"valkey-server", r"redis-server"),
    (7,),
    "usr/bin",
    ("valkey-server", "redis-server", "valkey-check-rdb", "redis-check-rdb"),
)
BITCOIND = Server("bitcoind", (r"bitcoin-knots", r"bitcoind"), (28,), "usr/bin", ("bitcoind", "bitcoin-cli"))


def suites() -> tuple[str, ...]:
    """`MILLRACE_DEBIAN_SUITES`, which may be empty, else all."""
    named = os.environ.get("MILLRACE_DEBIAN_SUITES")
    return SUITES if named is None else tuple(named.split())


def usable() -> bool:
    """Whether this machine's apt can do it, and may."""
    tools = all(shutil.which(name) for name in ("apt-get", "apt-cache", "dpkg"))
    return tools and bool(suites()) and any(keyring.exists() for keyring in KEYRINGS)


class Archive:
    """The machine's archive, as this run sees it: lists are fetched when first needed, and thrown away at the end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = threading.Lock()
        self._open = ExitStack()
        self._folder: Path | None = None
        self._read: dict[tuple[str, ...], list[str]] = {}

    def has(self, server: Server) -> bool:
        """Whether it was fetched before."""
        return self._store.has(server.key)

    def program(self, server: Server, patchelf: Path) -> Path:
        """The server's program, ready to run; raises `Failed` with apt's own words when no suite has one that fits."""

        def build(prefix: Path) -> None:
            with self._turn:
                self._build(server, prefix, patchelf)

        prefix = self._store.item(server.key, build, what=f"Debian's {server.packages[0]}", usually="20 s")
        return server.found(prefix)[0]

    def close(self) -> None:
        """Throw the lists away and let other runs have their turn."""
        if self._folder is not None:
            remove(self._folder)
        self._open.close()
        self._folder, self._read = None, {}

    def _build(self, server: Server, prefix: Path, patchelf: Path) -> None:
        apt = self._own_folder()
        asked, why = suites(), []
        for group in (asked[:1], asked[1:]):  # The later ones are seldom needed: one fetch for all of them.
            unread = self._read_lists(group)
            why += unread
            for suite in group:
                for package in self._offered(suite, server):
                    try:
                        self._unpack(apt, suite, package, prefix)
                        self._patch(prefix, server, patchelf)
                    except Failed as failure:
                        if self._store.children.stopped:
                            raise
                        why.append(f"{suite}, {package}: {failure}")
                        _empty(prefix)
                    else:
                        return
                why += [] if unread else [f"{suite}: it has no other {server.packages[0]} that fits."]
        raise Failed(f"Debian's {server.packages[0]} could not be had:" + "".join(f"\n{line}" for line in why))

    def _own_folder(self) -> Path:
        if self._folder is None:
            self._open.enter_context(self._store.lock("debian"))
            folder = self._store.folder / "apt"
            remove(folder)
            for name in ("lists/partial", "cache/archives/partial"):
                (folder / name).mkdir(parents=True)
            (folder / "status").touch()  # An empty file of our own, never /dev/null: apt puts its locks beside it.
            self._folder = folder
        return self._folder

    def _options(self, *asked: str) -> list[str]:
        apt = self._own_folder()
        with_bases = dict.fromkeys(name for suite in asked for name in (suite, suite.removesuffix("-backports")))
        sources = apt / f"{'+'.join(asked)}.list"
        keyring = next(keyring for keyring in KEYRINGS if keyring.exists())
        rules = f"[signed-by={keyring} target=Packages]"
        sources.write_text("".join(f"deb {rules} {_address()} {suite} main\n" for suite in with_bases))
        settings = {
            "Dir::Etc::sourcelist": sources,
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": apt,
            "Dir::State::lists": apt / "lists",
            "Dir::State::status": apt / "status",
            "Dir::Cache": apt / "cache",
            "APT::Get::List-Cleanup": "false",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "APT::Sandbox::User": "root",
        }
        return ["-q", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]

    def _read_lists(self, group: tuple[str, ...]) -> list[str]:
        """Fetch the lists of these suites, once a run. Returns apt's complaints; the lists that came are used."""
        if group and group not in self._read:
            self._read[group] = []
            try:
                self._apt("apt-get", "update", *group)
            except Failed as failure:
                if self._store.children.stopped:
                    raise
                self._read[group] = [str(failure)]
        return self._read.get(group, [])

    def _offered(self, suite: str, server: Server) -> Iterator[str]:
        """The packages of a suite that are new enough, the preferred first and of several numbers the highest."""
        names = self._ask(suite, "pkgnames").split()
        for pattern in server.packages:
            fitting = [name for name in names if re.fullmatch(pattern, name)]
            for name in sorted(
                fitting, key=lambda name: [int(part) for part in re.findall(r"\d+", name)], reverse=True
            ):
                version = re.search(r"^Version: (.*)$", self._ask(suite, "show", name), re.MULTILINE)
                if version and (find.version_in(version.group(1)) or ()) >= server.at_least:
                    yield name

    def _ask(self, suite: str, *question: str) -> str:
        command = ["apt-cache", *map(str, self._options(suite)), *question]
        return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout

    def _apt(self, program: str, command: str, *asked: str, words: Sequence[str] = ()) -> None:
        log = self._store.folder / "logs" / "debian.log"
        begin = log.stat().st_size if log.exists() else 0
        try:
            self._store.run("debian", "", [program, *self._options(*asked), command, *words])
        except Failed as failure:
            if self._store.children.stopped:
                raise
            said = [line for line in end_of(log, begin).splitlines() if re.match(r"  \| [EW]: ", line)]
            raise Failed("apt says:" + "".join(f"\n{line}" for line in said) if said else str(failure)) from None

    def _unpack(self, apt: Path, suite: str, package: str, prefix: Path) -> None:
        archives = apt / "cache" / "archives"
        for old in archives.glob("*.deb"):
            old.unlink()
        words = ("-y", "--download-only", "--no-install-recommends", package)
        self._apt("apt-get", "install", suite, words=words)
        for archive in sorted(archives.glob("*.deb")):
            if not archive.name.startswith(WITHOUT):
                self._store.run("debian", UNPACK, ["dpkg", "-x", archive, prefix])

    def _patch(self, prefix: Path, server: Server, patchelf: Path) -> None:
        """Let the programs use the C library and the other libraries of the prefix, whatever the machine has."""
        loaders = [file for file in sorted(prefix.glob("**/ld-linux*.so.?")) if prefix in file.resolve().parents]
        libraries = sorted(prefix.glob("usr/lib/*-linux-gnu*")) + sorted(prefix.glob("lib/*-linux-gnu*"))
        found = server.found(prefix)
        if not loaders or not libraries or not found:
            raise Failed(f"what it installs is not where it was: no {server.folder}/{server.programs[0]}.")
        rpath = ":".join(map(str, [*libraries, prefix / "usr/lib"]))
        for program in found:
            if not program.is_symlink():
                change = ("--set-interpreter", loaders[0], "--force-rpath", "--set-rpath", rpath)
                self._store.run("debian", f"{program.name} cannot be changed", [patchelf, *change, program])
        if not find.fits(found[0], server.at_least):
            raise Failed(f"{found[0].name} does not run here, or is not the version that its package says.")


def _address() -> str:
    """The archive that this machine's own apt is set up to use, whether it has been read before or not."""
    command = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)", "Created-By: Packages"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL).stdout
    archives = sorted({line for line in said.split() if "-security" not in line})
    if not archives:
        raise Failed("apt has no archive in its sources.")
    return next((one for one in archives if one.rstrip("/").endswith("/debian")), archives[0])


def _empty(folder: Path) -> None:
    remove(folder)
    folder.mkdir()
