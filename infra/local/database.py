"""PostgreSQL for one home: making its data folder, running it when we are root, its roles and its database.

PostgreSQL refuses to run as root. So when we are root it runs as `nobody`, with a data folder of its own. Where a
folder above is closed to others (a temporary checkout, root's home), `nobody` gets the one capability to pass it. Where
the machine lets no process change its user, PostgreSQL runs in a user namespace in which we are not root.
"""

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import asyncpg

from infra.local.environment import APP, DATABASE, OWNER, inherited
from infra.local.home import Home
from infra.local.parts import find
from infra.local.parts.store import Failed, end_of
from infra.local.tools import Tools

SUPERUSER = "postgres"
STOP = signal.SIGINT
BUILTIN_LOCALE = (17,)
# initdb calls access(2), which checks the real user and honours these capabilities only with this securebit.
PASS = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--securebits=+no_setuid_fixup")
PROBE = "import os, sys; a, b = sys.argv[1:]; sys.exit(not (os.getuid() and os.access(a, 1) and os.access(b, 3)))"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "300",
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "jit": "off",
    "timezone": "GMT",  # The one zone that needs no time zone files.
    "log_timezone": "GMT",
}


def environment() -> dict[str, str]:
    """Without a locale, which this machine may lack."""
    return {**inherited(), "LC_ALL": "C", "TZ": "GMT0"}


def folder(home: Home) -> Path:
    """Everything that belongs to the user PostgreSQL runs as."""
    return home.folder / "postgres"


def prefix(place: Path, tools: Tools) -> list[str]:
    """The command prefix that runs PostgreSQL's programs as a user other than root; empty when we are not root.

    `place` is made if needed, and then belongs to that user. Raises `Failed` when this machine offers no such user.
    """
    if os.geteuid() != 0:
        return []
    who = pwd.getpwnam("nobody")
    change = ["setpriv", f"--reuid={who.pw_uid}", f"--regid={who.pw_gid}", "--clear-groups"]
    ways = (
        [*change, "--"],
        [*change, *PASS, "--"],
        ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"],
    )
    for way in ways:
        owner = 0 if way[0] == "unshare" else who.pw_uid
        _own(place, owner)
        probe = [str(word) for word in (tools.python, "-I", "-S", "-c", PROBE, tools.postgres / "initdb", place)]
        tried = subprocess.run([*way, *probe], capture_output=True, check=False)
        if tried.returncode == 0:
            return way
    raise Failed(
        "PostgreSQL refuses to run as root and this machine lets us be nobody else: run ./run as another user."
    )


def _own(place: Path, owner: int) -> None:
    place.mkdir(mode=0o700, exist_ok=True)
    if place.stat().st_uid == owner:
        return
    for path in (place, *place.rglob("*")):
        os.chown(path, owner, -1, follow_symlinks=False)


async def initialise(home: Home, tools: Tools, words: Sequence[str]) -> None:
    """Make the data folder unless it is there; a half-made one is never taken for it."""
    place = folder(home)
    if (place / "data").exists():
        return
    shutil.rmtree(place / "new", ignore_errors=True)
    secret = place / "password"
    secret.touch(mode=0o600)
    secret.write_text(home.secrets()["postgres_password"])
    os.chown(secret, place.stat().st_uid, -1)
    options = [f"--pwfile={secret}", "--auth=scram-sha-256", *await asyncio.to_thread(cluster_options, tools)]
    command = [*words, str(tools.postgres / "initdb"), "-D", str(place / "new"), *options]
    with home.log("postgres").open("ab") as log:
        begin = log.tell()
        child = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, env=environment()
        )
        if await child.wait() != 0:
            failure = f"PostgreSQL's data folder could not be made: the end of {home.log('postgres')} says why."
            raise Failed(failure + end_of(home.log("postgres"), begin))
    secret.unlink()
    (place / "new").rename(place / "data")


def cluster_options(tools: Tools) -> list[str]:
    """The options of initdb for every data folder, also a test's: the superuser, and UTF-8 on every machine."""
    options = [f"--username={SUPERUSER}", "--no-instructions", "--encoding=UTF8", "--locale=C"]
    if _version(tools) >= BUILTIN_LOCALE:
        options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    return options


def _version(tools: Tools) -> tuple[int, ...]:
    said = subprocess.run([tools.postgres / "postgres", "--version"], capture_output=True, text=True, check=True).stdout
    return find.version_in(said) or (0,)


def command(home: Home, tools: Tools) -> list[str | Path]:
    """The server's command line; durability stays at PostgreSQL's defaults."""
    settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
    return [tools.postgres / "postgres", "-D", folder(home) / "data", "-p", str(home.ports()["postgres"]), *settings]


async def ready(home: Home) -> bool:
    """Whether it answers a query."""
    try:
        connection = await _connect(home, "postgres")
        await connection.close()
    except (OSError, asyncpg.PostgresError, TimeoutError):
        return False
    return True


async def have_roles(home: Home) -> None:
    """The owner, who migrates; the application, which owns nothing; and the database. Repeating it changes nothing."""
    connection = await _connect(home, "postgres")
    try:
        for role, secret in ((OWNER, "owner_password"), (APP, "app_password")):
            if not await connection.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
                await connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{home.secrets()[secret]}'")
        if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
        await connection.execute(f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC")
        await connection.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {APP}")
    finally:
        await connection.close()


async def _connect(home: Home, database: str) -> "asyncpg.Connection[asyncpg.Record]":
    return await asyncpg.connect(
        host="127.0.0.1",
        port=home.ports()["postgres"],
        user=SUPERUSER,
        password=home.secrets()["postgres_password"],
        database=database,
        timeout=3,
    )
