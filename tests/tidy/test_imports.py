"""The import contracts of pyproject.toml and the rule against clocks in pure folders, each broken on purpose.

The contracts are tried on a skeleton: the rooms as empty modules, plus one line that must not be there.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.house import ROOMS, ROOT, sources

pytestmark = pytest.mark.tidy

STUBS = "engine/clients/lndrpc"
NOT_YET = ("engine/clients/bitcoind.py", "engine/clients/invoices.py", "engine/telemetry.py")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    arguments = [sys.executable, "-c", command, "--no-cache", "--no-logo"]
    return subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    modules = [one.path for one in sources(*ROOMS) if not one.path.startswith("infra/")]
    for module in [*modules, "infra/__init__.py", "infra/local/__init__.py", f"{STUBS}/__init__.py", *NOT_YET]:
        (tmp_path / module).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / module).touch()
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")
    return tmp_path


def test_the_house_keeps_its_import_contracts() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_is_allowed_passes(skeleton: Path) -> None:
    allowed = [f"engine.clients.{name}" for name in ("bolt11", "cache", "invoices")]
    allowed += [f"engine.ledger.{name}" for name in ("accounts", "bank_tables", "books", "database", "reads", "tables")]
    allowed += ["engine.telemetry", "engine.contracts", "workflows"]
    (skeleton / "api/a.py").write_text("".join(f"import {name}\n" for name in allowed), encoding="utf-8")
    for driver in ("engine/clients/lnd", "engine/clients/lnd_channel", "engine/clients/invoices", "infra/local/a"):
        (skeleton / f"{driver}.py").write_text("import engine.clients.lndrpc\n", encoding="utf-8")
    result = lint(skeleton)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        ("workflows/a.py", "import activities", "Rooms:"),
        ("activities/a.py", "import workflows", "Rooms:"),
        ("engine/domain/a.py", "import api", "Rooms:"),
        ("api/a.py", "import infra", "Rooms:"),
        ("engine/ledger/a.py", "import engine.clients", "Engine:"),
        ("engine/domain/a.py", "import engine.settings", "Engine:"),
        ("engine/cupboard.py", "x = 1", "Engine:"),
        ("workflows/a.py", "import asyncpg", "Workflows, contracts and domain"),
        ("engine/contracts/a.py", "import os", "Workflows, contracts and domain"),
        ("engine/domain/a.py", "import random", "Workflows, contracts and domain"),
        ("workflows/a.py", "import engine.settings", "Workflows, contracts and domain"),
        ("engine/domain/a.py", "import temporalio", "Domain knows nothing"),
        ("api/a.py", "import activities", "API starts workflows"),
        ("api/a.py", "import engine.clients.lnd", "API starts workflows"),
        ("api/a.py", "import engine.clients.bitcoind", "API starts workflows"),
        ("api/a.py", "import engine.ledger.store", "API starts workflows"),
        ("api/a.py", "import engine.ledger.payment", "API starts workflows"),
        ("engine/ledger/reads.py", "import engine.ledger.book", "What the API may read"),
        ("engine/ledger/tables.py", "import engine.ledger.payment", "What the API may read"),
        ("activities/a.py", "import engine.clients.lndrpc", "Generated LND stubs"),
        ("infra/a.py", "import engine.clients.lndrpc", "Generated LND stubs"),
        ("engine/clients/cache.py", "import engine.clients.lndrpc", "Generated LND stubs"),
    ],
)
def test_a_wrong_import_breaks_its_contract(skeleton: Path, path: str, line: str, contract: str) -> None:
    (skeleton / path).write_text(f"{line}\n", encoding="utf-8")
    result = lint(skeleton)
    assert result.returncode == 1, result.stdout + result.stderr
    verdicts = " ".join(result.stdout.split())
    assert re.search(rf"{re.escape(contract)}(?:(?! KEPT).)* BROKEN", verdicts), verdicts


@pytest.mark.parametrize("folder", ["workflows", "engine/contracts", "engine/domain"])
@pytest.mark.parametrize(
    "text",
    [
        "import datetime\n\ndatetime.datetime.now(datetime.UTC)\n",
        "import time\n\ntime.time()\n",
        "import uuid\n\nuuid.uuid4()\n",
        "import random\n",
        "import asyncio\n\nasyncio.wait([])\n",
    ],
)
def test_clocks_and_chance_are_banned_in_pure_folders_only(folder: str, text: str) -> None:
    assert _banned(f"{folder}/a.py", text)
    assert not _banned("activities/a.py", text)


def _banned(path: str, text: str) -> bool:
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "TID251", "--stdin-filename", path, "-"]
    result = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    return "TID251" in result.stdout
