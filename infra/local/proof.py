"""The two questions that every test of money and the demo end with: do the books balance, and do the nodes agree?

    books − nodes = 0      for each asset account of each of the bank's nodes, to the millisatoshi
    books − bitcoind = 0   for the hot wallet at one height, without deposits that are not booked yet

Read at rest: while an HTLC is in flight a commitment fee may stand in the other of two accounts of the same node.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from engine.clients.lnd.balance import NodeBalances
from engine.clients.lnd.client import LndNode
from engine.domain.ids import NodeName
from engine.ledger import chart
from engine.ledger.checks import find_broken_rules
from engine.settings import NodeSettings
from infra.local.home import BANK
from infra.local.hot_proof import compare_hot_wallets
from infra.local.stack import Stack


@dataclass(frozen=True, slots=True)
class AccountProof:
    """One asset account, in the books and at the node."""

    account: str
    books_msat: int
    node_msat: int

    @property
    def difference_msat(self) -> int:
        """Books − node."""
        return self.books_msat - self.node_msat


@dataclass(frozen=True, slots=True)
class Proof:
    """What was found. It holds when no rule is broken and every difference is 0."""

    broken_rules: list[str]
    accounts: list[AccountProof]

    @property
    def holds(self) -> bool:
        """Whether there is nothing to explain."""
        return not self.broken_rules and all(account.difference_msat == 0 for account in self.accounts)

    def complaint(self) -> str:
        """All that is wrong, in words."""
        differences = [
            f"{a.account}: books − node = {a.difference_msat} msat" for a in self.accounts if a.difference_msat
        ]
        return "; ".join([*self.broken_rules, *differences])


async def prove(stack: Stack) -> Proof:
    """Ask the ledger and each of the bank's nodes."""
    told = await asyncio.to_thread(stack.environment)
    conn = await asyncpg.connect(told["MILLRACE_POSTGRES_OWNER_DSN"])
    try:
        accounts: list[AccountProof] = []
        for name in BANK:
            held = await _ask(NodeName(name), told)
            for code, node_msat in (
                (chart.channels(NodeName(name)), held.channels_msat),
                (chart.commit_escrow(NodeName(name)), held.commit_escrow_msat),
                (chart.onchain(NodeName(name)), held.onchain_msat),
            ):
                accounts.append(AccountProof(code, await _settled_msat(conn, code), node_msat))
        hot = await compare_hot_wallets(conn, told["MILLRACE_BITCOIND_URL"])
        accounts += [
            AccountProof(each.account, each.books_msat, each.books_msat - each.difference_msat) for each in hot
        ]
        return Proof(broken_rules=await find_broken_rules(conn), accounts=accounts)
    finally:
        await conn.close()


async def _ask(name: NodeName, told: dict[str, str]) -> NodeBalances:
    prefix = f"MILLRACE_{name.upper().replace('-', '_')}"
    settings = NodeSettings(
        address=told[f"{prefix}_ADDRESS"],
        tls_cert=Path(told[f"{prefix}_TLS_CERT"]),
        macaroon=Path(told[f"{prefix}_MACAROON"]),
    )
    node = LndNode(name, settings)
    try:
        return await node.read_balances()
    finally:
        await node.close()


async def _settled_msat(conn: asyncpg.Connection, code: str) -> int:
    return int(
        await conn.fetchval(
            """SELECT coalesce(sum(e.amount), 0) FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id
                WHERE a.code = $1 AND e.layer = 0""",
            code,
        )
    )
