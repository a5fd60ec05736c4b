"""The coins that were in the hot wallet when it was adopted: the house's own, without origins."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.domain.deposit import Outpoint
from engine.domain.money import Sat
from engine.ledger.database import Connection, change_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningCoin:
    """A confirmed output of the wallet."""

    outpoint: Outpoint
    amount_sat: Sat
    address: str | None
    block_height: int


async def add_coins_in_tx(conn: Connection, coins: Sequence[OpeningCoin]) -> None:
    """Write them. To be called in the transaction that adopts the wallet, which happens once."""
    await change_rows(
        conn,
        len(coins),
        """INSERT INTO bank.coins(txid, vout, amount_sat, address, block_height, opening)
           SELECT o.*, true FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::int[]) o""",
        [coin.outpoint.txid for coin in coins],
        [coin.outpoint.vout for coin in coins],
        [coin.amount_sat for coin in coins],
        [coin.address for coin in coins],
        [coin.block_height for coin in coins],
    )
