"""Fixtures for every layer; each lives in a module of its own under tests/fixtures. And how a run ends."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

pytest_plugins = [
    "tests.fixtures.postgres",
    "tests.fixtures.stack",
    "tests.fixtures.hop",
    "tests.fixtures.temporal",
    "tests.fixtures.chain",
    "tests.fixtures.hot_bank",
    "tests.fixtures.payout_desk",
]

_TESTS = Path(__file__).parent
_WHOLE_LENGTH = "--whole-length"
_ENDED = pytest.StashKey[int]()
_SIDE_BY_SIDE = 3
"""One more than the cores of a small machine: while a test waits for a node, another has something to do."""
_LONG_FIRST = ("e2e", "fault", "property", "integration", "workflow", "replay", "unit", "tidy", "example")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        _WHOLE_LENGTH,
        action="store_true",
        help="accidents last for minutes, not only until their effect has shown; orders are not reduced",
    )


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """All tests run in three processes, each with a stack and a database server of its own; a part of them in this one.

    MILLRACE_TEST_PROCESSES is another number for all; pytest's `-n` comes before both.
    """
    whole = all(Path(word.split("::")[0]).resolve() in (_TESTS, _TESTS.parent) for word in config.args)
    processes = int(os.environ.get("MILLRACE_TEST_PROCESSES") or _SIDE_BY_SIDE)
    return processes if whole and processes > 1 else 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files are handed out in this order, and the last ones should be short."""
    places = {folder: place for place, folder in enumerate(_LONG_FIRST)}
    items.sort(key=lambda item: places.get(item.path.relative_to(_TESTS).parts[0], len(places)))


@pytest.fixture
def lasts(request: pytest.FixtureRequest) -> Callable[[float], Awaitable[None]]:
    """Let an accident, whose effect has shown, last for so many seconds; at once over unless that is asked for."""
    whole = request.config.getoption(_WHOLE_LENGTH)
    return lambda seconds: asyncio.sleep(seconds if whole else 0)


@pytest.fixture
def whole_length(request: pytest.FixtureRequest) -> None:
    """For a test that shows nothing in less."""
    if not request.config.getoption(_WHOLE_LENGTH):
        pytest.skip(f"it takes minutes: {_WHOLE_LENGTH}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """From here on only pytest speaks, and it writes to standard output.

    Temporal's core leaves a timer behind for each failed try of a local activity, and writes about it when it fires
    after its worker has ended.
    """
    session.config.stash[_ENDED] = int(session.exitstatus)
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End at once: the interpreter may take seconds to stop after a long run."""
    reporter, status = config.pluginmanager.getplugin("terminalreporter"), config.stash.get(_ENDED, None)
    if isinstance(reporter, pytest.TerminalReporter) and status is not None:
        reporter.flush()
        os._exit(status)
