"""Claim a withdraw link: the use case of a claimant, who has its URL (LNURL-withdraw, LUD-03), for any door.

    opened     the link's amount, and a `k1` for one claim
    claimed    the payment of the given invoice is started, with an idempotency key made of k1

The use is taken where the payment's money is held, in one transaction, and comes back when the payment fails (decision
0017). So a repeated claim, or one whose process died, is the one payment of its key, and exactly as many claims are
paid as the link has uses.
"""

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from api.service.deadline import Deadline, poll
from api.service.idempotency import as_error
from api.service.payment import payment_run
from api.service.resources import Resources
from api.service.withdraw_link.request import idempotency_key, request_of
from api.service.withdraw_link.seal import is_k1_of, link_url, new_k1, open_sealed_id
from engine.bank import accepted, idempotency
from engine.bank.withdraw_link.link import WithdrawLink, find_link, why_closed
from engine.domain.errors import EngineError, Invalid, Refused, no_such
from engine.domain.money import Msat

_OWNERS_CODES = frozenset(
    {"insufficient_funds", "account_locked", "limit_exceeded", "spend_limit_exceeded", "price_unavailable"}
)
"""Refusals that tell about the owner: a claimant is told only that the owner cannot pay."""
_ACCEPT_LIMIT_S, _ACCEPT_POLL_S = 8, 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLink:
    """What a claimant needs to claim."""

    url: str
    k1: str
    """For one claim."""
    amount_msat: Msat
    memo: str | None


async def open_link(resources: Resources, sealed_id: str) -> OpenedLink:
    """The link, with a new `k1`. Raises NotFound, and Refused (`withdraw_link_closed`)."""
    link = await _find_link(resources, sealed_id)
    _require_open(link)
    settings = resources.settings
    return OpenedLink(
        url=link_url(settings, link.id), k1=new_k1(settings, link.id), amount_msat=link.amount_msat, memo=link.memo
    )


async def claim(resources: Resources, sealed_id: str, k1: str, invoice_text: str) -> None:
    """Start the payment of the claimant's invoice, and wait until its money is held. A repeat changes nothing.

    Raises NotFound, Invalid, Unavailable, and Refused in the words that a claimant may see. While every worker is away
    the payment stays accepted, and nothing is raised.
    """
    link = await _find_link(resources, sealed_id)
    if not is_k1_of(resources.settings, link.id, k1):
        raise Invalid("This is no k1 of this link.")
    body_hash = hashlib.sha256(f"lnurlw\n{link.id}\n{k1}\n{invoice_text.lower()}".encode()).digest()

    async def is_answered() -> bool:
        return await _is_answered(resources, link, k1, body_hash)

    if await is_answered():
        return
    _require_open(link)
    request = await request_of(resources, link, k1, body_hash, invoice_text)
    run = await payment_run.start(
        resources.temporal, resources.listener, request, payee="whoever has the withdraw link"
    )
    run.leave()
    if not await poll(is_answered, bool, Deadline(_ACCEPT_LIMIT_S), every_s=_ACCEPT_POLL_S):
        async with resources.reading() as conn:
            kept_hash = await accepted.note_accepted(
                conn, request.payment_id, run.workflow_id, datetime.now(UTC), body_hash, request=asdict(request)
            )
        _require_same(kept_hash or body_hash, body_hash)


async def _find_link(resources: Resources, sealed_id: str) -> WithdrawLink:
    link_id = open_sealed_id(resources.settings, sealed_id)
    async with resources.reading() as conn:
        link = await find_link(conn, link_id)
    if link is None:
        raise no_such("withdraw link")
    return link


def _require_open(link: WithdrawLink) -> None:
    status = link.status(datetime.now(UTC))
    if status != "open":
        raise Refused(why_closed(status), code="withdraw_link_closed", link_status=status)


async def _is_answered(resources: Resources, link: WithdrawLink, k1: str, body_hash: bytes) -> bool:
    """Whether the claim has its answer. Raises the refusal that it got, and Refused for a k1 of another invoice."""
    async with resources.reading() as conn:
        known = await idempotency.find_key(conn, link.account_id, idempotency_key(k1))
    if known is None:
        return False
    _require_same(known.body_hash, body_hash)
    if known.refusal is not None:
        raise _for_claimant(as_error(known.refusal))
    return True


def _require_same(known_hash: bytes, body_hash: bytes) -> None:
    if known_hash != body_hash:
        raise Refused("This k1 was used for another invoice.", code="idempotency_conflict")


def _for_claimant(refusal: EngineError) -> EngineError:
    """The owner's balance and status are not told to a claimant."""
    if refusal.code in _OWNERS_CODES:
        return Refused("The owner of this link cannot pay it at the moment; ask the owner.", code=refusal.code)
    return refusal
