"""Where a test stands: its kind, then the folder of its capability, which is called as in the product.

Markers and `./run test tests/fault` go by kind; `./run test tests/*/quote` runs all that there is of a quote.
"""

import pytest

from tests.tidy.house import ROOMS, ROOT, Source, imports, source, sources

pytestmark = pytest.mark.tidy

KINDS = ("unit", "property", "workflow", "integration", "fault")
"""The others are small, and have no folders."""


def misplaced(files: list[Source], names: set[str]) -> list[str]:
    """`names` are the capabilities: whatever a file or folder of the product is called."""
    found = []
    for one in files:
        if one.path.split("/")[1] not in KINDS:
            continue
        *folders, name = one.path.split("/")[2:]
        if not name.startswith("test_"):
            found.append(f"{one.path} is no test: helpers stand in tests/helpers")
        elif len(folders) != 1:
            found.append(f"{one.path} stands in {len(folders)} folders below its kind: one, that of its capability")
        elif folders[0] not in names:
            found.append(f"{one.path}: nothing in the product is called {folders[0]}")
    return found


def borrowed(files: list[Source]) -> list[str]:
    """What two tests need is a helper."""
    return [
        f"{one.at(node)} imports {module}"
        for one in files
        for node, module in imports(one)
        if module.startswith("tests.") and module.rsplit(".", 1)[-1].startswith("test_")
    ]


def capabilities() -> set[str]:
    below = [path for folder in ROOMS for path in (ROOT / folder).rglob("*.py")]
    return {*ROOMS, *(path.stem for path in below), *(path.parent.name for path in below)}


def test_tests_stand_in_the_folder_of_their_capability() -> None:
    assert misplaced(sources("tests"), capabilities()) == []


def test_tests_import_no_tests() -> None:
    assert borrowed(sources("tests")) == []


@pytest.mark.parametrize(
    "path",
    [
        "tests/unit/test_fees.py",
        "tests/unit/fee/deep/test_fees.py",
        "tests/unit/made_up/test_fees.py",
        "tests/unit/fee/rounding.py",
        "tests/fault/fault_helpers.py",
    ],
)
def test_a_misplaced_test_is_seen(path: str) -> None:
    assert len(misplaced([source(path, "")], {"fee"})) == 1
    right = ["tests/unit/fee/test_fees.py", "tests/helpers/fee.py", "tests/replay/record.py", "tests/conftest.py"]
    assert misplaced([source(each, "") for each in right], {"fee"}) == []


@pytest.mark.parametrize("text", ["from tests.unit.fee.test_fees import RATE", "import tests.unit.fee.test_fees"])
def test_an_import_from_a_test_is_seen(text: str) -> None:
    assert len(borrowed([source("tests/fault/fee/test_fees.py", text)])) == 1
    assert borrowed([source("tests/fault/fee/test_fees.py", "from tests.helpers.fee import RATE")]) == []
