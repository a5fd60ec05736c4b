"""Steps of a deposit as plans: a posting, and the row as it is once that is booked. Nothing is booked here."""

from collections.abc import Sequence
from dataclasses import dataclass

from engine.bank.chain.deposit import DepositRow
from engine.bank.limit import Payer
from engine.domain.deposit import NEEDS_OPERATOR, DepositStatus, Place
from engine.domain.fee import Charge
from engine.domain.limit import Count
from engine.domain.money import Msat
from engine.ledger.book import Posting
from engine.ledger.chart import ChartIds
from engine.ledger.postings.deposit import booked, seen


@dataclass(frozen=True, slots=True)
class Plan:
    """A posting, and the row as it is once that is booked."""

    posting: Posting
    after: DepositRow


def held(ids: ChartIds, row: DepositRow, owner: Payer, counts: Sequence[Count]) -> Plan:
    """The deposit shown as incoming."""
    number = row.booked.holds + 1
    posting = seen(ids, row.deposited, owner=owner.ledger_account_id, number=number, counts=counts)
    return Plan(posting, row.now_booked(status=DepositStatus.PENDING, hold_ref=posting.ref, holds=number))


def credited_or_parked(
    ids: ChartIds,
    row: DepositRow,
    owner: Payer | None,
    place: Place,
    status: DepositStatus,
    *,
    charge: Charge | None,
    repaid_msat: Msat = Msat(0),
    counts: Sequence[Count] = (),
) -> Plan:
    """The deposit at its place: the owner's wallet, or where operators find it."""
    posting = booked(
        ids,
        row.deposited,
        place=place,
        owner=None if owner is None else owner.ledger_account_id,
        charge=charge,
        repaid_msat=repaid_msat,
        number=row.booked.confs + 1,
        hold=row.booked.hold_ref,
        counts=counts,
    )
    after = row.now_booked(
        status=status,
        conf_ref=posting.ref,
        confs=row.booked.confs + 1,
        hold_ref=None,
        place=place,
        credited_at=row.now if place == "wallet" else None,
        fee_msat=charge.fee_msat if charge else Msat(0),
        fee_version=charge and charge.version,
        fee_level=charge and charge.level,
        counted_msat=max(row.booked.counted_msat, row.amount_msat) if place == "wallet" else row.booked.counted_msat,
        alone=row.booked.alone or status in NEEDS_OPERATOR,
    )
    return Plan(posting, after)
