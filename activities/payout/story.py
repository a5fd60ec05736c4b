"""A payout as its rows tell it, and which step is next. Each step locks the row and looks again."""

from dataclasses import dataclass
from enum import StrEnum

from engine.bank.chain.cursor import read_tip_height
from engine.bank.withdrawal import member, payout, version
from engine.bank.withdrawal.rules import read_withdrawal_rules
from engine.contracts.payout import PayoutRef, PayoutState
from engine.domain.errors import InvariantBroken
from engine.domain.ids import PayoutId, Txid
from engine.domain.money import Sat
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.withdrawal import PayoutKind, PayoutStatus
from engine.ledger.database import Pool, borrowed

_TROUBLED_LOOK_S, _LOOK_S = 60.0, 600.0


class Step(StrEnum):
    """What a payout needs next."""

    DRAFT = "draft"
    SIGN = "sign"
    SEND = "send"
    BOOK = "book"
    WATCH = "watch"
    FIND = "find"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All that is known of a payout."""

    payout: payout.PayoutRow
    versions: list[version.VersionRow]
    members: list[member.MemberRow]
    tip_height: int
    rules: WithdrawalRules

    @property
    def current(self) -> version.VersionRow:
        """The version that is wanted in a block: the last that the node has not refused, else the last."""
        return next((each for each in reversed(self.versions) if each.refused is None), self.versions[-1])

    @property
    def signed(self) -> list[version.VersionRow]:
        """Versions whose bytes may be known to anybody."""
        return [each for each in self.versions if each.raw is not None]

    @property
    def in_force(self) -> version.VersionRow:
        """The version whose fee the books must have: the confirmed one, else the last that was sent."""
        for each in self.versions:
            if each.number == self.payout.confirmed_version:
                return each
        return next((each for each in reversed(self.versions) if each.broadcast_at is not None), self.current)

    @property
    def step(self) -> Step:
        """By the rows alone: what is missing is next."""
        row, current = self.payout, self.current
        is_over = row.status in (PayoutStatus.FINAL, PayoutStatus.DISSOLVED)
        if is_over:
            return Step.NONE
        if row.on_hold and not self._is_sent:
            return Step.FIND if self.signed else Step.NONE
        if row.status is not PayoutStatus.CONFIRMED and not row.on_hold:
            if current.psbt is None:
                return Step.DRAFT
            if current.raw is None:
                return Step.SIGN
            if current.broadcast_at is None and current.refused is None:
                return Step.SEND
        return Step.BOOK if self._unbooked else Step.WATCH

    @property
    def _is_sent(self) -> bool:
        return any(each.broadcast_at is not None for each in self.versions)

    @property
    def _unbooked(self) -> bool:
        return self._is_sent and (self.payout.booked_ref is None or self.payout.fee_booked_sat != self.in_force.fee_sat)

    def vouts(self, of: version.VersionRow) -> dict[str, int]:
        """Which output of this version pays each member."""
        at = of.change_vout
        return {each.id: each.place if at is None or each.place < at else each.place + 1 for each in self.members}

    def state(self, children: list[PayoutRef]) -> PayoutState:
        """For its workflow and for operators."""
        row, current = self.payout, self.in_force
        needs_operator = row.problem is not None or row.on_hold
        return PayoutState(
            status=row.status,
            waits_for=row.problem or self._waits_for(),
            txid=None if current.txid is None else Txid(current.txid),
            amount_sat=Sat(sum(each.paid_sat for each in self.members)),
            fee_sat=current.fee_sat,
            members=len(self.members),
            step_due=self.step not in (Step.WATCH, Step.FIND, Step.NONE) and row.problem is None,
            ended=row.status in (PayoutStatus.FINAL, PayoutStatus.DISSOLVED),
            needs_operator=needs_operator,
            look_again_s=_TROUBLED_LOOK_S if row.problem else _LOOK_S,
            children=children,
        )

    def _waits_for(self) -> str:
        row = self.payout
        if row.status is PayoutStatus.CONFIRMED and row.block_height is not None:
            return f"block {row.block_height + self.rules.deep - 1}, under which it lies deep"
        if row.on_hold:
            sent = "; what is sent already may come into a block" if self._is_sent else ""
            return f"an operator, who holds it{sent}"
        if self.step is not Step.WATCH:
            return f"its next step: {self.step}" + (f", after its parent {row.parent_id}" if row.parent_id else "")
        return (
            "a block" if row.kind is not PayoutKind.CHILD else f"a block that takes it and its parent {row.parent_id}"
        )


async def read_story(pool: Pool, payout_id: PayoutId) -> Story:
    """As it stands now. Raises InvariantBroken when there is no such payout."""
    async with borrowed(pool) as conn:
        row = await payout.find_row(conn, payout_id)
        if row is None:
            raise InvariantBroken(f"there is no payout {payout_id}")
        return Story(
            payout=row,
            versions=await version.list_versions(conn, payout_id),
            members=await member.list_members(conn, payout_id),
            tip_height=await read_tip_height(conn),
            rules=await read_withdrawal_rules(conn),
        )


async def read_state(pool: Pool, story: Story) -> PayoutState:
    """For its workflow, with its children, so that theirs are started."""
    async with borrowed(pool) as conn:
        children = await payout.list_children(conn, story.payout.id)
    alive = [each for each in children if each.status is not PayoutStatus.DISSOLVED]
    return story.state([PayoutRef(payout_id=each.id, workflow_id=each.workflow_id) for each in alive])
