"""What withdrawals have cost, by the word of the wallet that sent them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.bench.chain.wallet import Outsider
from infra.bench.report import Fact
from infra.local.chain.payer import satoshi

_SIZE = "size of a withdrawal"
_COST = "miner fee of a withdrawal"


@dataclass(slots=True)
class Spent:
    """What withdrawals have cost so far."""

    count: int = 0
    vbytes: int = 0
    fee_sat: int = 0
    paid_sat: Mapping[str, int] = field(default_factory=dict[str, int])
    """What each address receives; of one transaction only."""

    def facts(self, name: str) -> list[Fact]:
        """For one of them."""
        return [
            Fact(f"{_SIZE}, {name}", self.vbytes / max(1, self.count), "vB"),
            Fact(f"{_COST}, {name}", self.fee_sat / max(1, self.count), "sat"),
        ]


def sent_by(outsider: Outsider, txid: str, wallet: str) -> Spent:
    """What one transaction of a wallet has cost."""
    include_watchonly, verbose = False, True
    told: dict[str, Any] = outsider.call("gettransaction", txid, include_watchonly, verbose, wallet=wallet)
    outputs = told["decoded"]["vout"]
    return Spent(
        count=1,
        vbytes=told["decoded"]["vsize"],
        fee_sat=-satoshi(told["fee"]),
        paid_sat={each["scriptPubKey"].get("address", ""): satoshi(each["value"]) for each in outputs},
    )
