"""Users with deposit addresses, straight in the database, for tests of coins."""

from collections.abc import Mapping, Sequence

from engine.ledger.database import Connection


async def give_addresses(conn: Connection, given: Mapping[str, Sequence[str]]) -> None:
    """Open these accounts with one wallet each, and give them these addresses."""
    for account, addresses in given.items():
        wallet = f"wal_{account}"
        await conn.execute("INSERT INTO bank.accounts(id) VALUES ($1)", account)
        await conn.execute(
            """INSERT INTO bank.wallets(id, account_id, currency, ledger_account_id)
               VALUES ($1, $2, 'BTC', ledger.open_account('liab:user:' || $1, 'liability', 'BTC', 0, 'locked'))""",
            wallet,
            account,
        )
        await conn.execute(
            """INSERT INTO bank.addresses(address, hd_index, made_height, wallet_id, account_id, purpose, given_at)
               SELECT a.address, a.number, 0, $1, $2, 'api', clock_timestamp()
                 FROM unnest($3::text[]) WITH ORDINALITY a(address, number)""",
            wallet,
            account,
            list(addresses),
        )
