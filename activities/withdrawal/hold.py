"""Holds the money of a withdrawal that goes out on chain, and puts it into the queue of its speed.

The whole hold counts towards the limits: what does not leave in the end is given back. Unlinked coins are looked for,
and not reserved: other withdrawals may take them before its turn comes, and then it waits.
"""

from activities.withdrawal.bill import Bills
from engine.bank.limit import Payer
from engine.bank.withdrawal.coin import sum_free
from engine.bank.withdrawal.new import new_row
from engine.bank.withdrawal.withdrawal import add_in_tx
from engine.contracts.withdrawal import WithdrawalRequest
from engine.domain.errors import Refused
from engine.domain.money import Sat
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.target import Target
from engine.domain.withdrawal.terms import OnChain, least_coins_sat, on_chain, require_size
from engine.ledger.chart import Chart
from engine.ledger.database import Connection
from engine.ledger.postings.withdrawal import held
from engine.ledger.store import post_new_in_tx


class Hold:
    """One per process."""

    def __init__(self, ids: Chart, bills: Bills) -> None:
        self._ids = ids
        self._bills = bills

    async def hold_in_tx(
        self, conn: Connection, asked: WithdrawalRequest, target: Target, payer: Payer, rules: WithdrawalRules
    ) -> None:
        """Write the row and the hold. Raises Refused and Invalid."""
        wish, charge = await self._bills.read_wish(conn, asked, payer, "withdrawal")
        require_size(wish.amount_sat, minimum_sat=rules.minimum_sat, dust_sat=target.dust_sat)
        output = OnChain(
            dust_sat=target.dust_sat,
            least_share_sat=target.least_share_sat(rules.rate.floor),
            fee_cap_sat=asked.fee_cap_sat,
        )
        terms = on_chain(wish, output)
        if asked.unlinked and not asked.wait_for_unlinked:
            await _require_unlinked(conn, asked, rules, least_coins_sat(wish, output))
        new = new_row(asked, target, wish, charge, terms, rules=rules)
        counts = await self._bills.count(conn, payer, "withdrawal", new.held_msat)
        await add_in_tx(conn, new)
        ids = await self._ids.load(conn)
        await post_new_in_tx(conn, held(ids, new, payer=payer.ledger_account_id, counts=counts))


async def _require_unlinked(
    conn: Connection, asked: WithdrawalRequest, rules: WithdrawalRules, needed_sat: Sat
) -> None:
    free_sat = await sum_free(
        conn,
        asked.hot_wallet,
        min_depth=rules.coins.min_depth,
        most=rules.coins.max_inputs,
        unlinked_to=[asked.account_id],
    )
    if free_sat < needed_sat:
        raise Refused(
            "There are not enough coins now that have nothing to do with your deposits. Try later, a smaller amount, "
            "or wait for them in the queue.",
            code="mix_pool_insufficient",
        )
