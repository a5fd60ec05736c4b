"""Years of history in seconds: written by SQL with the guards taken away, as the postings would have left it.

Every ten seconds a user receives 10,000 msat and pays 1,000 msat for a fee of 5. User 0 has a tenth of all, so its own
history grows with the bank's; the others come in blocks, so the number of accounts grows too.
"""

import hashlib
from datetime import UTC, datetime, timedelta

import asyncpg

NODE = "lnd-1"
SECRET = "A" * 43
KEY = f"mr_{'0' * 25}_{SECRET}"
PUBKEY = "02" + "ab" * 32
STEP_S = 10

_USERS = """
WITH opened AS (INSERT INTO ledger.accounts (code, kind, currency, floor, mode)
    SELECT 'liab:user:wal_g' || u, 'liability', 'BTC', 0, 'locked' FROM generate_series(0, $1::bigint - 1) u
    RETURNING id, code),
 balances AS (INSERT INTO ledger.balances (account_id, normal, floor) SELECT id, -1, 0 FROM opened),
 accounts AS (INSERT INTO bank.accounts (id, username)
    SELECT 'acct_g' || u, 'user_' || u FROM generate_series(0, $1 - 1) u),
 keys AS (INSERT INTO bank.api_keys (id, account_id, name, scopes, secret_hash)
    SELECT 'key_' || lpad(u::text, 25, '0'), 'acct_g' || u, 'test', '{read,receive,send}', $2
      FROM generate_series(0, $1 - 1) u)
INSERT INTO bank.wallets (id, account_id, currency, ledger_account_id)
    SELECT substr(code, 11), 'acct_g' || substr(code, 16), 'BTC', id FROM opened"""

_PLAN = """
CREATE TEMP TABLE events (
    i bigint, u bigint, account bigint, at timestamptz, ord bigint, paid text, received text)"""

_EVENTS = """
INSERT INTO events
    SELECT i, u, w.ledger_account_id AS account, $3::timestamptz + make_interval(secs => i * $4::float) AS at,
           row_number() OVER (PARTITION BY u ORDER BY i) - 1 AS ord,
           md5('p' || i) || md5('q' || i) AS paid, md5('r' || i) || md5('s' || i) AS received
      FROM (SELECT i, CASE WHEN i % 10 = 0 THEN 0 ELSE 1 + i % ($2::bigint - 1) END AS u
              FROM generate_series(1, $1::bigint) i) e JOIN bank.wallets w ON w.id = 'wal_g' || u"""

_TRANSFERS = """
INSERT INTO ledger.transfers (id, external_ref, payload_hash, template, phase, actor, metadata, effective_on,
                              received_at)
    OVERRIDING SYSTEM VALUE
    SELECT 3 * i + k, ref, sha256(ref::bytea), 'history', phase, 'history', '{}', (at AT TIME ZONE 'UTC')::date, at
      FROM events CROSS JOIN LATERAL (VALUES (0, 'ln:' || received || ':recv', 'post'),
           (1, 'ln:' || paid || ':hold:1', 'hold'), (2, 'ln:' || paid || ':settle', 'settle')) t(k, ref, phase)"""

_ENTRIES = """
INSERT INTO ledger.entries (seq, transfer_id, account_id, currency, layer, amount, balance_after, version, posted_at)
    OVERRIDING SYSTEM VALUE
    SELECT 10 * i + k, 3 * i + t, coalesce((SELECT id FROM ledger.accounts WHERE code = house), account), 'BTC',
           layer, amount, after, ver, at + make_interval(secs => t)
      FROM events CROSS JOIN LATERAL (VALUES
        (0, 0, 'asset:lnd:lnd-1:channels', 0, 10000, NULL, NULL),
        (1, 0, NULL, 0, -10000, -8995 * ord - 10000, 3 * ord + 1),
        (2, 1, NULL, 1, 1010, 1010, 3 * ord + 2), (3, 1, 'liab:outbox', 1, -1010, NULL, NULL),
        (4, 2, NULL, 1, -1010, 0, 3 * ord + 3), (5, 2, 'liab:outbox', 1, 1010, NULL, NULL),
        (6, 2, NULL, 0, 1005, -8995 * (ord + 1), 3 * ord + 3),
        (7, 2, 'asset:lnd:lnd-1:channels', 0, -1005, NULL, NULL),
        (8, 2, 'exp:ln-routing', 0, 5, NULL, NULL), (9, 2, 'income:ln-fee', 0, -5, NULL, NULL)
      ) l(k, t, house, layer, amount, after, ver)"""

_ROWS = (
    "INSERT INTO ledger.resolutions SELECT 3 * i + 1, 3 * i + 2 FROM events",
    """UPDATE ledger.balances b SET settled = -8995 * n, version = 3 * n
         FROM (SELECT account, max(ord) + 1 AS n FROM events GROUP BY 1) e WHERE b.account_id = e.account""",
    """INSERT INTO bank.payments (id, account_id, wallet_id, kind, status, destination, amount_msat, fee_msat,
           max_fee_msat, payment_hash, bolt11, node, attempt, payment_index, workflow_id, created_at, settled_at)
       SELECT 'pay_g' || lpad(i::text, 21, '0'), 'acct_g' || u, 'wal_g' || u, 'lightning', 'settled', 'lnbcrt1', 1000,
              5, 10, paid, 'lnbcrt1', 'lnd-1', 1, i, 'payment-g' || i, at, at + interval '2 s' FROM events""",
    """INSERT INTO bank.invoices (id, account_id, wallet_id, node, bolt11, payment_hash, received_msat, outside_msat,
           outside_at, status, expires_at, created_at, settled_at)
       SELECT 'inv_g' || lpad(i::text, 21, '0'), 'acct_g' || u, 'wal_g' || u, 'lnd-1', 'lnbcrt1', received, 10000,
              10000, at, 'settled', at + interval '1 h', at - interval '1 s', at FROM events""",
    """INSERT INTO bank.idempotency_keys (account_id, key, body_hash, resource_id)
       SELECT 'acct_g' || u, 'g' || i, sha256('body'), 'pay_g' || lpad(i::text, 21, '0') FROM events""",
    """INSERT INTO bank.deposits (id, txid, vout, address, wallet_id, account_id, amount_sat, status, sight,
           block_height, block_hash, required, deep, conf_ref, confs, place, workflow_id, created_at, credited_at,
           final_at)
       SELECT 'dep_g' || lpad(i::text, 21, '0'), received, 0, 'bcrt1qg' || u, 'wal_g' || u, 'acct_g' || u, 10000,
              'credited', 'mined', i, paid, 1, 6, 'chain:' || received || ':0:conf:1', 1, 'wallet', 'deposit-g' || i,
              at, at, at FROM events""",
    """INSERT INTO bank.payouts (id, wallet, kind, speed, status, workflow_id, booked_ref, confirmed_version,
           block_height, created_at, broadcast_at, confirmed_at, final_at)
       SELECT 'po_g' || i, 'hot', 'batch', 'standard', 'final', 'payout-g' || i, 'batch:po_g' || i || ':broadcast',
              1, i, at, at, at, at FROM events""",
    """INSERT INTO bank.payout_versions (payout_id, number, kind, rate_sat_kvb, fee_sat, weight, psbt, raw, txid,
           created_at, signed_at, broadcast_at)
       SELECT 'po_g' || i, 1, 'first', 1000, 110, 440, 'x', '00', paid, at, at, at FROM events""",
    """INSERT INTO bank.withdrawals (id, account_id, wallet_id, address, script, amount_sat, fee_from, speed,
           max_fee_sat, held_msat, service_fee_msat, fee_version, fee_level, status, payout_id, place, vout, paid_sat,
           miner_fee_sat, workflow_id, external_id, created_at, sealed_at, broadcast_at, ended_at)
       SELECT 'wd_g' || lpad(i::text, 21, '0'), 'acct_g' || u, 'wal_g' || u, 'bcrt1qg' || u || 'longer', '\\x51020000',
              1000, 'balance', 'standard', 200, 1200000, 0, 1, 0, 'confirmed', 'po_g' || i, 0, 0, 1000, 110,
              'withdrawal-g' || i, 'order ' || i, at, at, at, at FROM events""",
    "SELECT setval(pg_get_serial_sequence('ledger.entries', 'seq'), 10 * max(i) + 9) FROM events",
    "SELECT setval(pg_get_serial_sequence('ledger.transfers', 'id'), 3 * max(i) + 2) FROM events",
    "DROP TABLE events",
)


async def write_history(superuser_dsn: str, *, events: int, users: int) -> datetime:
    """Write so many receipts with a payment each, close the books behind them, let PostgreSQL look at its tables.

    The last one is 20 minutes old. Gives the time of the first.
    """
    begin = datetime.now(UTC) - timedelta(seconds=STEP_S * events + 1200)
    conn = await asyncpg.connect(superuser_dsn)
    try:
        await conn.execute("SET session_replication_role = replica")
        await _prepare(conn)
        await conn.execute(_USERS, users, hashlib.sha256(SECRET.encode()).digest())
        await conn.execute(_PLAN)
        await conn.execute(_EVENTS, events, users, begin, float(STEP_S))
        for statement in (_TRANSFERS, _ENTRIES, *_ROWS):
            await conn.execute(statement)
        await conn.execute("RESET session_replication_role")
        await _close(conn)
        await conn.execute("VACUUM ANALYZE")
    finally:
        await conn.close()
    return begin


async def _prepare(conn: asyncpg.Connection) -> None:
    await conn.execute("SET ledger.posting = on")
    await conn.fetch("SELECT ledger.open_account('asset:lnd:lnd-1:channels', 'asset', 'BTC', NULL, 'append')")
    await conn.execute(
        "INSERT INTO bank.nodes (name, pubkey, settle_index, outbound_msat) VALUES ($1, $2, 1, 1000000000)",
        NODE,
        PUBKEY,
    )


async def _close(conn: asyncpg.Connection) -> None:
    """Hour by hour, as reconciliation does, and up to 20 minutes before the last entry."""
    times = await conn.fetch(
        """SELECT generate_series(greatest(min(posted_at), (SELECT max(at) FROM ledger.closing_times)),
                                  max(posted_at) - interval '20 minutes', interval '1 hour') AS at
             FROM ledger.entries
           UNION SELECT max(posted_at) - interval '20 minutes' FROM ledger.entries ORDER BY 1"""
    )
    for row in times:
        await conn.fetch("SELECT ledger.close($1)", row["at"])
