"""Who pays for a withdrawal, our fee for it, and what it counts towards his limits."""

from engine.bank.fee_schedule import FeeBook
from engine.bank.limit import LimitBooks, Payer, counts_of, find_payers, read_prices_micro
from engine.bank.withdrawal.balance import lock_available_in_tx
from engine.contracts.withdrawal import WithdrawalRequest
from engine.domain.errors import InvariantBroken, Refused
from engine.domain.fee import Charge, Kind
from engine.domain.limit import Count
from engine.domain.limit import Kind as LimitKind
from engine.domain.money import Msat, msat_to_sat_floor, sat_to_msat
from engine.domain.withdrawal.terms import Wish
from engine.ledger.database import Connection


class Bills:
    """One per process: it remembers the rulebooks that it has read."""

    def __init__(self) -> None:
        self._fees = FeeBook()
        self._limits = LimitBooks()

    async def get_payer(self, conn: Connection, asked: WithdrawalRequest) -> Payer:
        """With the rules in force in this transaction. Raises Refused (`account_locked`)."""
        (payer,) = await find_payers(conn, [(asked.account_id, asked.wallet_id, asked.api_key_id)])
        if payer is None:
            raise InvariantBroken(f"{asked.account_id} has no wallet {asked.wallet_id}")
        payer.require_active()
        return payer

    async def read_wish(
        self, conn: Connection, asked: WithdrawalRequest, payer: Payer, kind: Kind, *, payee: int | None = None
    ) -> tuple[Wish, Charge]:
        """What is asked for, with our fee.

        Who withdraws all has the balance locked, in one order with the `payee`'s account in the books. Raises Refused
        (`insufficient_funds`) when there is not one satoshi.
        """
        amount_sat, balance_msat = asked.amount_sat, None
        if amount_sat is None:
            accounts = [payer.ledger_account_id, *([] if payee is None else [payee])]
            balance_msat = (await lock_available_in_tx(conn, accounts))[payer.ledger_account_id]
            amount_sat = msat_to_sat_floor(balance_msat)
            if amount_sat < 1:
                raise Refused("There is nothing to withdraw.", code="insufficient_funds", available_msat=balance_msat)
        charge = await self._fees.charge(
            conn, kind, sat_to_msat(amount_sat), level=payer.level, version=payer.fees_version
        )
        wish = Wish(
            amount_sat=amount_sat,
            balance_msat=balance_msat,
            fee_from=asked.fee_from,
            max_fee_sat=asked.max_fee_sat,
            fee_msat=charge.fee_msat,
        )
        return wish, charge

    async def count(self, conn: Connection, payer: Payer, kind: LimitKind, total_msat: Msat) -> list[Count]:
        """What it counts: all that may leave the wallet. The rest is given back when it is paid."""
        prices_micro = await read_prices_micro(conn, self._limits, [payer], kind)
        return await counts_of(conn, self._limits, payer, kind, total_msat, prices_micro)
