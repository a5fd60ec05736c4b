import threading
from pathlib import Path

import pytest

from infra.local.parts import find, lnd
from infra.local.parts.store import LONGEST_LINE, Failed, Store, end_of

pytestmark = pytest.mark.unit


def test_a_complete_item_is_never_built_again(tmp_path: Path) -> None:
    store, built = Store(tmp_path), []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "program").write_text("works")

    first = store.item("tool-1", build, what="a tool", usually="1 s")
    second = Store(tmp_path).item("tool-1", build, what="a tool", usually="1 s")

    assert first == second
    assert (second / "program").read_text() == "works"
    assert len(built) == 1


def test_an_item_whose_build_was_interrupted_is_built_from_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)

    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("half a program")
        (folder / "half").chmod(0o400)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.item("tool-1", interrupted, what="a tool", usually="1 s")
    folder = store.item("tool-1", lambda place: (place / "whole").touch(), what="a tool", usually="1 s")

    assert [path.name for path in sorted(folder.iterdir())] == [".complete", "whole"]


def test_two_runs_at_once_build_an_item_once(tmp_path: Path) -> None:
    built: list[str] = []
    both = threading.Barrier(2)

    def run() -> None:
        store = Store(tmp_path)
        both.wait()
        store.item("tool-1", lambda _: built.append("once"), what="a tool", usually="1 s")

    runs = [threading.Thread(target=run) for _ in range(2)]
    for each in runs:
        each.start()
    for each in runs:
        each.join()

    assert built == ["once"]


def test_a_failing_program_is_told_with_the_place_of_its_log_and_its_own_last_words(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run("tool", "It did not work: do this", ["sh", "-c", "echo of another run"])

    told = r"^It did not work: do this \(exit 3; details: .*/logs/tool\.log\)\.\n  \| why$"
    with pytest.raises(Failed, match=told):
        store.run("tool", "It did not work: do this", ["sh", "-c", "echo why; exit 3"])
    assert (tmp_path / "logs" / "tool.log").read_text() == "of another run\nwhy\n"

    with pytest.raises(Failed, match="not installed"):
        store.run("tool", "It did not work: do this", ["no-such-program-here"])


def test_the_end_of_a_log_is_short_whatever_was_written(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert end_of(log) == ""

    log.write_bytes(b"".join(b"%d \xff\n\n" % number for number in range(10_000)))
    assert end_of(log).splitlines()[1:] == [
        f"  | {number} \N{REPLACEMENT CHARACTER}" for number in range(9_980, 10_000)
    ]

    log.write_bytes(b"x" * 1_000_000)
    assert end_of(log) == "\n  | " + "x" * LONGEST_LINE

    log.write_text("old\nnew\n")
    assert end_of(log, len("old\n")) == "\n  | new"


def test_after_an_interruption_nothing_more_is_started(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.children.stop()

    with pytest.raises(Failed, match="Interrupted"):
        store.run("tool", "It did not work", ["true"])


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(Failed, match="set MILLRACE_CACHE"):
        Store(tmp_path / "file" / "cache")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", (15, 18)),
        ("Valkey server v=9.1.2 sha=00000000:0 malloc=jemalloc-5.3.1", (9, 1, 2)),
        ("Bitcoin Knots daemon version v29.4.3.knots20260508", (29, 4, 3)),
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("lnd version 0.21.2-beta commit=", (0, 21, 2)),
        ("temporal version 1.9.1 (Server 1.32.0, UI 2.54.1)", (1, 9, 1)),
        ("no number here", None),
    ],
)
def test_the_version_is_read_from_what_each_program_says(said: str, version: tuple[int, ...] | None) -> None:
    assert find.version_in(said) == version


def test_a_program_on_path_is_taken_only_in_a_fitting_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "server"
    program.write_text("#!/bin/sh\necho server 7.0.4\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert find.program("server", (7,)) == program
    assert find.program("server", (7, 1)) is None
    assert find.program("no-such-server", (7,)) is None


def test_lnd_is_pinned_to_one_release() -> None:
    assert lnd.version().startswith("v0.")
    assert "-rc" not in lnd.version()
