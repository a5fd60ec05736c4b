"""The index of decisions is complete, and says of each record what the record says of itself. Records are frozen."""

import hashlib
import re
from pathlib import Path

import pytest

from tests.tidy.house import ROOT

pytestmark = pytest.mark.tidy

FOLDER = ROOT / "docs/decisions"
MAX_LINES = 50
HEADINGS = ["The question", "The choice", "Why not", "The price"]
ROW = re.compile(r"^\| \[(\d{4})\]\(([^)]+)\) \| [^|]+ \| ([^|]+) \|$", re.MULTILINE)
STATUS = re.compile(r"^Status: (in force|replaced by)\b(.*)$", re.MULTILINE)
LAST_FROZEN = 40
FROZEN = "0300c3fcae9ec379f3dea7284c4caa7a7355e5bbda81c7cb1659343a686620cf"
"""Of records 0001 to 0040 without their status lines: a tool that renames files everywhere must not rewrite them."""
NUMBER = re.compile(r"\b(\d{4})\b")


def records() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("[0-9]*.md"))}


def incomplete_index(index: str, texts: dict[str, str]) -> list[str]:
    """Every record has one row, and every row its record."""
    listed = [name for _, name, _ in ROW.findall(index)]
    found = [f"{name} has no row" for name in texts if name not in listed]
    found += [f"{name} is listed and does not exist" for name in listed if name not in texts]
    found += [f"{name} is listed twice" for name in sorted(set(listed)) if listed.count(name) > 1]
    return found + [f"{name} is listed as {number}" for number, name, _ in ROW.findall(index) if name[:4] != number]


def disagreeing_statuses(index: str, texts: dict[str, str]) -> list[str]:
    """Index and record have the same status, and name the same later records."""
    rows = {name: status for _, name, status in ROW.findall(index)}
    found = []
    for name, text in texts.items():
        if (own := STATUS.search(text)) is None:
            found.append(f"{name} has no status")
        elif not rows.get(name, "").startswith(own[1]) or later(name, rows[name]) != later(name, own[0]):
            found.append(f"{name} says {own[0]!r}, and the index says {rows.get(name)!r}")
    return found


def later(name: str, status: str) -> set[str]:
    """The records after this one that its status names; a year is none."""
    return {number for number in NUMBER.findall(status) if name[:4] < number < "2000"}


def replaced_in_silence(texts: dict[str, str]) -> list[str]:
    """What a record replaces, also in part, says so in its own status."""
    statuses = {name[:4]: own[0] for name, text in texts.items() if (own := STATUS.search(text))}
    found = []
    for number, status in statuses.items():
        _, _, replaces = status.partition("Replaces")
        earlier = [each for each in NUMBER.findall(replaces) if each < number]
        found += [
            f"{each} does not say that {number} replaces it"
            for each in sorted(set(earlier))
            if number not in statuses[each]
        ]
    return found


def digest(texts: dict[str, str]) -> str:
    """Of everything in these records but their status lines."""
    bodies = "".join(name + STATUS.sub("", text) for name, text in sorted(texts.items()))
    return hashlib.sha256(bodies.encode()).hexdigest()


def misshapen(name: str, text: str) -> list[str]:
    headings = [each for each in re.findall(r"^## (.+)$", text, re.MULTILINE) if each in HEADINGS]
    lines = len(text.splitlines())
    found = [f"{name} does not begin with # {name[:4]}:"] * (not text.startswith(f"# {name[:4]}: "))
    found += [f"{name} has the headings {headings}"] * (headings != HEADINGS)
    return found + [f"{name} has {lines} lines: at most {MAX_LINES}"] * (lines > MAX_LINES)


def test_every_record_is_in_the_index() -> None:
    assert incomplete_index((FOLDER / "README.md").read_text(encoding="utf-8"), records()) == []


def test_index_and_records_have_the_same_status() -> None:
    assert disagreeing_statuses((FOLDER / "README.md").read_text(encoding="utf-8"), records()) == []


def test_a_replaced_record_says_so() -> None:
    assert replaced_in_silence(records()) == []


def test_records_have_their_shape() -> None:
    assert [each for name, text in records().items() for each in misshapen(name, text)] == []


def test_old_records_keep_their_words() -> None:
    old = {name: text for name, text in records().items() if int(name[:4]) <= LAST_FROZEN}
    assert digest(old) == FROZEN, "a record is frozen: write a new one that replaces it"


def test_numbers_are_given_once_and_without_gaps() -> None:
    numbers = [int(Path(name).stem[:4]) for name in records()]
    assert numbers == list(range(1, len(numbers) + 1))


GOOD = "| [0001](0001-a.md) | A | replaced by 0002 |\n| [0002](0002-b.md) | B | in force |\n"
TEXTS = {
    "0001-a.md": "# 0001: a\n\nStatus: replaced by [0002](0002-b.md).\n",
    "0002-b.md": "# 0002: b\n\nStatus: in force, since May 2026. Replaces 0001.\n",
}


def test_a_wrong_index_is_seen() -> None:
    assert incomplete_index(GOOD, TEXTS) == []
    assert incomplete_index(GOOD, {"0001-a.md": ""}) == ["0002-b.md is listed and does not exist"]
    assert incomplete_index(GOOD.splitlines()[0], TEXTS) == ["0002-b.md has no row"]
    assert incomplete_index(GOOD.replace("[0002]", "[0003]"), TEXTS) == ["0002-b.md is listed as 0003"]
    assert incomplete_index(GOOD + GOOD.splitlines()[0], TEXTS) == ["0001-a.md is listed twice"]


@pytest.mark.parametrize("status", ["in force", "replaced by 0003", "replaced by"])
def test_a_wrong_status_is_seen(status: str) -> None:
    assert disagreeing_statuses(GOOD, TEXTS) == []
    assert len(disagreeing_statuses(GOOD.replace("replaced by 0002", status), TEXTS)) == 1


def test_a_silent_replacement_is_seen() -> None:
    assert replaced_in_silence(TEXTS) == []
    silent = TEXTS | {"0001-a.md": "# 0001: a\n\nStatus: in force, since May 2026.\n"}
    assert replaced_in_silence(silent) == ["0001 does not say that 0002 replaces it"]


def test_a_changed_word_is_seen_and_a_changed_status_is_not() -> None:
    changed = {name: text.replace("# 0001: a", "# 0001: b") for name, text in TEXTS.items()}
    assert digest(changed) != digest(TEXTS)
    again = {name: text.replace("since May 2026", "since June 2026; more: 0003") for name, text in TEXTS.items()}
    assert digest(again) == digest(TEXTS)


def test_a_misshapen_record_is_seen() -> None:
    whole = "# 0001: a\n\n" + "".join(f"## {heading}\n\n" for heading in HEADINGS)
    assert misshapen("0001-a.md", whole) == []
    assert len(misshapen("0002-a.md", whole)) == 1
    assert len(misshapen("0001-a.md", whole.replace("## Why not\n", ""))) == 1
    assert len(misshapen("0001-a.md", whole + "\n" * MAX_LINES)) == 1
