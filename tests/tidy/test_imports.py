"""The import contracts of pyproject.toml and the rule against clocks in pure folders, each broken on purpose.

The contracts are tried on a skeleton: our modules, emptied. One copy holds every import that is allowed at the edges,
another holds every wrong one, each in a module of its own, so that one run tells them all.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.house import ROOMS, ROOT, sources

pytestmark = pytest.mark.tidy

STUBS = "engine/clients/lndrpc"
NOT_YET = ("engine/clients/bitcoind.py",)
WRONG = [
    ("workflows", "activities", "Rooms:"),
    ("activities", "workflows", "Rooms:"),
    ("engine/domain", "api", "Rooms:"),
    ("api/http", "infra", "Rooms:"),
    ("engine/ledger", "engine.clients.cache", "Engine:"),
    ("engine/clients", "engine.contracts.queues", "Engine:"),
    ("engine/domain", "engine.settings", "Engine:"),
    ("engine/ledger", "engine.bank.payment", "Engine:"),
    ("engine/bank", "engine.views.balance", "Engine:"),
    ("api/http", "api.service.auth", "API: doors"),
    ("api/service", "api.access", "API: doors"),
    ("api/admin", "api.user.wallet", "API: doors"),
    ("api/service", "fastapi", "Service:"),
    ("workflows", "asyncpg", "Workflows, contracts and domain"),
    ("workflows", "engine.settings", "Workflows, contracts and domain"),
    ("workflows", "engine.telemetry", "Workflows, contracts and domain"),
    ("engine/contracts", "os", "Workflows, contracts and domain"),
    ("engine/domain", "random", "Workflows, contracts and domain"),
    ("engine/domain", "temporalio", "Domain knows nothing"),
    ("api/user", "activities", "API: no activities"),
    ("api/service", "engine.clients.bitcoind", "API: no activities"),
    ("api/service", "engine.clients.lnd.client", "API: no activities"),
    ("api/admin", "engine.clients.lnd.commitment", "API: no activities"),
    ("api/admin", "engine.ledger.store", "API: no activities"),
    ("api/user", "engine.ledger.store", "API: nothing"),
    ("engine/bank", "engine.ledger.book", "Bank and views hold rows"),
    ("engine/bank", "engine.ledger.postings.payment", "Bank and views hold rows"),
    ("engine/views", "engine.ledger.store", "Bank and views hold rows"),
    ("api/service", "engine.views.table.bank", "SQLModel:"),
    ("activities", "sqlmodel", "SQLModel:"),
    ("engine/ledger/postings", "asyncpg", "Postings are pure"),
    ("engine/ledger/postings", "engine.ledger.database", "Postings are pure"),
    ("activities", "engine.clients.lndrpc", "Generated LND stubs"),
    ("engine/clients", "engine.clients.lndrpc", "Generated LND stubs"),
    ("infra", "engine.clients.lndrpc", "Generated LND stubs"),
]
ALLOWED = [
    *(("api/service", f"engine.clients.{name}") for name in ("bolt11", "cache", "lnd.invoice")),
    *(
        ("api/service", f"engine.{name}")
        for name in ("bank.account.account", "views.transaction", "ledger.checks", "ledger.database", "views.balance")
    ),
    ("api/http", "engine.telemetry"),
    ("api/service", "workflows"),
    ("workflows", "engine.contracts"),
    ("engine/clients/lnd/invoice.py", "engine.clients.lndrpc"),
    ("engine/clients/lnd/client.py", "engine.clients.lndrpc"),
    ("engine/clients/lnd/grpc_channel.py", "engine.clients.lndrpc"),
    ("infra/local", "engine.clients.lndrpc"),
]


def lint(folder: Path) -> tuple[int, str]:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    arguments = [sys.executable, "-c", command, "--no-cache", "--no-logo"]
    environment = {**os.environ, "COLUMNS": "300"}
    result = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    return result.returncode, result.stdout + result.stderr


def skeleton(folder: Path, imports: list[tuple[str, str, str]]) -> None:
    """Our modules, emptied; each (place, imported, module) is an import in that file, or in a new one in that room."""
    modules = [one.path for one in sources(*ROOMS) if not one.path.startswith("infra/")]
    for module in [*modules, "infra/__init__.py", "infra/local/__init__.py", f"{STUBS}/__init__.py", *NOT_YET]:
        (folder / module).parent.mkdir(parents=True, exist_ok=True)
        (folder / module).touch()
    for _, imported, module in imports:
        with (folder / f"{module.replace('.', '/')}.py").open("a", encoding="utf-8") as file:
            file.write(f"import {imported}\n")
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"), encoding="utf-8")


def module_of(place: str, number: int) -> str:
    path = place.removesuffix(".py") if place.endswith(".py") else f"{place}/extra_{number}"
    return path.replace("/", ".")


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What import-linter says against the skeleton with every wrong import, by the name of the contract."""
    folder = tmp_path_factory.mktemp("wrong")
    skeleton(folder, [(place, imported, module_of(place, n)) for n, (place, imported, _) in enumerate(WRONG)])
    (folder / "engine/cupboard.py").touch()
    code, output = lint(folder)
    assert code == 1, output
    parts = re.split(r"^(.+)\n-{5,}$", output.split("Broken contracts")[1], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_house_keeps_its_import_contracts() -> None:
    code, output = lint(ROOT)
    assert code == 0, output


def test_an_allowed_import_passes(tmp_path: Path) -> None:
    skeleton(tmp_path, [(place, imported, module_of(place, n)) for n, (place, imported) in enumerate(ALLOWED)])
    code, output = lint(tmp_path)
    assert code == 0, output


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[f"{place} imports {name}" for place, name, _ in WRONG])
def test_a_wrong_import_breaks_its_contract(complaints: dict[str, str], number: int) -> None:
    place, imported, contract = WRONG[number]
    (against,) = [text for name, text in complaints.items() if name.startswith(contract)]
    assert f"{module_of(place, number)} -> {imported} (l.1)" in " ".join(against.split())


def test_a_new_room_in_the_engine_is_seen(complaints: dict[str, str]) -> None:
    (against,) = [text for name, text in complaints.items() if name.startswith("Engine:")]
    assert "cupboard" in against


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
