"""Whatever keeps a stack from starting, every command that starts one says what it was and shows the words it left."""

import os
import re
import stat
import subprocess
from pathlib import Path

import pytest

from infra.local.commands import ROOT
from infra.local.parts.store import Failed
from infra.local.stack import Stack
from infra.local.tools import VARIABLE

pytestmark = pytest.mark.integration

WORDS = "initdb: this machine has no left hand"
TOLD = re.compile(
    rf"PostgreSQL's data folder could not be made: the end of \S+/postgres\.log says why\.\n  \| {WORDS}$", re.MULTILINE
)


@pytest.fixture
def broken_postgres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PostgreSQL on PATH, new enough by its own word, whose initdb does nothing but fail."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {"postgres": "echo postgres 99.1", "initdb": f"echo '{WORDS}'; exit 3"}.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def run(home: Path, *words: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
    return subprocess.run(
        [ROOT / "run", *words],
        env={**environ, "MILLRACE_HOME": str(home), **settings},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


@pytest.mark.parametrize("words", [("up",), ("up", "--detach"), ("demo",), ("bench", "--quick")], ids=" ".join)
@pytest.mark.usefixtures("broken_postgres")
def test_a_part_that_cannot_start_is_named_with_its_last_words(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = run(tmp_path / "home", *words)

    assert done.returncode == 1
    assert TOLD.search(done.stdout + done.stderr), done.stdout + done.stderr


@pytest.mark.usefixtures("broken_postgres")
def test_a_test_whose_stack_cannot_start_is_told_the_same(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=TOLD):
        Stack.start(tmp_path / "home")


def test_a_missing_tool_is_named_when_a_stack_is_started_too(tmp_path: Path) -> None:
    no_folder = tmp_path / "file"
    no_folder.touch()

    with pytest.raises(Failed, match=rf"\n  \| run: The cache folder {no_folder}/cache cannot be written"):
        Stack.start(tmp_path / "home", settings={"MILLRACE_CACHE": str(no_folder / "cache")})
    done = run(tmp_path / "home", "demo", MILLRACE_CACHE=str(no_folder / "cache"))
    assert (done.returncode, done.stderr.count("set MILLRACE_CACHE")) == (1, 1)


def test_a_supervisor_that_ends_without_a_word_is_told_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "bash").write_text("#!/bin/sh\necho 'run: no memory'; kill -9 $$\n")
    (folder / "bash").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)

    with pytest.raises(Failed, match=r"supervisor\.log says why\.\n  \| run: no memory$"):
        Stack.start(tmp_path / "home")
