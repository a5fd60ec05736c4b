"""The market of this moment, read from PostgreSQL: rates as the pump last reported them, the queue, the free coins."""

from datetime import UTC, datetime

from api.service.withdrawal.market import Market
from engine.bank.withdrawal.coin import list_free
from engine.bank.withdrawal.rules import read_withdrawal_rules
from engine.domain.errors import Unavailable
from engine.domain.withdrawal.withdrawal import Speed
from engine.ledger.database import Connection
from engine.views.withdrawal.withdrawal import count_queue, find_hot_wallet

_LOOK = 200
"""How many of the largest coins are looked at."""


async def read_market(conn: Connection) -> Market:
    """The market now. Raises Unavailable before a hot wallet is adopted."""
    hot = await find_hot_wallet(conn)
    if hot is None:
        raise Unavailable("no hot wallet is adopted yet", code="temporarily_unavailable")
    rules = await read_withdrawal_rules(conn)
    coins = await list_free(conn, hot.wallet, min_depth=rules.coins.min_depth, limit=_LOOK)
    fees = hot.report.get("fees")
    return Market(
        wallet=hot.wallet,
        rules=rules,
        fees=fees if isinstance(fees, dict) else {},
        queue={Speed(each.speed): each for each in await count_queue(conn)},
        coins=[coin.amount_sat for coin in coins],
        at=datetime.now(UTC),
    )
