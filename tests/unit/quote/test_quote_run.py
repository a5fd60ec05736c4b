"""Who may be probed: somebody whom an HTLC can reach and whom it can harm least."""

import time
from pathlib import Path

import pytest

from api.service.quote.quote_run import Route, may_probe
from engine.clients.bolt11 import decode
from engine.domain.money import Msat
from engine.settings import ApiSettings
from tests.helpers.invoice.bolt11_encoder import Draft, to_words

pytestmark = pytest.mark.unit

HOP = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
HINT = HOP + bytes(18)


def settings(*, probe_max_sat: int = 1_000, probe_skip: frozenset[str] = frozenset()) -> ApiSettings:
    return ApiSettings.model_construct(probe_max_sat=probe_max_sat, probe_skip=probe_skip)


def route(amount_msat: int = 1_000, draft: Draft | None = None) -> Route:
    found = decode((draft or Draft(timestamp=int(time.time()))).text(), network="regtest")
    return Route(payee=found.payee, amount_msat=Msat(amount_msat), bolt11=found.bolt11, hints=found.route_hints)


def test_a_public_payee_is_probed_up_to_a_limit() -> None:
    assert may_probe(settings(), route(1_000_000))
    assert not may_probe(settings(), route(1_000_001))
    assert not may_probe(settings(probe_max_sat=0), route())


def test_a_payee_in_the_list_is_not_probed() -> None:
    assert not may_probe(settings(probe_skip=frozenset({route().payee})), route())
    assert may_probe(settings(probe_skip=frozenset({HOP.hex()})), route())


def test_a_payee_that_hints_at_private_channels_is_not_probed() -> None:
    hinted = route(draft=Draft(timestamp=int(time.time()), extra=[("r", to_words(HINT))]))
    assert hinted.hints == (HINT.hex(),)
    assert not may_probe(settings(), hinted)


def test_an_answer_is_remembered_for_a_payee_an_amount_and_the_hints() -> None:
    hinted = route(draft=Draft(timestamp=int(time.time()), extra=[("r", to_words(HINT))]))
    assert route().digest == route(draft=Draft(timestamp=1)).digest
    assert len({route().digest, route(1_001).digest, hinted.digest}) == 3


def test_the_list_is_read_with_commas_or_spaces(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = [f"02{digit * 64}" for digit in "abc"]
    for name, value in {
        "POSTGRES_DSN": "x",
        "REDIS_URL": "x",
        "TEMPORAL_ADDRESS": "x",
        "BITCOIN_NETWORK": "regtest",
        "BITCOIND_URL": "x",
        "ADMIN_KEY": "k" * 20,
        "PREIMAGE_SECRET": "ab" * 32,
        "PUBLIC_URL": "http://127.0.0.1:1",
        "NODES": f'{{"lnd-1": {{"address": "a:1", "tls_cert": "{tmp_path}/f", "macaroon": "{tmp_path}/f"}}}}',
        "PROBE_SKIP": f"{keys[0]}, {keys[1]} {keys[2]}",
    }.items():
        monkeypatch.setenv(f"MILLRACE_{name}", value)
    (tmp_path / "f").touch()
    assert ApiSettings().probe_skip == set(keys)
