"""What the bank reads when somebody wants to pay, or is paid on chain: whose money, which limits and caps are in force,
how much is used.

The ledger counts under the lock of the balance row and refuses there (`ledger.count_up`); nothing here decides. One
statement reads the payer and the version of the rulebook in force. The content of a version never changes, so each
process reads it once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from engine.bank.account.account import may_not_send
from engine.bank.price import read_prices
from engine.bank.rulebook import find_edition
from engine.domain.errors import InvariantBroken, Refused, no_such
from engine.domain.ids import AccountId, ApiKeyId, WalletId
from engine.domain.limit import (
    WINDOWS,
    Count,
    Kind,
    LimitBook,
    Window,
    key_count,
    level_counts,
    parse_limits,
    window_name,
)
from engine.domain.money import Msat, Sat
from engine.ledger.database import Connection, Pool, translated

Reader: TypeAlias = "Connection | Pool"

PRUNED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """Whose money it would be, what limits it, and the versions of the rules in force at the time of reading."""

    ledger_account_id: int
    status: str
    level: int
    limits_version: int
    fees_version: int
    key_id: ApiKeyId | None
    caps: Mapping[Window, Sat]
    """The caps of the API key that asks; empty when it has none."""

    def require_active(self) -> None:
        """Raises Refused (`account_locked`) for a locked or closed account."""
        if self.status != "active":
            raise may_not_send(self.status)


class LimitBooks:
    """Versions of the limits, parsed. One per process; remembers the version that was last used."""

    def __init__(self) -> None:
        self._known = (0, LimitBook({}))

    async def get(self, conn: Reader, version: int) -> LimitBook:
        """The limits of this version. Raises InvariantBroken for a version that is missing or was never valid."""
        known, book = self._known
        if known == version:
            return book
        edition = await find_edition(conn, "limits", version)
        if edition is None:
            raise InvariantBroken(f"there is no version {version} of the limits")
        book = parse_limits(edition.content)
        self._known = (version, book)
        return book


async def find_payer(
    conn: Reader, account_id: AccountId, wallet_id: WalletId | None, key_id: ApiKeyId | None
) -> Payer | None:
    """As `find_payers`, for one account."""
    (payer,) = await find_payers(conn, [(account_id, wallet_id, key_id)])
    return payer


async def get_payer(conn: Reader, account_id: AccountId, wallet_id: WalletId, key_id: ApiKeyId) -> Payer:
    """As `find_payer`. Raises NotFound for another account's wallet."""
    payer = await find_payer(conn, account_id, wallet_id, key_id)
    if payer is None:
        raise no_such("wallet")
    return payer


async def find_payers(
    conn: Reader, asked: Sequence[tuple[AccountId, WalletId | None, ApiKeyId | None]]
) -> list[Payer | None]:
    """The payers for these accounts, wallets and keys, as they are now, in this order.

    A wallet of None means the account's only wallet. None for somebody else's wallet.
    """
    with translated():
        rows = await conn.fetch(
            """SELECT w.ledger_account_id, a.status, a.level, k.id AS key_id, k.spend_limit_sat AS caps,
                      (SELECT max(version) FROM bank.rulebooks WHERE name = 'limits') AS limits_version,
                      (SELECT max(version) FROM bank.rulebooks WHERE name = 'fees') AS fees_version
                 FROM unnest((SELECT $1::text[]), (SELECT $2::text[]), (SELECT $3::text[]))
                      WITH ORDINALITY o(account_id, wallet_id, key_id, place)
                 LEFT JOIN bank.wallets w ON w.account_id = o.account_id AND w.id = coalesce(o.wallet_id, w.id)
                 LEFT JOIN bank.accounts a ON a.id = w.account_id
                 LEFT JOIN bank.api_keys k ON k.id = o.key_id AND k.account_id = a.id ORDER BY o.place""",
            [account_id for account_id, _wallet_id, _key_id in asked],
            [wallet_id for _account_id, wallet_id, _key_id in asked],
            [key_id for _account_id, _wallet_id, key_id in asked],
        )
    return [None if row["status"] is None else Payer(**{**row, "caps": row["caps"] or {}}) for row in rows]


async def read_prices_micro(conn: Connection, books: LimitBooks, payers: Iterable[Payer], kind: Kind) -> dict[str, int]:
    """The last price of each currency in which payments of this kind are limited for any payer, if there is one.

    The age does not matter here. It was checked when the payment was accepted, and an accepted payment is not refused
    because a price feed has stopped since.
    """
    currencies: set[str] = set()
    for version, level in {(payer.limits_version, payer.level) for payer in payers}:
        currencies |= (await books.get(conn, version)).currencies(level, kind)
    prices = await read_prices(conn, currencies) if currencies else {}
    return {currency: price.price_micro for currency, price in prices.items()}


async def counts_of(
    conn: Connection,
    books: LimitBooks,
    payer: Payer,
    kind: Kind,
    total_msat: Msat,
    prices_micro: Mapping[str, int],
) -> list[Count]:
    """What a payment or a deposit counts at these prices, and the maxima in force for it.

    `total_msat` is all that a payment may take: amount, routing cap and our fee, as held or moved with it. Of a deposit
    it is the amount, and the payer is its owner, without a key. Raises Refused (`price_unavailable`) when there never
    was a price in a currency of its limits.
    """
    book = await books.get(conn, payer.limits_version)
    if missing := sorted(book.currencies(payer.level, kind) - set(prices_micro)):
        raise Refused(f"There is no price in {missing[0]}.", code="price_unavailable", currency=missing[0])
    counts = level_counts(book, payer.level, kind, total_msat, prices_micro)
    if payer.caps and payer.key_id is not None:
        counts.append(key_count(payer.key_id, payer.caps, total_msat))
    return counts


async def find_excess(
    conn: Connection, books: LimitBooks, payer: Payer, kind: Kind, total_msat: Msat
) -> dict[str, Any] | None:
    """The first limit that such a payment would exceed now, with the fields of the ledger's refusal; None when it fits.

    For quotes: nothing is counted, and the payment itself may fare differently. Raises as `counts_of`.
    """
    prices_micro = await read_prices_micro(conn, books, [payer], kind)
    counts = await counts_of(conn, books, payer, kind, total_msat, prices_micro)
    used = await read_used(conn, payer.ledger_account_id, [count.kind for count in counts])
    for count in counts:
        for window_s, most in count.maxima.items():
            so_far = used[count.kind, window_name(window_s)]
            if so_far + count.amount > most:
                facts = {"kind": count.kind, "window_s": window_s, "limit": most}
                return {**facts, "used": so_far, "asked": count.amount}
    return None


async def read_used(conn: Reader, ledger_account_id: int, counters: Sequence[str]) -> dict[tuple[str, Window], int]:
    """How much each kind has counted within each window, as the next payment would find it."""
    with translated():
        rows = await conn.fetch(
            """SELECT k.kind, w.name, coalesce(u.used, 0) AS used
                 FROM unnest($2::text[]) k(kind) CROSS JOIN unnest($3::text[], $4::int[]) w(name, seconds)
                CROSS JOIN LATERAL (
                      SELECT sum(c.amount) AS used FROM ledger.counters c
                       WHERE c.account_id = $1 AND c.kind = k.kind AND c.window_s = w.seconds
                         AND c.bucket > ledger.window_begin(w.seconds, statement_timestamp())) u""",
            ledger_account_id,
            list(counters),
            list(WINDOWS),
            list(WINDOWS.values()),
        )
    return {(row["kind"], cast("Window", row["name"])): int(row["used"]) for row in rows}


async def prune_counters_in_tx(conn: Connection) -> bool:
    """Remove buckets that are older than twice their window, which count nowhere. Returns whether there may be more.

    Removes at most `PRUNED_AT_ONCE` of each window. Payments do not wait for it: a bucket in use stays until the next
    call. A release whose bucket has gone gives nothing back, because it no longer counts.
    """
    with translated():
        gone: int = await conn.fetchval("SELECT ledger.prune_counters($1)", PRUNED_AT_ONCE)
    return gone >= PRUNED_AT_ONCE
