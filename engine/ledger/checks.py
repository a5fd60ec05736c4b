"""Do the books balance? Checks every rule that must always hold, over all rows, however they came there.

The database refuses to break these rules. Here they are computed again from the entries alone, which finds a gap in
those guards, a wrongly restored backup or a change by hand. The checks only read. They see one snapshot, so they may
run while payments go on. They read every entry, so each rule has a timeout of its own, of minutes instead of seconds.

    1 entries sum to zero per transfer, currency and layer     5 no hold resolved twice, early or past its expiry
    2 balance rows equal their entries; versions gapless        6 assets + expenses = liabilities + equity + income
    3 no floor broken at any version                            7 one transfer per fact, one fact per transfer
    4 held amounts equal open holds                             + limits count what counts and was not given
                                                                  back, as long as a bucket is kept
                                                                + closings equal the entries up to them
"""

from engine.ledger.database import Connection, translated

_LIMIT_S = 300
"""The timeout of one rule, whatever the connection allows other statements."""
_RULES = {
    "1 balanced": """
        SELECT format('transfer %s: layer %s sums to %s %s', transfer_id, layer, sum(amount), currency)
          FROM ledger.entries GROUP BY transfer_id, currency, layer HAVING sum(amount) <> 0""",
    "2 balances": """
        SELECT format('account %s: settled %s, entries %s; held %s, entries %s; version %s, entries %s', a.code,
                      b.settled, e.settled, b.held_dr - b.held_cr, e.held, b.version, e.versions)
          FROM ledger.balances b JOIN ledger.accounts a ON a.id = b.account_id
          CROSS JOIN LATERAL (
               SELECT coalesce(sum(amount) FILTER (WHERE layer = 0), 0) AS settled,
                      coalesce(sum(amount) FILTER (WHERE layer = 1), 0) AS held,
                      count(DISTINCT version) AS versions, coalesce(max(version), 0) AS last
                 FROM ledger.entries WHERE account_id = a.id) e
         WHERE (b.settled, b.held_dr - b.held_cr, b.version, b.version, b.floor, b.normal)
               IS DISTINCT FROM (e.settled, e.held, e.versions, e.last, a.floor, a.normal)""",
    "2 a row per locked account": """
        SELECT format('account %s: mode %s and balance row do not go together', a.code, a.mode)
          FROM ledger.accounts a LEFT JOIN ledger.balances b ON b.account_id = a.id
         WHERE (a.mode = 'locked') <> (b.account_id IS NOT NULL)""",
    "2 history": """
        SELECT format('account %s: layer %s version %s says %s, entries say %s', a.code, layer, version, balance_after,
                      total)
          FROM (SELECT *, sum(amount) OVER (PARTITION BY account_id, layer ORDER BY version) AS total
                  FROM ledger.entries) e
          JOIN ledger.accounts a ON a.id = e.account_id
         WHERE CASE a.mode WHEN 'locked' THEN e.version IS NULL OR e.balance_after IS DISTINCT FROM e.total
                           ELSE e.version IS NOT NULL OR e.balance_after IS NOT NULL END""",
    "2 time": """
        SELECT format('account %s: version %s is older than the one before it', a.code, version)
          FROM (SELECT *, lag(posted_at) OVER (PARTITION BY account_id ORDER BY version) AS before
                  FROM ledger.entries WHERE version IS NOT NULL) e
          JOIN ledger.accounts a ON a.id = e.account_id WHERE e.posted_at < e.before""",
    "3 floor": """
        SELECT format('account %s: version %s leaves %s, floor %s', a.code, v.version, v.available, a.floor)
          FROM (SELECT e.account_id, e.version,
                       sum(sum(x.normal * e.amount) FILTER (
                           -- what is held in favour of an account does not count until it is settled
                           WHERE e.layer = 0 OR (t.phase = 'hold') = (x.normal * e.amount < 0)
                       )) OVER (PARTITION BY e.account_id ORDER BY e.version) AS available
                  FROM ledger.entries e JOIN ledger.transfers t ON t.id = e.transfer_id
                  JOIN ledger.accounts x ON x.id = e.account_id AND x.floor IS NOT NULL
                 GROUP BY e.account_id, e.version) v
          JOIN ledger.accounts a ON a.id = v.account_id WHERE v.available < a.floor""",
    "4 holds": """
        SELECT format('account %s: held %s in the books, %s debit and %s credit in open holds', a.code,
                      coalesce(e.held::text, 'nothing'), coalesce(o.dr, 0), coalesce(o.cr, 0))
          FROM ledger.accounts a LEFT JOIN ledger.balances b ON b.account_id = a.id
          LEFT JOIN (SELECT account_id, sum(amount) AS held FROM ledger.entries WHERE layer = 1 GROUP BY 1) e
                 ON e.account_id = a.id
          LEFT JOIN (SELECT e.account_id, sum(greatest(e.amount, 0)) AS dr, sum(greatest(-e.amount, 0)) AS cr
                       FROM ledger.entries e JOIN ledger.transfers t ON t.id = e.transfer_id AND t.phase = 'hold'
                      WHERE e.layer = 1 AND NOT EXISTS (SELECT FROM ledger.resolutions r WHERE r.target_id = t.id)
                      GROUP BY 1) o ON o.account_id = a.id
         WHERE coalesce(e.held, 0) <> coalesce(o.dr, 0) - coalesce(o.cr, 0)
            OR (b.held_dr, b.held_cr) <> (coalesce(o.dr, 0), coalesce(o.cr, 0))""",
    "5 resolutions": """
        SELECT format('transfer %s (%s) is resolved by %s (%s) at %s', h.external_ref, h.phase, t.external_ref,
                      t.phase, e.at)
          FROM ledger.resolutions r JOIN ledger.transfers h ON h.id = r.target_id
          JOIN ledger.transfers t ON t.id = r.transfer_id
          JOIN (SELECT transfer_id, min(posted_at) AS at FROM ledger.entries GROUP BY 1) e ON e.transfer_id = t.id
         WHERE CASE t.phase WHEN 'settle' THEN h.phase <> 'hold' OR h.expires_at <= t.received_at
                            WHEN 'expire' THEN h.phase <> 'hold' OR h.expires_at IS NULL OR h.expires_at > e.at
                            WHEN 'void' THEN h.phase <> 'hold' WHEN 'reverse' THEN h.phase NOT IN ('post', 'settle')
                            ELSE true END
        UNION ALL
        SELECT format('hold %s is resolved %s times', target_id, count(*))
          FROM ledger.resolutions GROUP BY target_id HAVING count(*) > 1""",
    "5 phases": """
        SELECT format('transfer %s: phase %s, resolves %s transfers, legs %s settled and %s held', t.external_ref,
                      t.phase, r.n, e.settled, e.held)
          FROM ledger.transfers t
          CROSS JOIN LATERAL (SELECT count(*) AS n FROM ledger.resolutions WHERE transfer_id = t.id) r
          CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE layer = 0) AS settled, count(*) FILTER (WHERE layer = 1) AS held
                 FROM ledger.entries WHERE transfer_id = t.id) e
         WHERE (r.n > 0, e.settled > 1, e.held > 1) <>
               (t.phase NOT IN ('post', 'hold'), t.phase IN ('post', 'settle', 'reverse'),
                t.phase IN ('hold', 'settle', 'void', 'expire'))""",
    "6 equation": """
        SELECT format('%s: assets and expenses %s, liabilities, equity and income %s', a.currency,
                      sum(e.amount) FILTER (WHERE a.normal = 1), -sum(e.amount) FILTER (WHERE a.normal = -1))
          FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id WHERE e.layer = 0
         GROUP BY a.currency HAVING sum(e.amount) <> 0""",
    "7 facts": """
        SELECT format('reference %s has %s transfers', external_ref, count(*))
          FROM ledger.transfers GROUP BY external_ref HAVING count(*) > 1
        UNION ALL
        SELECT format('account %s: an entry of transfer %s in %s', a.code, e.transfer_id, e.currency)
          FROM ledger.entries e JOIN ledger.accounts a ON a.id = e.account_id WHERE e.currency <> a.currency
        UNION ALL
        SELECT format('entry %s belongs to no transfer', e.seq)
          FROM ledger.entries e WHERE NOT EXISTS (SELECT FROM ledger.transfers t WHERE t.id = e.transfer_id)""",
    "closings": """
        SELECT format('account %s: closing at %s says settled %s and held %s, entries say %s and %s', a.code, c.at,
                      c.settled, c.held, c.before_settled + e.settled, c.before_held + e.held)
          FROM (SELECT account_id, at, settled, held, lag(at, 1, '-infinity') OVER earlier AS since,
                       lag(settled, 1, 0::bigint) OVER earlier AS before_settled,
                       lag(held, 1, 0::bigint) OVER earlier AS before_held
                  FROM ledger.closings WINDOW earlier AS (PARTITION BY account_id ORDER BY at)) c
          JOIN ledger.accounts a ON a.id = c.account_id
          CROSS JOIN LATERAL (
               SELECT coalesce(sum(amount) FILTER (WHERE layer = 0), 0) AS settled,
                      coalesce(sum(amount) FILTER (WHERE layer = 1), 0) AS held
                 FROM ledger.entries WHERE account_id = c.account_id AND posted_at > c.since AND posted_at <= c.at) e
         WHERE (c.settled, c.held) IS DISTINCT FROM (c.before_settled + e.settled, c.before_held + e.held)""",
    "limits": """
        SELECT format('account %s: %s counts %s since %s in windows of %s s, transfers say %s',
                      coalesce(v.account_id, t.account_id), coalesce(v.kind, t.kind), v.amount,
                      coalesce(v.bucket, t.bucket), coalesce(v.window_s, t.window_s), t.amount)
          FROM ledger.counters v FULL JOIN (
               SELECT h.counts_account_id AS account_id, k.kind, w.window_s,
                      date_bin(make_interval(secs => w.window_s / 96), h.received_at, '2000-01-01 00:00:00+00')
                          AS bucket, sum(k.amount) AS amount
                 FROM ledger.transfers h
                 LEFT JOIN ledger.resolutions r ON r.target_id = h.id AND h.phase = 'hold'
                 LEFT JOIN ledger.transfers x ON x.id = r.transfer_id
                CROSS JOIN LATERAL (
                      SELECT abs(sum(e.amount) FILTER (WHERE e.transfer_id = h.id)) AS own, abs(sum(e.amount)) AS held
                        FROM ledger.entries e
                       WHERE x.phase = 'settle' AND e.layer = 1 AND e.account_id = h.counts_account_id
                         AND e.transfer_id IN (
                             SELECT o.target_id FROM ledger.resolutions o WHERE o.transfer_id = x.id)) p
                CROSS JOIN LATERAL (
                      SELECT coalesce(abs(sum(e.amount)), 0) AS amount FROM ledger.entries e
                       WHERE x.phase = 'settle' AND e.layer = 0 AND e.account_id = h.counts_account_id
                         AND e.transfer_id = x.id) u
                CROSS JOIN LATERAL unnest(h.count_kinds, h.count_amounts) c(kind, amount)
                CROSS JOIN LATERAL (
                      SELECT c.kind, CASE WHEN x.id IS NULL THEN c.amount WHEN x.phase IN ('void', 'expire') THEN 0
                                          WHEN p.own <> h.count_amounts[1] THEN c.amount
                                          ELSE div(c.amount * u.amount + p.held - 1, p.held) END AS amount) k
                CROSS JOIN (VALUES (86400), (604800), (2592000)) w(window_s)
                WHERE h.received_at >= least((SELECT min(bucket) FROM ledger.counters),
                                             clock_timestamp() - interval '60 days') GROUP BY 1, 2, 3, 4) t
            ON (v.account_id, v.kind, v.window_s, v.bucket) = (t.account_id, t.kind, t.window_s, t.bucket)
         WHERE coalesce(v.amount, 0) <> coalesce(t.amount, 0)
           AND (v.amount IS NOT NULL OR t.bucket >= clock_timestamp() - make_interval(secs => 2 * t.window_s))""",
}


async def find_broken_rules(conn: Connection) -> list[str]:
    """Every way in which the books contradict themselves; empty when they balance.

    Each message names the rule, the account or transfer, and the amounts. At most 20 per rule. Raises Unavailable, also
    when a rule exceeds its timeout.
    """
    broken = []
    with translated():
        async with conn.transaction(isolation="repeatable_read", readonly=True):
            await conn.execute(f"SET LOCAL statement_timeout = '{_LIMIT_S}s'")
            for rule, query in _RULES.items():
                asked = f"SELECT * FROM ({query}) broken(message) LIMIT 20"  # noqa: S608 - see _RULES
                found = await conn.fetch(asked, timeout=_LIMIT_S)
                broken += [f"rule {rule}: {row['message']}" for row in found]
    return broken
