"""Addresses that nobody holds the keys of, and a pool of them in the books."""

import asyncpg

from engine.domain import bech32

_PREFIXES = {"mainnet": "bc", "testnet": "tb", "regtest": "bcrt"}


def address_of(number: int, *, network: str = "regtest", taproot: bool = False) -> str:
    """A right address; another number is another address."""
    program = number.to_bytes(32 if taproot else 20, "big")
    words = [int(taproot), *bech32.to_words(program)]
    return bech32.write(_PREFIXES[network], words, modified=taproot)


async def fill_pool(conn: asyncpg.Connection, count: int, *, start: int = 0) -> list[str]:
    """Put so many addresses into the pool, as a worker would."""
    made = [address_of(index) for index in range(start, start + count)]
    await conn.executemany(
        "INSERT INTO bank.addresses(address, hd_index, made_height) VALUES ($1, $2, 100)",
        [(address, start + place) for place, address in enumerate(made)],
    )
    return made
