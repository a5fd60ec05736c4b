import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from infra.local.home import Home
from infra.local.parts.store import Failed
from infra.local.supervisor import Process, Supervisor

pytestmark = pytest.mark.unit

LIMIT_S = 10


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.01)


async def yes() -> bool:
    return True


def sleeper(name: str = "sleeper", command: tuple[str, ...] = ("sleep", "600")) -> Process:
    return Process(name, command, ready=yes, environment=dict(os.environ), stop_limit_s=1)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
async def supervisor(home: Home, tmp_path: Path) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(home, tmp_path)
    yield supervisor
    await supervisor.stop(*supervisor.names(""))


async def test_a_killed_process_is_back_with_another_id(home: Home, supervisor: Supervisor) -> None:
    await supervisor.start(sleeper())
    first = home.read_state().processes["sleeper"].pid
    assert first is not None

    os.kill(first, signal.SIGKILL)
    await until(lambda: home.read_state().processes["sleeper"].restarts == 1)
    await until(lambda: home.read_state().processes["sleeper"].state == "ready")

    assert home.read_state().processes["sleeper"].pid != first


async def test_a_held_process_stays_down_until_it_is_released(home: Home, supervisor: Supervisor) -> None:
    await supervisor.start(sleeper())
    first = home.read_state().processes["sleeper"].pid
    assert first is not None

    home.hold("sleeper").touch()
    await until(lambda: home.read_state().processes["sleeper"].state == "held")
    assert not alive(first)

    home.hold("sleeper").unlink()
    await until(lambda: home.read_state().processes["sleeper"].state == "ready")
    assert home.read_state().processes["sleeper"].restarts == 0


async def test_stopping_leaves_no_process_even_if_it_ignores_the_signal(home: Home, supervisor: Supervisor) -> None:
    inner = home.folder / "inner"
    stubborn = ("sh", "-c", f"trap '' TERM; sleep 600 & echo $! > {inner}; wait; wait")
    await supervisor.start(sleeper("stubborn", stubborn))
    pid = home.read_state().processes["stubborn"].pid
    assert pid is not None
    await until(inner.exists)

    await supervisor.stop("stubborn")

    assert not alive(pid)
    await until(lambda: not alive(int(inner.read_text())))


async def test_a_frozen_process_is_stopped_all_the_same(home: Home, supervisor: Supervisor) -> None:
    await supervisor.start(sleeper())
    pid = home.read_state().processes["sleeper"].pid
    assert pid is not None

    os.kill(pid, signal.SIGSTOP)
    await supervisor.stop("sleeper")

    assert not alive(pid)


async def never() -> bool:
    return False


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.local.supervisor.FIRST_PAUSE_S", 0.001)


async def test_a_process_that_cannot_start_is_given_up_with_the_end_of_its_log(
    supervisor: Supervisor, short_pauses: None
) -> None:
    command = ("sh", "-c", "seq 100; echo 'no left hand' >&2; exit 4")
    broken = Process("broken", command, ready=never, environment=dict(os.environ))

    with pytest.raises(
        Failed, match=r"broken cannot start .*exit code 4.*broken\.log says why\.\n(.*\n)*  \| no left hand$"
    ):
        await supervisor.start(broken)


async def test_a_process_that_is_never_ready_is_given_up_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    command = ("sh", "-c", "echo 'still looking for a left hand'; sleep 600")
    slow = Process("slow", command, ready=never, environment=dict(os.environ), ready_limit_s=1)

    with pytest.raises(Failed, match=r"slow was not ready after 1 s: .*\n  \| still looking for a left hand$"):
        await supervisor.start(slow)


async def test_a_program_that_is_not_there_is_told_as_the_reason(supervisor: Supervisor, short_pauses: None) -> None:
    async def prepare() -> None:
        raise FileNotFoundError("no left hand")

    missing = Process("missing", ("true",), ready=never, environment=dict(os.environ), before=prepare)

    with pytest.raises(Failed, match=r"missing cannot start .*FileNotFoundError\('no left hand'\)"):
        await supervisor.start(missing)


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    program = f"""
import asyncio, os
from pathlib import Path
from infra.local.home import Home
from infra.local.supervisor import Process, Supervisor

async def yes():
    return True

async def main():
    home = Home(Path({str(tmp_path / "home")!r}))
    await Supervisor(home, Path({str(tmp_path)!r})).start(Process("sleeper", ("sleep", "600"), yes, dict(os.environ)))
    print(home.read_state().processes["sleeper"].pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert alive(pid)
        supervisor.kill()

    asyncio.run(until(lambda: not alive(pid)))
