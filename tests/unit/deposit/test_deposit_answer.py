"""What users read of a deposit's status: each that they can meet, and no other."""

from typing import get_args

import pytest

from api.service.deposit import deposit
from api.service.deposit.deposit import DepositOut
from api.system import gauge
from engine.domain.deposit import DepositStatus

pytestmark = pytest.mark.unit

ALL = {status.value for status in DepositStatus}


def test_users_meet_every_status_but_that_of_a_deposit_without_an_owner() -> None:
    assert set(get_args(deposit.DepositStatus)) == ALL - {"unattributed"}


def test_each_status_is_described() -> None:
    described = str(DepositOut.model_fields["status"].description)
    assert [status for status in get_args(deposit.DepositStatus) if f"`{status}`: " not in described] == []


def test_each_status_that_is_watched_is_a_figure() -> None:
    assert set(gauge._DEPOSITS) == ALL - {"dropped"}
