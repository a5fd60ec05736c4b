"""What a withdrawal holds, and what it may cost: worked out once, when it is opened. Pure.

                       held                     the payee receives                 what is left of the hold
    fee from balance   amount + max_fee         the amount                         free again
    fee from amount    the amount               amount − own share − our fee       nothing
    all there is       the whole balance        whole sat of it − both fees        nothing

`max_fee` covers the own share of the miner fee and our fee. Of all there is, the part below one satoshi is added to our
fee: an output has whole satoshi, and exactly 0 is to be left. A user of ours is paid in the books: no miner, no share.
"""

from dataclasses import dataclass

from engine.domain.errors import Invalid, InvariantBroken, Refused
from engine.domain.money import MAX_AMOUNT_MSAT, Msat, Sat, msat_to_sat_floor, sat_ceil, sat_to_msat
from engine.domain.withdrawal.withdrawal import FeeFrom

_MAX_SAT = msat_to_sat_floor(MAX_AMOUNT_MSAT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is asked for, with our fee for it."""

    amount_sat: Sat
    balance_msat: Msat | None
    """Of somebody who withdraws all: the whole balance, of which `amount_sat` are the whole satoshi."""
    fee_from: FeeFrom
    max_fee_sat: Sat | None
    fee_msat: Msat
    """Our fee for the amount."""

    @property
    def taken_msat(self) -> Msat:
        """What leaves the wallet where the fees are taken from it."""
        return sat_to_msat(self.amount_sat) if self.balance_msat is None else self.balance_msat

    @property
    def takes_fee_from_amount(self) -> bool:
        """Always so when all is withdrawn: nothing else is there."""
        return self.fee_from == "amount" or self.balance_msat is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChain:
    """What the address and the rules ask of an output."""

    dust_sat: Sat
    least_share_sat: Sat
    """The share of this output at the lowest rate that we ever pay."""
    fee_cap_sat: Sat
    """The highest share, unless the user says what it may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is written with the row, once."""

    max_fee_sat: Sat
    held_msat: Msat
    service_fee_msat: Msat
    """Our fee; what is below one satoshi included, where all of it leaves."""
    paid_sat: Sat | None = None
    """What a user of ours receives. None: on chain, the payout tells."""


def require_bounds(*, amount_sat: Sat | None, max_fee_sat: Sat | None, fee_cap_sat: Sat) -> None:
    """Raises Invalid for what no wallet can hold. The door says it better; what it has let through stops here."""
    if amount_sat is not None and not 0 < amount_sat <= _MAX_SAT:
        raise Invalid(f"An amount is above 0 and at most {_MAX_SAT:,} sat.", field="amount_sat")
    if max_fee_sat is not None and not 0 <= max_fee_sat <= _MAX_SAT:
        raise Invalid(f"A fee is not negative, and at most {_MAX_SAT:,} sat.", field="max_fee_sat")
    if not 0 <= fee_cap_sat <= _MAX_SAT:
        raise Invalid("The estimated fee is no amount.", field="fee_cap_sat")


def require_size(amount_sat: Sat, *, minimum_sat: Sat, dust_sat: Sat) -> None:
    """Raises Invalid (`dust_amount`, `amount_too_small`). Whoever owns the address: the answer must not tell."""
    if amount_sat < dust_sat:
        raise Invalid(
            f"No node relays an output below {dust_sat} sat to such an address.",
            code="dust_amount",
            amount_sat=amount_sat,
            dust_sat=dust_sat,
        )
    if amount_sat < minimum_sat:
        raise Invalid(
            f"A withdrawal is of {minimum_sat:,} sat at least.",
            code="amount_too_small",
            amount_sat=amount_sat,
            minimum_sat=minimum_sat,
        )


def least_coins_sat(wish: Wish, output: OnChain) -> Sat:
    """What a payout needs at least in coins for this one: output and least share."""
    if wish.takes_fee_from_amount:
        return Sat(wish.amount_sat - msat_to_sat_floor(wish.fee_msat))
    return Sat(wish.amount_sat + output.least_share_sat)


def on_chain(wish: Wish, output: OnChain) -> Terms:
    """The terms of an output. Raises Refused (`fee_limit_exceeded`), Invalid (`amount_too_small`)."""
    fee_sat = msat_to_sat_floor(wish.fee_msat)
    if sat_to_msat(fee_sat) != wish.fee_msat:
        raise InvariantBroken(f"our fee of {wish.fee_msat} msat for an output is not in whole satoshi")
    max_fee_sat = Sat(output.fee_cap_sat + fee_sat) if wish.max_fee_sat is None else wish.max_fee_sat
    least_sat = Sat(fee_sat + output.least_share_sat)
    if max_fee_sat < least_sat:
        raise _fee_too_high(least_sat, max_fee_sat)
    if not wish.takes_fee_from_amount:
        held_msat = sat_to_msat(Sat(wish.amount_sat + max_fee_sat))
        return Terms(max_fee_sat=max_fee_sat, held_msat=held_msat, service_fee_msat=wish.fee_msat)
    if wish.amount_sat - least_sat < max(output.dust_sat, 1):
        raise _eaten(wish.amount_sat, least_sat)
    service_fee_msat = Msat(wish.fee_msat + wish.taken_msat - sat_to_msat(wish.amount_sat))
    return Terms(max_fee_sat=max_fee_sat, held_msat=wish.taken_msat, service_fee_msat=service_fee_msat)


def in_the_books(wish: Wish) -> Terms:
    """The terms of a payment to a user of ours. Raises as `on_chain`."""
    fee_sat = msat_to_sat_floor(sat_ceil(wish.fee_msat))
    max_fee_sat = fee_sat if wish.max_fee_sat is None else wish.max_fee_sat
    if fee_sat > max_fee_sat:
        raise _fee_too_high(fee_sat, max_fee_sat)
    if not wish.takes_fee_from_amount:
        held_msat = Msat(sat_to_msat(wish.amount_sat) + wish.fee_msat)
        return Terms(
            max_fee_sat=max_fee_sat,
            held_msat=held_msat,
            service_fee_msat=wish.fee_msat,
            paid_sat=wish.amount_sat,
        )
    paid_sat = msat_to_sat_floor(Msat(wish.taken_msat - wish.fee_msat))
    if paid_sat < 1:
        raise _eaten(wish.amount_sat, fee_sat)
    service_fee_msat = Msat(wish.taken_msat - sat_to_msat(paid_sat))
    return Terms(
        max_fee_sat=max_fee_sat, held_msat=wish.taken_msat, service_fee_msat=service_fee_msat, paid_sat=paid_sat
    )


def _fee_too_high(least_sat: Sat, max_fee_sat: Sat) -> Refused:
    return Refused(
        f"It costs {least_sat:,} sat at least, which is above max_fee_sat; raise it, or ask for a quote.",
        code="fee_limit_exceeded",
        fee_sat=least_sat,
        max_fee_sat=max_fee_sat,
    )


def _eaten(amount_sat: Sat, least_sat: Sat) -> Invalid:
    return Invalid(
        f"The fees are {least_sat:,} sat at least, and leave too little of the amount for an output.",
        code="amount_too_small",
        amount_sat=amount_sat,
        fee_sat=least_sat,
    )
