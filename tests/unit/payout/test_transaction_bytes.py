"""Transactions as bytes: the first one ever, one of BIP 143, and what is refused."""

import pytest

from engine.domain.deposit import Outpoint
from engine.domain.ids import Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.transaction import (
    MAX_MONEY_SAT,
    Output,
    parse_transaction,
    parse_transaction_hex,
    unsigned_transaction,
)

pytestmark = pytest.mark.unit

GENESIS = (
    "01000000010000000000000000000000000000000000000000000000000000000000000000ffffffff4d04ffff001d0104455468652054696d"
    "65732030332f4a616e2f32303039204368616e63656c6c6f72206f6e206272696e6b206f66207365636f6e64206261696c6f757420666f7220"
    "62616e6b73ffffffff0100f2052a01000000434104678afdb0fe5548271967f1a67130b7105cd6a828e03909a67962e0ea1f61deb649f6bc3f"
    "4cef38c4f35504e51ec112de5c384df7ba0b8d578a4c702b6bf11d5fac00000000"
)
BIP143_SIGNED = (
    "01000000000102fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f00000000494830450221008b9d1dc26ba6a9"
    "cb62127b02742fa9d754cd3bebf337f7a55d114c8e5cdd30be022040529b194ba3f9281a99f2b1c0a19c0489bc22ede944ccf4ecbab4cc618e"
    "f3ed01eeffffffef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb20600000000"
    "1976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa81"
    "5988ac000247304402203609e17b84f6a7d30c80bfa610b5b4542f32a8a0d5447a12fb1366d7f01cc44a0220573a954c4518331561406f9030"
    "0e8f3358f51928d43c212a8caed02de67eebee0121025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee6357110000"
    "00"
)
COIN = Outpoint(txid=Txid("ab" * 32), vout=1)
PAYEE = bytes.fromhex("0014751e76e8199196d454941c45d1b3a323f1433bd6")


def test_the_first_transaction_has_its_txid() -> None:
    found = parse_transaction_hex(GENESIS)
    assert found.txid == "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b"
    assert found.paid_sat == 5_000_000_000
    assert found.weight == 4 * len(GENESIS) // 2


def test_a_signed_transaction_is_read_with_its_witnesses() -> None:
    found = parse_transaction_hex(BIP143_SIGNED)
    assert (found.version, found.locktime) == (1, 17)
    assert found.outpoints == (
        Outpoint(txid=Txid("9f96ade4b41d5433f4eda31e1738ec2b36f6e7d1420d94a6af99801a88f7f7ff"), vout=0),
        Outpoint(txid=Txid("8ac60eb9575db5b2d987e29f301b5b819ea83a5c6579d282d189cc04b8e151ef"), vout=1),
    )
    assert [each.sequence for each in found.inputs] == [0xFFFFFFEE, 0xFFFFFFFF]
    assert [len(each.witness) for each in found.inputs] == [0, 2]
    assert [each.amount_sat for each in found.outputs] == [112_340_000, 223_450_000]
    assert found.signed


def test_an_unsigned_transaction_is_read_as_it_was_written() -> None:
    raw = unsigned_transaction([COIN], [(PAYEE, Sat(700)), (PAYEE, Sat(700))])
    found = parse_transaction(raw)
    assert found.outpoints == (COIN,)
    assert found.outputs == (Output(PAYEE, Sat(700)), Output(PAYEE, Sat(700)))
    assert (found.version, found.locktime, found.inputs[0].sequence) == (2, 0, 0xFFFFFFFD)
    assert not found.signed
    assert raw == unsigned_transaction([COIN], [(PAYEE, Sat(700)), (PAYEE, Sat(700))])


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([], [(PAYEE, 1)]),
        ([COIN], []),
        ([COIN, COIN], [(PAYEE, 1)]),
        ([COIN], [(PAYEE, -1)]),
        ([COIN], [(PAYEE, MAX_MONEY_SAT), (PAYEE, 1)]),
        ([Outpoint(txid=Txid("ab"), vout=0)], [(PAYEE, 1)]),
        ([Outpoint(txid=Txid("ab" * 32), vout=2**32)], [(PAYEE, 1)]),
        ([Outpoint(txid=Txid("ab" * 32), vout=-1)], [(PAYEE, 1)]),
    ],
)
def test_nothing_is_written_that_no_transaction_can_hold(
    inputs: list[Outpoint], outputs: list[tuple[bytes, Sat]]
) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        unsigned_transaction(inputs, outputs)


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "zz",
        "0",
        "02000000",
        GENESIS + "00",
        GENESIS[:-2],
        GENESIS[:8] + "0001" + GENESIS[8:-8] + "00" + GENESIS[-8:],  # says that it has witnesses
        GENESIS.replace("00f2052a01000000", "00f2052a01000080"),  # above 21 million
        "0100000000010000000000000000",
        "01000000ffffffffffffffffff",
        "01000000feffffffff" + "00" * 60,
        GENESIS[:8] + "fd0100" + GENESIS[10:],  # one input, its count not in the shortest form
        BIP143_SIGNED.replace("5988ac0002473044", "5988ac00ffffffffffffffffff473044", 1),
        BIP143_SIGNED + " ",
    ],
)
def test_bytes_that_are_not_exactly_one_transaction_are_refused(raw: str) -> None:
    with pytest.raises(ValueError, match=r"\w+"):
        parse_transaction_hex(raw)
