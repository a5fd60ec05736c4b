"""The postings of a deposit. A: amount, B: our fee, R: what a user had spent of it when it was taken back.

    event                               reference                     entries
    seen                                chain:<outpoint>:seen         [held] Dr hot A · Cr user A
    dropped                             chain:<outpoint>:drop         hold inverted
    credited                            chain:<outpoint>:conf:<k>     hold inverted, if there is one
                                                                      · Dr hot A · Cr user A−B−R · Cr fees B · Cr loss R
    below the minimum, above a limit    chain:<outpoint>:conf:<k>     Dr hot A · Cr deposits pending A
    for nobody                          chain:<outpoint>:conf:<k>     Dr hot A · Cr suspense A
    released by two operators           chain:<outpoint>:release:<k>  Dr deposits pending or suspense A · Cr user A−B−R
                                                                      · Cr fees B · Cr loss R
    taken back by a reorganisation      chain:<outpoint>:reorg:<k>    conf:<k> inverted; of the user's part R is a loss
    the same, after a release           …:reorg:<k>:release           release:<k> inverted; likewise

`k` counts from 1 how often the deposit has been booked: once more after each reversal. A second hold of one deposit has
`:seen:2`, and so on. A later credit of the same deposit repays R first. Pure: values and account ids in, postings out.
"""

from collections.abc import Mapping, Sequence

from engine.domain.deposit import Deposited, Outpoint, Place
from engine.domain.errors import InvariantBroken
from engine.domain.fee import Charge
from engine.domain.limit import Count
from engine.domain.money import Msat
from engine.ledger.book import Counted, Leg, Posting, credit, debit
from engine.ledger.chart import ChartIds
from engine.ledger.postings.fee_facts import fee_facts

_ACTOR = "deposit"


def hold_ref(outpoint: Outpoint, number: int) -> str:
    """Names the hold of a deposit, counted from 1 over the holds that it has had."""
    return _numbered(outpoint, "seen", number)


def seen(ids: ChartIds, deposit: Deposited, *, owner: int, number: int, counts: Sequence[Count] = ()) -> Posting:
    """Incoming: promised to the owner, and not spendable. `counts` count towards the owner's limits."""
    return Posting(
        ref=hold_ref(deposit.outpoint, number),
        template="deposit_seen",
        phase="hold",
        actor=_ACTOR,
        workflow_id=deposit.workflow_id,
        metadata={"deposit": deposit.id},
        legs=[debit(ids.hot, deposit.amount_msat), credit(owner, deposit.amount_msat)],
        counted=Counted(owner, counts) if counts else None,
    )


def dropped(deposit: Deposited, *, hold: str, number: int) -> Posting:
    """The transaction is gone, or another one has taken its place: nothing is incoming any more."""
    return Posting(
        ref=_numbered(deposit.outpoint, "drop", number),
        template="deposit_dropped",
        phase="void",
        actor=_ACTOR,
        workflow_id=deposit.workflow_id,
        metadata={"deposit": deposit.id},
        relates_to=[hold],
    )


def booked(  # noqa: PLR0913 - the facts of one event
    ids: ChartIds,
    deposit: Deposited,
    *,
    place: Place,
    owner: int | None,
    charge: Charge | None,
    repaid_msat: Msat,
    number: int,
    hold: str | None,
    counts: Sequence[Count] = (),
) -> Posting:
    """The hot wallet has it. `place` says where it goes; only the owner's wallet pays a fee and repays a receivable."""
    if place == "wallet":
        if owner is None:
            raise InvariantBroken(f"{deposit.id} has no owner to be credited")
        fee_msat = charge.fee_msat if charge else Msat(0)
        parts = [
            (owner, deposit.amount_msat - fee_msat - repaid_msat),
            (ids.deposit_fees, fee_msat),
            (ids.loss, repaid_msat),
        ]
    else:
        charge, parts = (
            None,
            [(ids.deposits_pending if place == "pending" else ids.suspense_in, int(deposit.amount_msat))],
        )
    return Posting(
        ref=f"chain:{deposit.outpoint}:conf:{number}",
        template="deposit_credited" if place == "wallet" else "deposit_parked",
        phase="post" if hold is None else "settle",
        actor=_ACTOR,
        workflow_id=deposit.workflow_id,
        metadata={"deposit": deposit.id, **fee_facts(charge)},
        legs=[debit(ids.hot, deposit.amount_msat), *(credit(account, msat) for account, msat in parts if msat)],
        relates_to=[] if hold is None else [hold],
        counted=_counted(owner, counts, parts) if hold is None else None,
    )


def released(
    ids: ChartIds,
    deposit: Deposited,
    *,
    place: Place,
    owner: int,
    charge: Charge | None,
    repaid_msat: Msat = Msat(0),
    number: int,
    actor: str,
) -> Posting:
    """Two operators have decided whose it is: it moves on to a wallet, which pays our fee and repays a receivable."""
    fee_msat = charge.fee_msat if charge else Msat(0)
    source = ids.deposits_pending if place == "pending" else ids.suspense_in
    parts = [
        (owner, deposit.amount_msat - fee_msat - repaid_msat),
        (ids.deposit_fees, fee_msat),
        (ids.loss, repaid_msat),
    ]
    return Posting(
        ref=f"chain:{deposit.outpoint}:release:{number}",
        template="deposit_released",
        phase="post",
        actor=actor,
        workflow_id=deposit.workflow_id,
        metadata={"deposit": deposit.id, **fee_facts(charge)},
        legs=[debit(source, deposit.amount_msat), *(credit(account, msat) for account, msat in parts if msat)],
    )


def taken_back(
    deposit: Deposited,
    ids: ChartIds,
    *,
    of: str,
    settled: Mapping[int, int],
    owner: int | None,
    owner_pays_msat: Msat,
) -> Posting:
    """A reorganisation has taken it out of the chain: the transfer `of` is inverted.

    `settled` is what it has moved, by account: debit +, in msat.

    The owner gives back `owner_pays_msat`, at most what he was credited; the rest becomes a loss.
    """
    inverted = {account: -msat for account, msat in settled.items()}
    if owner is not None and owner in inverted:
        if not 0 <= owner_pays_msat <= inverted[owner]:
            raise InvariantBroken(f"{deposit.id}: {owner_pays_msat} msat cannot be taken back of {inverted[owner]}")
        inverted[ids.loss] = inverted.get(ids.loss, 0) + inverted[owner] - owner_pays_msat
        inverted[owner] = int(owner_pays_msat)
    return Posting(
        ref=reversal_ref(of),
        template="deposit_taken_back",
        phase="reverse",
        actor=_ACTOR,
        workflow_id=deposit.workflow_id,
        metadata={"deposit": deposit.id},
        legs=[Leg(account, msat) for account, msat in inverted.items() if msat],
        relates_to=[of],
    )


def _counted(owner: int | None, counts: Sequence[Count], parts: Sequence[tuple[int, int]]) -> Counted | None:
    """Nothing counts where nothing comes in: our fee may take all."""
    comes_in = any(account == owner and msat > 0 for account, msat in parts)
    return Counted(owner, counts) if owner is not None and counts and comes_in else None


def reversal_ref(ref: str) -> str:
    """The reference of the reversal of a `conf:<k>` or a `release:<k>`."""
    head, kind, number = ref.rsplit(":", 2)
    return f"{head}:reorg:{number}" + (":release" if kind == "release" else "")


def _numbered(outpoint: Outpoint, word: str, number: int) -> str:
    return f"chain:{outpoint}:{word}" + (f":{number}" if number > 1 else "")
