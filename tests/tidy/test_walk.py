"""A newcomer can read a whole payment or withdrawal: a page lists its files; they are few and hang together."""

import re
from pathlib import Path

import pytest

from tests.tidy.house import ROOT, Source, product

pytestmark = pytest.mark.tidy

PAYMENT, WITHDRAWAL = "docs/walk-of-a-payment.md", "docs/walk-of-a-withdrawal.md"
MOST_FILES = {PAYMENT: 18, WITHDRAWAL: 24}
ROW = re.compile(r"^\| \d+ \| `([\w/]+\.py)` \|", re.MULTILINE)
OWN = ("api/user/payment", "api/service/payment/", "workflows/payment", "activities/payment", "engine/bank/payment")
NOT_ON_THE_WAY = {"api/service/payment/read.py"}
"""Shows and lists payments; pays none."""


def walk(page: str = PAYMENT) -> list[str]:
    return ROW.findall((ROOT / page).read_text(encoding="utf-8"))


def strangers(listed: list[str], files: list[Source]) -> list[str]:
    """Files of the walk that neither import another file of the walk nor are imported by one."""
    modules = {path: path.removesuffix(".py").replace("/", ".") for path in listed}
    texts = {one.path: one.text for one in files if one.path in modules}
    links = {
        path: {other for other, module in modules.items() if other != path and _names(texts.get(path, ""), module)}
        for path in listed
    }
    return [path for path in listed if not links[path] and not any(path in others for others in links.values())]


def _names(text: str, module: str) -> bool:
    package, _, name = module.rpartition(".")
    whole = rf"from {re.escape(module)} import"
    part = rf"from {re.escape(package)} import (?:\([^)]*|[^\n(]*)\b{name}\b"
    return re.search(f"{whole}|{part}", text) is not None


@pytest.mark.parametrize("page", MOST_FILES)
def test_a_walk_is_short(page: str) -> None:
    assert 1 < len(walk(page)) <= MOST_FILES[page]
    assert len(set(walk(page))) == len(walk(page))


@pytest.mark.parametrize("page", MOST_FILES)
def test_the_files_of_a_walk_hang_together(page: str) -> None:
    assert [path for path in walk(page) if not Path(ROOT / path).is_file()] == []
    assert strangers(walk(page), list(product())) == []


def test_no_file_of_a_payment_is_left_out() -> None:
    own = {one.path for one in product() if one.path.startswith(OWN) and one.name != "__init__"}
    assert own - NOT_ON_THE_WAY <= set(walk())


def test_a_file_that_does_not_belong_is_seen() -> None:
    assert strangers([*walk(), "api/system/pages.py"], list(product())) == ["api/system/pages.py"]
