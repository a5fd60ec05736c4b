"""What the documents name exists: files, links, commands and settings.

Decision records are frozen and name the files of their time, so their paths are not looked up; their links are.
"""

import re
from collections.abc import Iterable
from functools import cache
from itertools import product as combinations
from pathlib import PurePosixPath

import pytest

from infra.local.bootstrap import USAGE
from tests.tidy.house import ROOMS, ROOT

pytestmark = pytest.mark.tidy

FOLDERS = (*ROOMS, "tests", "docs", ".ci")
FROZEN = ("CHANGELOG.md", "docs/decisions/0", "docs/decisions/appendix")
CODE = re.compile(r"```.*?```|`([^`\n]+)`", re.DOTALL)
ENDINGS = "py|sql|md|yml|yaml|toml|json|sh|lock|ini"
PATH = re.compile(rf"(?:(?:{'|'.join(map(re.escape, FOLDERS))})/[\w.{{}},/-]*|[\w.{{}}][\w.{{}},/-]*\.(?:{ENDINGS}))")
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"\./run ([a-z]+)")
SETTING = re.compile(r"\bMILLRACE_[A-Z_]*[A-Z]\b")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@cache
def documents() -> dict[str, str]:
    paths = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "infra").rglob("*.md")]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


@cache
def tails() -> frozenset[str]:
    """Every file and folder, under every name that may be used for it: `payment.py`, `user/payment.py`, …"""
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    paths = [path.relative_to(ROOT).parts for path in [*below, *ROOT.iterdir()]]
    return frozenset("/".join(parts[start:]) for parts in paths for start in range(len(parts)))


def paths_in(text: str) -> list[str]:
    """What stands in backticks and has the shape of a path in the repository."""
    quoted = [match[1] for match in CODE.finditer(text) if match[1]]
    return [each for word in quoted for part in word.split() if PATH.fullmatch(part) for each in unfolded(part)]


def unfolded(path: str) -> list[str]:
    """`engine/{bank,ledger}` is two paths."""
    parts = [part.split(",") for part in re.split(r"[{}]", path.rstrip("/"))]
    return ["".join(choice) for choice in combinations(*parts)]


def missing_paths(name: str, text: str, known: Iterable[str]) -> list[str]:
    return [f"{name} names {path}, which does not exist" for path in paths_in(text) if path not in known]


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text)]
    return {heading.strip().replace(" ", "-") for heading in plain}


def broken_links(name: str, text: str, texts: dict[str, str]) -> list[str]:
    found = []
    for link in LINK.findall(CODE.sub("", text)):
        path, _, anchor = link.partition("#")
        if ":" in path:
            continue
        target = (ROOT / PurePosixPath(name).parent / path).resolve() if path else ROOT / name
        known = texts.get(target.relative_to(ROOT).as_posix(), "")
        if not target.exists() or (anchor and anchor not in anchors(known)):
            found.append(f"{name} links to {link}, which does not exist")
    return found


def unknown_commands(name: str, text: str, usage: str) -> list[str]:
    known = set(re.findall(r"^  ([a-z]+)", usage, re.MULTILINE))
    return [f"{name} names ./run {word}, which does not exist" for word in COMMAND.findall(text) if word not in known]


def unknown_settings(name: str, text: str, known: Iterable[str]) -> list[str]:
    return [f"{name} names {word}, which nothing reads" for word in SETTING.findall(text) if word not in known]


@cache
def settings() -> frozenset[str]:
    """Every setting that code, compose or the example has."""
    code = [path for folder in (*ROOMS, "tests") for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in (*code, ROOT / "run", ROOT / ".env.example")]
    return frozenset(word for text in texts for word in SETTING.findall(text))


def living() -> dict[str, str]:
    return {name: text for name, text in documents().items() if not name.startswith(FROZEN)}


def test_paths_in_the_documents_exist() -> None:
    assert [each for name, text in living().items() for each in missing_paths(name, text, tails())] == []


def test_links_in_the_documents_lead_somewhere() -> None:
    assert [each for name, text in documents().items() for each in broken_links(name, text, documents())] == []


def test_commands_in_the_documents_exist() -> None:
    assert [each for name, text in documents().items() for each in unknown_commands(name, text, USAGE)] == []


def test_settings_in_the_documents_exist() -> None:
    assert [each for name, text in documents().items() for each in unknown_settings(name, text, settings())] == []


@pytest.mark.parametrize("text", ["`api/made_up.py`", "`made_up.sql`", "`engine/{bank,made_up}`", "`api/made_up/`"])
def test_a_path_that_is_gone_is_seen(text: str) -> None:
    assert len(missing_paths("a.md", f"see {text} there", tails())) == 1


@pytest.mark.parametrize(
    "text", ["`api/app.py`", "`app.py`", "`engine/{bank,ledger}`", "`/v1/made.json`", "api/none.py"]
)
def test_a_path_that_exists_is_no_problem(text: str) -> None:
    assert missing_paths("a.md", text, tails()) == []


@pytest.mark.parametrize("link", ["made_up.md", "docs/operations.md#made-up", "#made-up", "docs/made/up.png"])
def test_a_dead_link_is_seen(link: str) -> None:
    assert len(broken_links("README.md", f"[there]({link})", documents())) == 1
    assert broken_links("README.md", "[there](docs/operations.md#alerts) [web](https://a.example/x)", documents()) == []


def test_a_made_up_command_or_setting_is_seen() -> None:
    assert unknown_commands("a.md", "`./run up`, then `./run fly --now`", USAGE) == [
        "a.md names ./run fly, which does not exist"
    ]
    made_up = "MILLRACE_" + "MADE_UP"
    assert unknown_settings("a.md", f"`{made_up}=1`, `MILLRACE_ADMIN_KEY`", settings()) == [
        f"a.md names {made_up}, which nothing reads"
    ]
