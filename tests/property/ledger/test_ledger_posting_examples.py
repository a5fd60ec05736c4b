"""Postings are to the byte what they always were.

The examples were computed by the release that still asked a connection for its account ids. A worker that posts a
reference again must send the same hash, whatever release it runs.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest

from engine.domain.fee import Charge
from engine.domain.limit import Count
from engine.domain.money import Msat
from engine.ledger.book import Posting
from engine.ledger.postings.correction import corrected
from engine.ledger.postings.payment import paid_internally, released, reserved
from tests.helpers.ledger.posting import (
    ALICE,
    BOB,
    CHANNELS,
    CODES,
    ESCROW,
    HASH,
    IDS,
    ONCHAIN,
    OPERATORS,
    correction,
    opening,
    payment,
    receipt,
    settlement,
    stray,
)

pytestmark = pytest.mark.unit

OURS = Charge(fee_msat=Msat(100), version=3, level=2)
COUNTS = [Count("lightning", 101_100, {86_400: 5_000_000})]
FREE = {"service_fee_msat": Msat(0), "fee_version": None, "fee_level": None, "max_fee_msat": Msat(1_000)}
ZERO = {"service_fee_msat": Msat(0), "max_fee_msat": Msat(0)}


def entered(place: int = 0, **changed: Any) -> Posting:
    return corrected(correction(**changed), "acct_b", CODES)[place]


RULE = {"fee_msat": 100, "fee_version": 3, "fee_level": 2}
APPROVED = {"correction": "corr_1", "proposed_by": "acct_a", "approved_by": "acct_b"}
PAYMENT, RECEIVE, CORRECTION = "payment/acct_1/k", f"receive/{HASH}", "correction/corr_1"
HOLD = f"ln:{HASH}:hold:2"
EXAMPLES: dict[str, tuple[Callable[[], Posting | None], str, str, dict[str, Any], list[tuple[int, int]], str]] = {
    "reserved": (
        lambda: reserved(IDS, payment(), ALICE, COUNTS),
        f"{HOLD} lightning_reserved hold payment {PAYMENT} 'coffee' []",
        "lightning",
        RULE,
        [(ALICE, 101_100), (1, -101_100)],
        "93a298429600409e0a0c5ca4bd068735cdd2d35604efb1875c3727d344128b22",
    ),
    "reserved, free of charge": (
        lambda: reserved(IDS, payment(memo=None, **FREE), ALICE),
        f"{HOLD} lightning_reserved hold payment {PAYMENT} None []",
        "",
        {},
        [(ALICE, 101_000), (1, -101_000)],
        "ba3b75508e21e96fc8a179a8d15f75b742274c30c15d5b87cea39602f7b14038",
    ),
    "reserved, by a rule that charges nothing": (
        lambda: reserved(IDS, payment(**ZERO), ALICE),
        f"{HOLD} lightning_reserved hold payment {PAYMENT} 'coffee' []",
        "",
        {},
        [(ALICE, 100_000), (1, -100_000)],
        "3a10a73ccf87cc2a7a81a136d5d4285ce5c0a9af4fcfbb359fa34f2392b2c6ac",
    ),
    "settled": (
        lambda: settlement(350),
        f"ln:{HASH}:settle lightning_settled settle payment {PAYMENT} None ['{HOLD}']",
        "",
        RULE,
        [(ALICE, 100_450), (CHANNELS, -100_350), (6, 350), (4, -450)],
        "371637e5ccfea1e0b74f6fa2a8c077b66716b8306eb0f27b89a13c773b462dbe",
    ),
    "settled in part": (
        lambda: settlement(200, 60_000),
        f"ln:{HASH}:settle lightning_settled settle payment {PAYMENT} None ['{HOLD}']",
        "",
        RULE,
        [(ALICE, 60_300), (CHANNELS, -60_200), (6, 200), (4, -300)],
        "0e2aabacd305e812dc2fa30420501a32e5b1b937d5c6944135bc113980314294",
    ),
    "settled without any fee": (
        lambda: settlement(0, **FREE),
        f"ln:{HASH}:settle lightning_settled settle payment {PAYMENT} None ['{HOLD}']",
        "",
        {},
        [(ALICE, 100_000), (CHANNELS, -100_000)],
        "984a39e8a3890e935e99f7a8de6010cc26b82453384bc7aeba3d90aa9e5ba4c9",
    ),
    "settled with our fee alone": (
        lambda: settlement(0),
        f"ln:{HASH}:settle lightning_settled settle payment {PAYMENT} None ['{HOLD}']",
        "",
        RULE,
        [(ALICE, 100_100), (CHANNELS, -100_000), (4, -100)],
        "e709ee46fae351d631dd6b9e7511b9b8dbbce928905dc2409cc591fc26459c38",
    ),
    "released": (
        lambda: released(payment()),
        f"ln:{HASH}:void:2 lightning_released void payment {PAYMENT} None ['{HOLD}']",
        "",
        {},
        [],
        "a1cb108fdb3658e6e5d99619e0081cc816bf9a3fb0a87c339b0de2394e0eb1d3",
    ),
    "paid to a wallet": (
        lambda: paid_internally(
            IDS,
            payment(payment_hash=None, attempt=None, max_fee_msat=Msat(100)),
            payer=ALICE,
            payee=BOB,
            counts=COUNTS,
        ),
        f"pay:pay_1 paid_internally post payment {PAYMENT} 'coffee' []",
        "lightning",
        {"payment": "pay_1", **RULE},
        [(ALICE, 100_100), (BOB, -100_000), (5, -100)],
        "5af15863081926c6dae6e4377800fe695d8827d964b6c3561f8099e0aa94a87e",
    ),
    "paid by invoice, internally": (
        lambda: paid_internally(IDS, payment(attempt=None, memo=None, **ZERO), payer=ALICE, payee=BOB),
        f"ln:{HASH}:recv paid_internally post payment {PAYMENT} None []",
        "",
        {"payment": "pay_1"},
        [(ALICE, 100_000), (BOB, -100_000)],
        "9ade29bfe6bf0cb2fb1542be229134f14a2bf8ecbd35b8fc368b06e97b11d2b3",
    ),
    "credited": (
        lambda: receipt(250_000, OURS),
        f"ln:{HASH}:recv lightning_received post receive {RECEIVE} None []",
        "",
        RULE,
        [(CHANNELS, 250_000), (BOB, -249_900), (4, -100)],
        "b91f02f5a743f33b534cb2c4be73576c346b0409adf5c00f140e05c802807cda",
    ),
    "credited beside an internal payment": (
        lambda: receipt(250_000, None, beside_internal=True),
        f"ln:{HASH}:recv:outside lightning_received post receive {RECEIVE} None []",
        "",
        {},
        [(CHANNELS, 250_000), (BOB, -250_000)],
        "9c4bba8b69a3c4872b98f93fd68dfbf1610773e428f712aa523a52f4e61676ee",
    ),
    "credited, all of it our fee": (
        lambda: receipt(100, OURS),
        f"ln:{HASH}:recv lightning_received post receive {RECEIVE} None []",
        "",
        RULE,
        [(CHANNELS, 100), (4, -100)],
        "41941c47e8f1e385c1198f737531421f83e761ce772057b91efd4b001e36486b",
    ),
    "unclaimed": (
        lambda: stray(1_111_000),
        f"ln:{HASH}:recv lightning_received post receive {RECEIVE} None []",
        "",
        {},
        [(CHANNELS, 1_111_000), (2, -1_111_000)],
        "c7f182e7472eb7c0075a0b906834d432e2b7cfc6e77800dc0ca5661cd7901149",
    ),
    "adopted": (
        lambda: opening(5_000_000_000, 2_180_000, 300_000_000),
        "node:lnd-1:opening node_adopted post adopt-node adopt-lnd-1 None []",
        "",
        {},
        [(CHANNELS, 5_000_000_000), (ESCROW, 2_180_000), (ONCHAIN, 300_000_000), (3, -5_302_180_000)],
        "b4fe1a786374618788e322f1e52399119807938e73dcd7ec124223768a403d45",
    ),
    "adopted with channels alone": (
        lambda: opening(5_000, 0, 0),
        "node:lnd-1:opening node_adopted post adopt-node adopt-lnd-1 None []",
        "",
        {},
        [(CHANNELS, 5_000), (3, -5_000)],
        "809a31bfca35aa74cb05e2dd59346336b95497bf79b1161cfa870f65208d439a",
    ),
    "taken out": (
        lambda: entered(0),
        f"corr:corr_1:out corrected post correction {CORRECTION} 'charged by mistake' []",
        "",
        {**APPROVED, "case": "case_1"},
        [(4, 350), (OPERATORS, -350)],
        "8a87be3a15a4d686a57e0c20be373edde52b04b23b2bb65923d412dbee900ee8",
    ),
    "put in": (
        lambda: entered(1),
        f"corr:corr_1:in corrected post correction {CORRECTION} 'charged by mistake' []",
        "",
        {**APPROVED, "case": "case_1"},
        [(OPERATORS, 350), (ALICE, -350)],
        "03d51ba5e90d23949ef1827f5fb387920e3784539e882f84603e4d0a6dc01fba",
    ),
    "corrected": (
        lambda: entered(debit="suspense:in", case_id=None, reference="mail 7"),
        f"corr:corr_1 corrected post correction {CORRECTION} 'charged by mistake' []",
        "",
        {**APPROVED, "reference": "mail 7"},
        [(2, 350), (ALICE, -350)],
        "76ee1a54a4cc5753e24ab8bf24acad42073db2f6b2e2074df6d002e05b9a9f3c",
    ),
    "capital": (
        lambda: entered(kind="capital", debit="asset:lnd:lnd-1:onchain", credit="equity:capital"),
        f"capital:corr_1 capital_moved post correction {CORRECTION} 'charged by mistake' []",
        "",
        {**APPROVED, "case": "case_1"},
        [(ONCHAIN, 350), (3, -350)],
        "19d2b9b3d01fac10b7918c7818d98daf743977aa06007c7dd302ac02e88a03f7",
    ),
}


@pytest.mark.parametrize("event", EXAMPLES)
def test_a_posting_is_to_the_byte_what_it_always_was(event: str) -> None:
    make, words, counted, metadata, legs, payload_hash = EXAMPLES[event]
    made = make()
    assert made is not None
    said = f"{made.ref} {made.template} {made.phase} {made.actor} {made.workflow_id} {made.description!r}"
    assert f"{said} {list(made.relates_to)}" == words
    assert json.dumps(dict(made.metadata)) == json.dumps(metadata)
    assert [(leg.account_id, leg.amount_msat) for leg in made.legs] == legs
    assert (made.counted and (made.counted.account_id, made.counted.counts)) == ((ALICE, COUNTS) if counted else None)
    assert (made.effective_on, made.expires_at) == (None, None)
    assert made.payload_hash.hex() == payload_hash
