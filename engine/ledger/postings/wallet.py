"""The posting of the hot wallet's adoption: what it holds becomes capital.

    event     reference               entries
    adopted   chain:<wallet>:opening  Dr hot · Cr capital

Pure: values and account ids in, one posting out.
"""

from engine.domain.money import Msat
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import ChartIds

_ACTOR = "adopt-wallet"


def adopted(ids: ChartIds, wallet: str, amount_msat: Msat) -> Posting | None:
    """The opening. None for an empty wallet."""
    if amount_msat == 0:
        return None
    return Posting(
        ref=f"chain:{wallet}:opening",
        template="wallet_adopted",
        phase="post",
        actor=_ACTOR,
        legs=[debit(ids.hot, amount_msat), credit(ids.capital, amount_msat)],
    )
