"""A bank on a made-up bitcoind and real Postgres, beside the oracle. Each step is taken in both.

async with ModelBank.open(dsn, node) as bank:
    await bank.look()        what the pump does: facts are compared with the truth
    await bank.advance()     what the workflows do: money is compared with the oracle
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, cast

import asyncpg
from temporalio.testing import ActivityEnvironment

from activities.chain.look import Looker
from activities.chain.recording import Recorder
from activities.deposit.decision import DepositDecisions
from activities.deposit.deposit import Deposits
from engine.bank.account.account import NewAccount, list_wallets, open_bank_account_in_tx
from engine.bank.account.account_status import change_in_tx
from engine.bank.chain import cursor
from engine.bank.chain.deposit_decision import NewDepositDecision, propose_in_tx
from engine.bank.chain.due import list_due
from engine.bank.rulebook import Name, read_current, set_in_tx
from engine.clients.bitcoind.chain import Bitcoind
from engine.contracts.deposit import DecideDeposit, DepositApproval, DepositPage, DepositRef
from engine.domain.deposit import Block
from engine.domain.deposit_decision import DepositDecisionKind
from engine.domain.errors import Refused
from engine.domain.ids import AccountId, DepositDecisionId, DepositId, ReceivableId, WalletId, new_id
from engine.domain.money import Msat
from engine.ledger.account import get_account_id
from engine.ledger.book import Posting, credit, debit
from engine.ledger.chart import CAPITAL, Chart
from engine.ledger.checks import find_broken_rules
from engine.ledger.database import Pool, open_pool, transaction
from engine.ledger.store import post_new_in_tx
from tests.fixtures.postgres import Database
from tests.helpers.chain_model.node import FakeBitcoind, Tx
from tests.helpers.chain_model.oracle import FEE, MINIMUM, MOST, Deposit, Oracle, Person

WALLET = "hot"
_numbers = itertools.count(1)
_HOUSE = ("asset:hot", "liab:deposits-pending", "suspense:in", "income:deposit-fee", "exp:loss")
_FORGET = """
DELETE FROM bank.deposit_decisions; DELETE FROM bank.receivables; DELETE FROM bank.deposit_outpoints;
DELETE FROM bank.deposits; DELETE FROM bank.coin_origins; DELETE FROM bank.coin_spends; DELETE FROM bank.coins;
DELETE FROM bank.blocks; DELETE FROM bank.chains"""
_SETTLED = """
SELECT a.code, sum(e.amount)::bigint AS msat FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
 WHERE e.layer = 0 AND a.code = ANY($1) GROUP BY a.code"""
_PEOPLE = """
SELECT w.id, b.available, b.held_cr, c.status FROM bank.wallets w JOIN bank.accounts c ON c.id = w.account_id
  JOIN ledger.balances b ON b.account_id = w.ledger_account_id"""
_POSTED = """
SELECT metadata->>'deposit' AS deposit FROM ledger.transfers WHERE id > $1 AND metadata ? 'deposit'
 GROUP BY 1 ORDER BY min(id)"""
_OWED = "SELECT deposit_id, amount_msat FROM bank.receivables WHERE status = 'open' ORDER BY created_at, id"


class ModelBank:
    """One wallet, and as many people as a test wants."""

    def __init__(self, pool: Pool, node: FakeBitcoind) -> None:
        self.pool, self.node, self.oracle = pool, node, Oracle()
        bitcoind = cast("Bitcoind", node)
        self._looker, self._recorder = Looker(bitcoind, "regtest"), Recorder(bitcoind, pool)
        self._deposits, self._decisions = Deposits(pool, Chart()), DepositDecisions(pool, Chart())
        self._run = ActivityEnvironment().run
        self._epoch = 0
        self._before: dict[str, int] = {}
        self._addresses: dict[str, Person | None] = {}
        self._payments: dict[str, int] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database, node: FakeBitcoind) -> AsyncIterator["ModelBank"]:
        """With the chain as it is now adopted. Rows of an earlier bank are deleted; its postings stay."""
        admin = await asyncpg.connect(database.superuser_dsn)
        await admin.execute(_FORGET)
        await admin.close()
        pool = await open_pool(database.app_dsn, max_size=3)
        try:
            bank = cls(pool, node)
            blocks = [
                Block(height=height, hash=each or "")
                for height, each in enumerate(await node.hashes_at(range(node.tip.height + 1)))
            ]
            async with transaction(pool) as conn:
                assert await cursor.adopt_in_tx(conn, WALLET, network="regtest", blocks=blocks, work="0" * 64)
                editions: tuple[tuple[Name, dict[str, Any]], ...] = (
                    ("fees", {"deposit": [{"flat_msat": 1_000 * FEE}]}),
                    ("limits", {"levels": {"0": {"deposit": {"day_sat": MOST}}}}),
                )
                for name, content in editions:
                    version = (await read_current(conn, name)).version + 1
                    await set_in_tx(conn, name, content, version=version, note="test", set_by="test")
                bank._epoch = await cursor.take_epoch(conn, WALLET)
            bank._before = await bank._settled()
            yield bank
            async with pool.acquire() as conn:
                assert await find_broken_rules(conn) == []
        finally:
            await pool.close()

    async def person(self) -> Person:
        account = AccountId(f"acct_{next(_numbers)}")
        async with transaction(self.pool) as conn:
            await open_bank_account_in_tx(conn, NewAccount(id=account, level=0))
            (wallet,) = await list_wallets(conn, account)
        person = Person(account, wallet.id, wallet.ledger_account_id)
        self.oracle.people.append(person)
        return person

    async def address(self, person: Person | None) -> str:
        """For None it stays in the pool."""
        number = next(_numbers)
        address = f"bcrt1q{number:08d}"
        self._addresses[address] = person
        owner = (person.wallet, person.account, "api") if person else (None, None, None)
        await self.pool.execute(
            """INSERT INTO bank.addresses(address, hd_index, made_height, wallet_id, account_id, purpose, given_at)
               VALUES ($1, $2, 0, $3, $4, $5, CASE WHEN $3::text IS NOT NULL THEN now() END)""",
            address,
            number,
            *owner,
        )
        return address

    def know(self, payment: int, tx: Tx) -> None:
        """A version of a payment: what a person would call the same one."""
        self._payments[tx.txid] = payment

    # What the pump does

    async def look(
        self,
        *,
        rescan_from: int | None = None,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Compares the facts that are written down with the truth, and counts the rows.

        `meanwhile` is what happens in the middle of a look, and `then` after it. What this look cannot know the next
        one must see.
        """
        if rescan_from is not None:
            await self.pool.execute("UPDATE bank.chains SET rescan_from = $1", rescan_from)
        async with self.pool.acquire() as conn:
            chain = await cursor.find_chain(conn, WALLET)
            remembered = await cursor.list_blocks(conn, WALLET)
        assert chain is not None
        look = await self._looker.look(chain, remembered)
        if meanwhile is not None:
            await meanwhile()
            await self._recorder.record(chain, self._epoch, look, whole=True)
            then()
            await self.look()
            return
        await self._recorder.record(chain, self._epoch, look, whole=True)
        self.oracle.tip = self.node.tip.height
        self.oracle.seen = {txid: self.node.sight(txid) for txid in self.node.txs}
        await self._compare_facts()

    async def _compare_facts(self) -> None:
        rows = await self.pool.fetch("SELECT * FROM bank.deposits ORDER BY created_at, id")
        for row in rows:
            truth = self.oracle.seen[row["txid"]]
            height = None if truth.block is None else truth.block.height
            assert (row["sight"], row["block_height"]) == (truth.kind, height), row
        alive = {
            (txid, vout)
            for txid, sight in self.oracle.seen.items()
            for vout, (address, _amount) in enumerate(self.node.txs[txid].outputs)
            if address is not None and sight.kind != "gone"
        }
        there = {(row["txid"], row["vout"]) for row in rows}
        assert alive <= there, f"no row for {alive - there}"
        self._follow_rows(rows)

    def _follow_rows(self, rows: Sequence[Any]) -> None:
        """A row is new only where no row of the same payment could take its place."""
        known = self.oracle.deposits
        free = Counter(each.line for each in known.values() if each.booked is None and not self._is_at_home(each))
        for row in rows:
            txid, vout, found = row["txid"], row["vout"], known.get(row["id"])
            line = (self._payments[txid], row["address"])
            below = row["amount_sat"] < MINIMUM and row["wallet_id"] is not None
            if found is None:
                owner = self._addresses[row["address"]]
                known[row["id"]] = Deposit(row["id"], line, (txid, vout), row["amount_sat"], owner, below=below)
                assert free[line] == 0, f"a second row for one payment: {row}"
            elif found.outpoint != (txid, vout):
                assert found.line == line, "a row of another payment has moved here"
                assert found.booked is None
                free[line] -= 1
                found.outpoint, found.amount, found.below = (txid, vout), row["amount_sat"], below

    def _is_at_home(self, deposit: Deposit) -> bool:
        return self.oracle.is_alive(deposit)

    # What the workflows do

    async def advance(self, *, together: bool = False) -> None:
        """Book all that is due, one by one or in a page, and compare the money."""
        due = await self._due()
        if together and due:
            before = await self.pool.fetchval("SELECT coalesce(max(id), 0) FROM ledger.transfers")
            await self._run(self._deposits.advance_deposits, DepositPage(deposits=due, height=self.oracle.tip))
            posted = [row["deposit"] for row in await self.pool.fetch(_POSTED, before)]
            due = [*posted, *(each for each in due if each not in posted)]  # a page chooses its order
        for each in due:
            if not together:
                await self._run(self._deposits.advance_deposit, DepositRef(deposit=each))
            self.oracle.advance(self.oracle.deposits[each])
        for deposit in self.oracle.deposits.values():
            self.oracle.advance(deposit)
        assert await self._due() == [], "what was booked is still due"
        await self.compare_money()

    async def _due(self) -> list[DepositId]:
        async with self.pool.acquire() as conn:
            return [each.id for each in await list_due(conn, self.oracle.tip, 1_000)]

    async def compare_money(self) -> None:
        """At rest."""
        settled, totals = await self._settled(), self.oracle.totals()
        moved = {code: settled[code] - self._before[code] for code in _HOUSE}
        assert moved == {code: 1_000 * totals[code] for code in _HOUSE}
        people = {row["id"]: row for row in await self.pool.fetch(_PEOPLE)}
        for person in self.oracle.people:
            row = people[person.wallet]
            status = "locked" if person.is_locked and person.is_open else "active" if person.is_open else "closed"
            told = (row["available"], row["held_cr"], row["status"])
            assert told == (1_000 * person.available, 1_000 * self.oracle.incoming(person), status), person
        owed: dict[str, list[int]] = defaultdict(list)
        for row in await self.pool.fetch(_OWED):
            owed[row["deposit_id"]].append(row["amount_msat"] // 1_000)
        assert owed == {each.id: each.owed for each in self.oracle.deposits.values() if each.owed}

    async def _settled(self) -> dict[str, int]:
        found = {row["code"]: row["msat"] for row in await self.pool.fetch(_SETTLED, _HOUSE)}
        return {code: found.get(code, 0) for code in _HOUSE}

    # What people do

    async def spend(self, person: Person, part: int) -> None:
        """So many hundredths of what is there leave the bank, unless the account is locked."""
        amount = person.available * part // 100
        if not amount:
            return
        with _refused("account_locked") as refused:
            async with transaction(self.pool) as conn:
                capital = await get_account_id(conn, CAPITAL)
                legs = [debit(person.ledger_account, 1_000 * amount), credit(capital, 1_000 * amount)]
                ref = f"spent:{next(_numbers)}"
                await post_new_in_tx(conn, Posting(ref=ref, template="test", phase="post", actor="test", legs=legs))
        assert bool(refused) == person.is_locked
        person.available -= 0 if refused else amount

    async def unlock(self, person: Person) -> None:
        if person.is_open:
            async with transaction(self.pool) as conn:
                await change_in_tx(conn, AccountId(person.account), status="active", level=None)
            person.is_locked = False

    async def close(self, person: Person) -> None:
        """If the books allow it: nothing is there, and nothing promised."""
        with _refused("account_not_empty") as refused:
            async with transaction(self.pool) as conn:
                await change_in_tx(conn, AccountId(person.account), status="closed", level=None)
        person.is_open = person.is_open and bool(refused)

    async def release(self, deposit: Deposit, to: Person) -> None:
        """Two operators try it. It is done only if the deposit is parked, and still in a block at the last look."""
        booked = deposit.booked
        place = booked.place if booked is not None and not booked.is_released else None
        kind = DepositDecisionKind.ATTRIBUTE if place == "suspense" else DepositDecisionKind.RELEASE
        payee = to if place == "suspense" else deposit.owner
        wallet = WalletId(to.wallet) if place == "suspense" else None
        is_right = place in ("pending", "suspense") and self.oracle.is_mined(deposit)
        is_right = is_right and payee is not None and payee.is_open
        assert await self._decide(deposit, kind, wallet=wallet) == is_right
        if is_right and payee is not None:
            self.oracle.release(deposit, payee)

    async def forgive(self, deposit: Deposit) -> None:
        """Two operators give the oldest debt up, unless the deposit is back and not booked yet."""
        found = await self.pool.fetchval(
            "SELECT id FROM bank.receivables WHERE deposit_id = $1 AND status = 'open' ORDER BY created_at, id LIMIT 1",
            deposit.id,
        )
        if found is None:
            return
        is_right = deposit.booked is not None or not self.oracle.is_alive(deposit)
        assert await self._decide(deposit, DepositDecisionKind.FORGIVE, owed=ReceivableId(found)) == is_right
        if is_right:
            self.oracle.lost += deposit.owed.pop(0)

    async def _decide(
        self,
        deposit: Deposit,
        kind: DepositDecisionKind,
        *,
        wallet: WalletId | None = None,
        owed: ReceivableId | None = None,
    ) -> bool:
        decision = DepositDecisionId(new_id("dec"))
        proposal = NewDepositDecision(
            id=decision,
            deposit_id=DepositId(deposit.id),
            kind=kind,
            wallet_id=wallet,
            receivable_id=owed,
            amount_msat=Msat(1),
            reason="test",
            proposed_by=AccountId("one"),
        )
        async with transaction(self.pool) as conn:
            await propose_in_tx(conn, proposal)
        approval = DepositApproval(decision=decision, operator=AccountId("two"), key_id="key")
        asked = DecideDeposit(deposit=DepositId(deposit.id), approval=approval)
        with _refused("deposit_not_waiting", "payee_closed") as refused:
            await self._run(self._decisions.decide_deposit, asked)
        if refused:
            await self.pool.execute(
                """UPDATE bank.deposit_decisions SET status = 'rejected', decided_by = 'one', decided_at = now(),
                       note = '' WHERE id = $1""",
                decision,
            )
        return not refused


@contextmanager
def _refused(*codes: str) -> Iterator[list[Refused]]:
    """The refusal that the block has met, if any: it must have one of these codes."""
    met: list[Refused] = []
    try:
        yield met
    except Refused as refused:
        if refused.code not in codes:
            raise
        met.append(refused)
