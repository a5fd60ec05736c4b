"""The demo's parts on chain, told on the stack of the tests: every line of it must hold."""

import io

import pytest
from rich.console import Console

from infra.local.demo.chain import tell_chain
from infra.local.demo.parts import Story, opened
from infra.local.demo.withdrawals import tell_withdrawals
from tests.fixtures.stack import Bank

pytestmark = pytest.mark.e2e


async def test_the_demo_receives_on_chain_loses_it_and_has_it_again(bank: Bank) -> None:
    told, story = bank.stack.environment(), Story(Console(file=io.StringIO()))
    bob = await bank.open_account(funds_msat=5_000_000)
    async with opened(told, "alice") as payee, opened(told, "bob") as payer:
        assert (await bob.pay(f"@{payer.name}", wait_s=30, amount_msat=4_000_000)).status_code == 201
        _, wallet = await tell_chain(story.step, bank.stack, told, payee, payer)
    assert [(line.step, line.stands) for line in story.lines if not line.holds] == []
    assert wallet["available_msat"] == 33_000_000


async def test_the_demo_pays_a_batch_of_twenty_and_shows_the_exact_shares(bank: Bank) -> None:
    story = Story(Console(file=io.StringIO()))
    batch, wallets = await tell_withdrawals(story.step, bank.stack, bank.stack.environment())
    assert [(line.step, line.stands) for line in story.lines if not line.holds] == []
    assert batch is not None
    assert len(batch.members) == 20
    assert sum(member["miner_fee_sat"] for member in batch.members) <= batch.fee_sat < batch.bumped_sat
    assert [wallet["held_msat"] for _, wallet in wallets] == [0, 0]
