"""Fixtures for every layer; each lives in a module of its own under tests/fixtures."""

pytest_plugins = ["tests.fixtures.postgres", "tests.fixtures.stack", "tests.fixtures.hop", "tests.fixtures.temporal"]
