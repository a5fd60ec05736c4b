"""The posting of a node's adoption: what it holds becomes capital.

    event     reference             entries
    adopted   node:<name>:opening   Dr channels · Dr commit escrow · Dr on chain · Cr capital

Pure: values and account ids in, one posting out.
"""

from engine.domain.ids import NodeName
from engine.domain.money import Msat
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import ChartIds

_ACTOR = "adopt-node"


def adopted(
    ids: ChartIds, node: NodeName, accounts: tuple[int, int, int], amounts_msat: tuple[Msat, Msat, Msat]
) -> Posting | None:
    """The opening: accounts and amounts of channels, commit escrow and on-chain wallet. None for an empty node."""
    legs = [debit(account, amount) for account, amount in zip(accounts, amounts_msat, strict=True) if amount > 0]
    if not legs:
        return None
    return Posting(
        ref=f"node:{node}:opening",
        template="node_adopted",
        phase="post",
        actor=_ACTOR,
        workflow_id=f"adopt-{node}",
        legs=[*legs, credit(ids.capital, sum(amounts_msat))],
    )
