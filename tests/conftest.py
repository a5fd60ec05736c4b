"""Fixtures for every layer; each lives in a module of its own under tests/fixtures. And how a run ends."""

import os

import pytest

pytest_plugins = ["tests.fixtures.postgres", "tests.fixtures.stack", "tests.fixtures.hop", "tests.fixtures.temporal"]

_ENDED = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[_ENDED] = int(session.exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """End at once, so that pytest's closing line is the last one.

    Temporal's core leaves a timer behind for each failed try of a local activity, and writes about it when it fires
    after its worker has ended; the interpreter may take seconds to stop after a long run.
    """
    reporter, status = config.pluginmanager.getplugin("terminalreporter"), config.stash.get(_ENDED, None)
    if isinstance(reporter, pytest.TerminalReporter) and status is not None:
        reporter.flush()
        os._exit(status)
