"""Invoices on which two readers may differ, one of each kind that was found: our verdict, and LND's words.

`tests/integration/invoice/test_readers.py` found them, and asks a real LND about the same texts.
"""

import pytest

from engine.clients import bolt11
from engine.domain.errors import Invalid
from tests.helpers.invoice.corpus import CORPUS, Known

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("known", CORPUS, ids=lambda known: f"{known['ours']}, LND: {known['lnd']}")
def test_our_verdict_stays(known: Known) -> None:
    try:
        bolt11.decode(known["text"], network="regtest")
        verdict = "read"
    except Invalid as refused:
        verdict = refused.code
    assert verdict == known["ours"]


def test_the_corpus_has_every_way_in_which_two_readers_can_differ() -> None:
    kinds = {(known["ours"] == "read", known["lnd"] == "read") for known in CORPUS}
    assert kinds == {(True, True), (True, False), (False, True), (False, False)}
