"""The stack's programs are told numbers, never names: a machine without a hosts file can run them."""

import os
import subprocess
from pathlib import Path

import pytest

from infra.local import services
from infra.local.home import NODES, Home
from infra.local.stack import wait_until
from infra.local.tools import Tools

pytestmark = pytest.mark.integration

HIDDEN = ("/etc/hosts", "/etc/resolv.conf")
HIDE = "".join(f"[ ! -e {name} ] || mount --bind /dev/null {name}\n" for name in HIDDEN) + 'exec "$@"'
STARTED = "LTND: Version"  # LND has read and checked all that it was told.
LIMIT_S = 60


def without_names() -> list[str]:
    """The words before a program that has neither a hosts file nor a name server; skips where nobody may do that."""
    ways = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
    for way in ways:
        words = [*way, "sh", "-ec", HIDE, "sh"]
        if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
            return words
    pytest.skip("this machine lets no process hide its hosts file")


async def nothing() -> None:
    """For a node that comes back."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.settle_ports(tmp_path / "registry")
    return home


def test_lnd_starts_where_no_name_is_known(home: Home, tmp_path: Path) -> None:
    hidden = without_names()
    known = subprocess.run([*hidden, "cat", "/etc/hosts"], capture_output=True, text=True, check=False)
    assert known.stdout == "", "the hosts file is not hidden"
    ports = home.ports()
    command = services.lnd_command(home, Tools.given(), "lnd-1", ports["lnd-1"], ports["lnd-1-peer"])

    log = tmp_path / "log"

    with log.open("wb") as out:
        lnd = subprocess.Popen([*hidden, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_until(lambda: STARTED in log.read_text() or lnd.poll() is not None, f"LND to start, see {log}", LIMIT_S)
    finally:
        lnd.kill()
        lnd.wait()

    assert STARTED in log.read_text(), log.read_text()


def test_no_program_of_the_stack_is_given_a_name(home: Home) -> None:
    tools, told = Tools.given(), dict(os.environ)
    processes = [
        services.postgres(home, tools, []),
        services.redis(home, tools),
        services.temporal(home, tools),
        services.bitcoind(home, tools),
        services.api(home, tools, "api-1"),
        services.worker(home, tools, "worker-1"),
        *services.lnds(home, tools, nothing),
    ]
    for process in processes:
        ours = [value for name, value in process.environment.items() if told.get(name) != value]
        assert not [word for word in (*map(str, process.command), *ours) if "localhost" in word], process.name
    written = [home.folder / "bitcoind" / "bitcoin.conf", *(home.folder / name / "lnd.conf" for name in NODES)]
    assert not [file for file in written if "localhost" in file.read_text()]
