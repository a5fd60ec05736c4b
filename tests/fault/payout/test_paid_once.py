"""Withdrawals on a real bitcoind: each payee is paid once, whatever dies on the way."""

import pytest

from tests.fixtures.hot_bank import HotBank
from tests.helpers.withdrawal.withdrawer import Withdrawer

pytestmark = pytest.mark.fault


async def test_a_withdrawal_is_paid_and_confirmed(hot: HotBank) -> None:
    out = Withdrawer(hot)
    await out.set_rules()
    alice = await hot.user()
    await hot.pay(alice, 1_000_000)
    await hot.mine(6)
    await hot.shows(alice, "credited", 1_000_000)
    asked = await out.ask(alice, 50_000)
    sent = await out.reaches(asked, "broadcast")
    assert await out.received(asked.address) == 50_000
    await hot.prove()
    await hot.mine()
    await out.reaches(asked, "confirmed")
    available, _ = await hot.money(alice)
    assert available == 1_000_000 - 50_000 - sent["miner_fee_sat"]
    await hot.mine(6)
