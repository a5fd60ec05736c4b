"""A process that is told too little, or wrong things, says all of it at once and does not start."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from engine.settings import ApiSettings

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
COMMON = {
    "MILLRACE_POSTGRES_DSN",
    "MILLRACE_REDIS_URL",
    "MILLRACE_TEMPORAL_ADDRESS",
    "MILLRACE_BITCOIN_NETWORK",
    "MILLRACE_NODES",
    "MILLRACE_BITCOIND_URL",
}
WORKER = [sys.executable, "worker.py"]
API = [sys.executable, "-m", "api.serve", "--port", "0"]


def _start(command: list[str], **settings: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    return subprocess.run(
        command, cwd=ROOT, env={**environ, **settings}, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("command", "names"),
    [(WORKER, COMMON), (API, COMMON | {"MILLRACE_ADMIN_KEY", "MILLRACE_PREIMAGE_SECRET", "MILLRACE_PUBLIC_URL"})],
    ids=["worker", "api"],
)
def test_everything_that_is_missing_is_named_at_once(command: list[str], names: set[str]) -> None:
    ended = _start(command)
    assert ended.returncode == 2
    assert {name for name in names if name in ended.stderr} == names
    assert "Traceback" not in ended.stderr


def test_a_wrong_setting_is_named_without_being_shown(tmp_path: Path) -> None:
    ended = _start(
        API,
        MILLRACE_ADMIN_KEY="short-secret",
        MILLRACE_PREIMAGE_SECRET="not hex",
        MILLRACE_BITCOIN_NETWORK="moonnet",
        MILLRACE_POSTGRES_POOL_SIZE="many",
        MILLRACE_NODES=f'{{"lnd-1": {{"address": "nowhere", "tls_cert": "{tmp_path}/none", "macaroon": "/none"}}}}',
    )
    assert ended.returncode == 2
    for name in ("ADMIN_KEY", "PREIMAGE_SECRET", "BITCOIN_NETWORK", "POSTGRES_POOL_SIZE", "NODES", "REDIS_URL"):
        assert f"MILLRACE_{name}" in ended.stderr
    assert "short-secret" not in ended.stderr
    assert "not hex" not in ended.stderr


def test_broken_json_is_one_problem_among_the_others() -> None:
    ended = _start(WORKER, MILLRACE_NODES="{broken")
    assert ended.returncode == 2
    assert "MILLRACE_NODES" in ended.stderr
    assert "MILLRACE_POSTGRES_DSN" in ended.stderr


@pytest.mark.parametrize("trusted", ["*", "0.0.0.0/0", "::/0", "10.0.0.1, *", "proxy", "10.0.0.300", "10.0.0.0/40"])
def test_a_trust_in_everybody_or_nobody_is_no_setting(trusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn takes an unknown word for a name that nobody has, and with * whatever a client writes for his address."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)
    with pytest.raises(ValidationError) as refused:
        ApiSettings()
    assert ("FORWARDED_ALLOW_IPS",) in [each["loc"] for each in refused.value.errors()]


def test_a_wrong_setting_with_a_name_of_its_own_is_named() -> None:
    ended = _start(API, FORWARDED_ALLOW_IPS="*")
    assert ended.returncode == 2
    assert "\n  FORWARDED_ALLOW_IPS: " in ended.stderr
    assert "MILLRACE_FORWARDED" not in ended.stderr


def test_an_empty_value_is_no_value() -> None:
    ended = _start(API, MILLRACE_POSTGRES_POOL_SIZE="", MILLRACE_ADMIN_KEY="", FORWARDED_ALLOW_IPS="")
    assert "MILLRACE_ADMIN_KEY: Field required" in ended.stderr
    assert "POOL_SIZE" not in ended.stderr
    assert "FORWARDED_ALLOW_IPS" not in ended.stderr


@pytest.mark.parametrize(
    ("network", "rate", "problem"),
    [
        ("mainnet", "2000", "must not be set on mainnet"),
        ("regtest", "99", "greater than"),
        ("regtest", "10000001", "less than"),
    ],
)
def test_a_fixed_fee_rate_is_bounded_and_refused_on_mainnet(network: str, rate: str, problem: str) -> None:
    ended = _start(WORKER, MILLRACE_BITCOIN_NETWORK=network, MILLRACE_FIXED_FEE_RATE=rate)
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if "FIXED_FEE_RATE" in line]
    assert problem in line
