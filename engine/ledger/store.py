"""Writes the books: posts transfers, in one call of Postgres each, in the caller's transaction.

Guarantee: what `post_in_tx` returned and the caller committed is in the books exactly once, by every rule of
`engine/ledger/sql/post.sql`. The pool's command timeout bounds each call. A repeat is safe at any time: a reference is
taken once, and the same content again returns the first transfer with `fresh=False`. Most callers have written or
locked a row that says that their posting is new: they call `post_new_in_tx`, which takes a repeat for a contradiction.

After an error of Postgres the caller's transaction is aborted. A caller that records a refusal in the same transaction
posts inside a savepoint:

    async with transaction(pool) as conn:
        try:
            async with conn.transaction():        # a savepoint, rolled back on error
                await post_in_tx(conn, posting)
        except Refused as refusal:
            await record_refusal_in_tx(conn, refusal)   # still committed

Several postings in one transaction lock their accounts in the order of the calls. Two such transactions may deadlock;
Postgres then ends one of them (Unavailable: repeat the whole transaction).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import orjson

from engine.domain.errors import EngineError, InvariantBroken
from engine.ledger.account import check_in_transaction
from engine.ledger.book import Posting
from engine.ledger.database import Connection, ruled, translated

_POST = """SELECT transfer_id, fresh FROM ledger.post(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb, $12, $13, $14, $15, $16, $17, $18, $19)"""

_POST_BATCH = """SELECT transfer_id, fresh, state, message, detail
    FROM ledger.post_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
                           $21)"""

_POST_ALL = """SELECT p.fresh
    FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                $9::text[], $10::text[], $11::text[], $12::date[], $13::timestamptz[], $14::bigint[], $15::text[],
                $16::text[], $17::text[], $18::text[], $19::text[]) WITH ORDINALITY
         AS x(ref, hash, template, phase, relates_to, accounts, amounts, actor, workflow_id, description, metadata,
              effective_on, expires_at, counted, kinds, counts, max_kinds, windows, most, place),
         LATERAL ledger.post(x.ref, x.hash, x.template, x.phase, x.relates_to::text[], x.accounts::bigint[],
                             x.amounts::bigint[], x.actor, x.workflow_id, x.description, x.metadata::jsonb,
                             x.effective_on, x.expires_at, x.counted, x.kinds::text[], x.counts::bigint[],
                             x.max_kinds::text[], x.windows::int[], x.most::bigint[]) p
   ORDER BY x.place"""


@dataclass(frozen=True, slots=True)
class Posted:
    """The transfer, and whether this call made it (`fresh`) or an earlier one had."""

    transfer_id: int
    fresh: bool


async def post_new_in_tx(conn: Connection, posting: Posting) -> None:
    """Book one posting whose reference nobody can have used.

    As `post_in_tx`. Raises InvariantBroken (`posting_not_new`) when it is already in the books: the row that the caller
    writes with it would have no money of its own.
    """
    if not (await post_in_tx(conn, posting)).fresh:
        raise _not_new(posting)


async def post_in_tx(conn: Connection, posting: Posting) -> Posted:
    """Book one posting. The same reference and content again gives the first transfer, whatever has happened since.

    For callers that accept a repeat or look at `fresh`; all others call `post_new_in_tx`.

    Raises Refused (`insufficient_funds`, `limit_exceeded`, `account_locked`, `account_closed`, `hold_expired`,
    `hold_not_due`),
    Conflict (`reference_conflict`, `hold_already_resolved`, `already_reversed`), InvariantBroken when the posting
    contradicts the books, Unavailable when nothing happened. Never OutcomeUnknown: that is for the caller's COMMIT.
    """
    check_in_transaction(conn)
    with translated():
        row = await conn.fetchrow(
            _POST,
            posting.ref,
            posting.payload_hash,
            posting.template,
            posting.phase,
            list(posting.relates_to),
            [leg.account_id for leg in posting.legs],
            [leg.amount_msat for leg in posting.legs],
            posting.actor,
            posting.workflow_id,
            posting.description,
            orjson.dumps(dict(posting.metadata)).decode(),
            posting.effective_on,
            posting.expires_at,
            *_counted(posting),
        )
    if row is None:
        raise InvariantBroken("ledger.post gave no answer")
    return Posted(transfer_id=row["transfer_id"], fresh=row["fresh"])


async def post_new_batch_in_tx(conn: Connection, postings: Sequence[Posting]) -> list[EngineError | None]:
    """As `post_batch_in_tx`, for references that nobody can have used. Returns why each was not booked, or None.

    A posting that is already in the books gets InvariantBroken (`posting_not_new`).
    """
    verdicts: list[EngineError | None] = []
    for posting, result in zip(postings, await post_batch_in_tx(conn, postings), strict=True):
        if isinstance(result, EngineError):
            verdicts.append(result)
        else:
            verdicts.append(None if result.fresh else _not_new(posting))
    return verdicts


async def post_batch_in_tx(conn: Connection, postings: Sequence[Posting]) -> list[Posted | EngineError]:
    """Book many postings of the phases post and hold, each as `post_in_tx` would, in this order; one verdict each.

    A refused posting leaves no trace and disturbs none of the others, and the transaction goes on. Raises
    InvariantBroken for another phase, Unavailable when nothing happened.
    """
    check_in_transaction(conn)
    if any(posting.phase not in ("post", "hold") for posting in postings):
        raise InvariantBroken("only posts and holds are booked many at once")
    legs = [(number, leg) for number, posting in enumerate(postings, 1) for leg in posting.legs]
    counted = [(number, posting.counted) for number, posting in enumerate(postings, 1) if posting.counted is not None]
    counts = [(number, count) for number, each in counted for count in each.counts]
    maxima = [(number, count.kind, *limit) for number, count in counts for limit in count.maxima.items()]
    with translated():
        rows = await conn.fetch(
            _POST_BATCH,
            [posting.ref for posting in postings],
            [posting.payload_hash for posting in postings],
            [posting.template for posting in postings],
            [posting.phase for posting in postings],
            [posting.actor for posting in postings],
            [posting.workflow_id for posting in postings],
            [posting.description for posting in postings],
            [orjson.dumps(dict(posting.metadata)).decode() for posting in postings],
            [posting.effective_on for posting in postings],
            [posting.expires_at for posting in postings],
            [number for number, _leg in legs],
            [leg.account_id for _number, leg in legs],
            [leg.amount_msat for _number, leg in legs],
            [posting.counted and posting.counted.account_id for posting in postings],
            [number for number, _count in counts],
            [count.kind for _number, count in counts],
            [count.amount for _number, count in counts],
            *(list(column) for column in (zip(*maxima, strict=True) if maxima else ((), (), (), ()))),
        )
    return [
        Posted(transfer_id=row["transfer_id"], fresh=row["fresh"])
        if row["state"] is None
        else ruled(row["state"], row["message"], row["detail"])
        for row in rows
    ]


async def post_new_all_in_tx(conn: Connection, postings: Sequence[Posting]) -> None:
    """Book postings of any phase whose references nobody can have used, in this order and in one call: all or none.

    Raises for the first that is refused, as `post_new_in_tx`. Callers that go on post inside a savepoint.
    """
    check_in_transaction(conn)
    with translated():
        rows = await conn.fetch(
            _POST_ALL,
            [posting.ref for posting in postings],
            [posting.payload_hash for posting in postings],
            [posting.template for posting in postings],
            [posting.phase for posting in postings],
            [_array(posting.relates_to) for posting in postings],
            [_array(leg.account_id for leg in posting.legs) for posting in postings],
            [_array(leg.amount_msat for leg in posting.legs) for posting in postings],
            [posting.actor for posting in postings],
            [posting.workflow_id for posting in postings],
            [posting.description for posting in postings],
            [orjson.dumps(dict(posting.metadata)).decode() for posting in postings],
            [posting.effective_on for posting in postings],
            [posting.expires_at for posting in postings],
            *_columns(postings),
        )
    if len(rows) != len(postings):
        raise InvariantBroken("ledger.post gave too few answers")
    for posting, row in zip(postings, rows, strict=True):
        if not row["fresh"]:
            raise _not_new(posting)


def _columns(postings: Sequence[Posting]) -> list[list[object]]:
    """What `_counted` gives for each, side by side; lists as arrays."""
    rows = [_counted(posting) for posting in postings]
    return [[_array(each) if isinstance(each, list) else each for each in column] for column in zip(*rows, strict=True)]


def _array(values: Iterable[object]) -> str:
    """An array in PostgreSQL's own notation: `unnest` would flatten arrays of arrays. None of our values has quotes."""
    return "{" + ",".join(f'"{value}"' for value in values) + "}"


def _not_new(posting: Posting) -> InvariantBroken:
    return InvariantBroken(f"{posting.ref} is booked already, and was to be new", code="posting_not_new")


def _counted(posting: Posting) -> tuple[object, ...]:
    """The account, then kinds and amounts side by side, then the maxima as kinds, windows and amounts side by side."""
    if posting.counted is None:
        return (None, None, None, [], [], [])
    counts = posting.counted.counts
    maxima = [(count.kind, window_s, most) for count in counts for window_s, most in count.maxima.items()]
    return (
        posting.counted.account_id,
        [count.kind for count in counts],
        [count.amount for count in counts],
        [kind for kind, _, _ in maxima],
        [window_s for _, window_s, _ in maxima],
        [most for _, _, most in maxima],
    )
