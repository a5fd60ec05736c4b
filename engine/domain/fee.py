"""What we charge: a schedule of steps per kind of movement, and the one function by which it is quoted and booked.

    step               effect on the fee, which begins at 0
    flat_msat          + this much
    proportional_ppm   + this part of the amount, rounded up to the next msat
    tiered             + flat and proportional of the tier in which the amount lies: [from_msat, to_msat)
    exempt             0, and no further step, for these levels and for amounts up to and including up_to_msat
    minimum_msat       at least this
    maximum_msat       at most this

Steps apply in their order. Every proportional part is rounded up by itself. The fee of an on-chain movement is rounded
up to the next satoshi at the end. The fee of incoming money is never more than the amount. `parse_schedule` accepts
only a schedule in which every step can count and every amount has one fee; for any other it names the place of the
error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from engine.domain.errors import Invalid
from engine.domain.money import MAX_AMOUNT_MSAT, MSAT_PER_SAT, Msat, sat_ceil, share_ppm_ceil

Kind = Literal["internal", "lightning_out", "lightning_in", "deposit", "withdrawal"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_KIND_BY_NAME: Mapping[str, Kind] = {kind: kind for kind in KINDS}

MAX_STEPS = 10
MAX_TIERS = 10
"""With these bounds the largest schedule fits into a rulebook, and no sum of its steps overflows."""
MAX_LEVEL = 9
_MAX_PPM = 1_000_000

_ON_CHAIN: tuple[Kind, ...] = ("deposit", "withdrawal")
_INCOMING: tuple[Kind, ...] = ("lightning_in", "deposit")


@dataclass(frozen=True, slots=True)
class Flat:
    """The same for every amount."""

    fee_msat: Msat


@dataclass(frozen=True, slots=True)
class Proportional:
    """Parts per million of the amount."""

    rate_ppm: int


@dataclass(frozen=True, slots=True)
class Tier:
    """What an amount in [from_msat, to_msat) pays, for all of it. The last tier has no end."""

    from_msat: Msat
    to_msat: Msat | None
    fee_msat: Msat
    rate_ppm: int


@dataclass(frozen=True, slots=True)
class Tiered:
    """Tiers side by side from 0 on: every amount lies in exactly one."""

    tiers: tuple[Tier, ...]


@dataclass(frozen=True, slots=True)
class Exempt:
    """Nothing to pay for these levels of an account and amounts up to and including this one."""

    levels: frozenset[int]
    up_to_msat: Msat


@dataclass(frozen=True, slots=True)
class Minimum:
    """At least."""

    fee_msat: Msat


@dataclass(frozen=True, slots=True)
class Maximum:
    """At most."""

    fee_msat: Msat


Step = Flat | Proportional | Tiered | Exempt | Minimum | Maximum


@dataclass(frozen=True, slots=True)
class FeeSchedule:
    """Steps per kind, checked. A kind without steps is free."""

    steps: Mapping[Kind, tuple[Step, ...]]


@dataclass(frozen=True, slots=True)
class Effect:
    """The fee after one step. `whole_sat` and `at_most_the_amount` come in addition to the steps of the schedule."""

    step: str
    fee_msat: Msat


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Our fee for one movement, and the rule by which it was computed: enough to compute it again."""

    fee_msat: Msat
    version: int
    level: int


# The fee


def fee(schedule: FeeSchedule, kind: Kind, amount_msat: Msat, level: int) -> Msat:
    """What an account of this level pays for moving this amount. The same answer for ever."""
    effects = explain(schedule, kind, amount_msat, level)
    return effects[-1].fee_msat if effects else Msat(0)


def explain(schedule: FeeSchedule, kind: Kind, amount_msat: Msat, level: int) -> list[Effect]:
    """The fee after each step that was taken; the last one is the fee. Empty where the kind is free."""
    effects: list[Effect] = []
    running_msat = Msat(0)
    for step in schedule.steps.get(kind, ()):
        exempt = isinstance(step, Exempt) and level in step.levels and amount_msat <= step.up_to_msat
        running_msat = Msat(0) if exempt else _after(step, running_msat, amount_msat)
        effects.append(Effect(_NAMES[type(step)], running_msat))
        if exempt:
            return effects
    if effects and kind in _ON_CHAIN:
        running_msat = sat_ceil(running_msat)
        effects.append(Effect("whole_sat", running_msat))
    if effects and kind in _INCOMING:
        effects.append(Effect("at_most_the_amount", min(running_msat, amount_msat)))
    return effects


def _after(step: Step, running_msat: Msat, amount_msat: Msat) -> Msat:
    match step:
        case Flat():
            return Msat(running_msat + step.fee_msat)
        case Proportional():
            return Msat(running_msat + share_ppm_ceil(amount_msat, step.rate_ppm))
        case Tiered():
            tier = next(tier for tier in step.tiers if tier.to_msat is None or amount_msat < tier.to_msat)
            return Msat(running_msat + tier.fee_msat + share_ppm_ceil(amount_msat, tier.rate_ppm))
        case Minimum():
            return max(running_msat, step.fee_msat)
        case Maximum():
            return min(running_msat, step.fee_msat)
        case Exempt():
            return running_msat


_NAMES: Mapping[type[Step], str] = {
    Flat: "flat_msat",
    Proportional: "proportional_ppm",
    Tiered: "tiered",
    Exempt: "exempt",
    Minimum: "minimum_msat",
    Maximum: "maximum_msat",
}


# Loading


def parse_schedule(content: Mapping[str, Any]) -> FeeSchedule:
    """Read a schedule as it stands in a rulebook. Raises Invalid with the `place` of the first thing that is wrong."""
    steps: dict[Kind, tuple[Step, ...]] = {}
    for name, listed in content.items():
        kind = _KIND_BY_NAME.get(name)
        if kind is None:
            raise _wrong(_shown(name), f"is no kind of movement; there are {', '.join(KINDS)}")
        items = _list(listed, kind, MAX_STEPS)
        steps[kind] = tuple(_step(item, f"{kind}[{number}]") for number, item in enumerate(items))
        _check_reach(kind, steps[kind])
        _check_bounds(kind, steps[kind])
    return FeeSchedule(steps)


def _step(item: object, place: str) -> Step:
    fields = _object(item, place)
    if len(fields) != 1:
        raise _wrong(place, 'is one step with one name, such as {"flat_msat": 1000}')
    ((name, value),) = fields.items()
    read = _READERS.get(name)
    if read is None:
        raise _wrong(f"{place}.{_shown(name)}", f"is no step; there are {', '.join(_READERS)}")
    return read(value, f"{place}.{name}")


def _tiered(value: object, place: str) -> Tiered:
    """Tiers in the order of their amounts, from 0 on, each beginning where the one before ends."""
    tiers: list[Tier] = []
    items = _list(value, place, MAX_TIERS)
    if not items:
        raise _wrong(place, "has no tier")
    for number, item in enumerate(items):
        here = f"{place}[{number}]"
        tier = _tier(item, here)
        expected_msat = tiers[-1].to_msat if tiers else Msat(0)
        if expected_msat is None:
            raise _wrong(here, "is unreachable: the tier before it has no to_msat")
        if tier.from_msat < expected_msat:
            raise _wrong(here, f"overlaps the tier before it, which ends at {expected_msat}")
        if tier.from_msat > expected_msat:
            raise _wrong(here, f"leaves a gap: amounts from {expected_msat} on have no tier")
        if tier.to_msat is not None and tier.to_msat <= tier.from_msat:
            raise _wrong(here, "ends where it begins, or before")
        tiers.append(tier)
    if tiers[-1].to_msat is not None:
        raise _wrong(place, f"leaves a gap: amounts from {tiers[-1].to_msat} on have no tier")
    return Tiered(tuple(tiers))


def _tier(item: object, place: str) -> Tier:
    fields = _object(item, place, "from_msat", "to_msat", "flat_msat", "proportional_ppm")
    if "from_msat" not in fields:
        raise _wrong(place, "has no from_msat")
    to_msat = fields.get("to_msat")
    return Tier(
        from_msat=_msat(fields["from_msat"], f"{place}.from_msat"),
        to_msat=None if to_msat is None else _msat(to_msat, f"{place}.to_msat"),
        fee_msat=_msat(fields.get("flat_msat", 0), f"{place}.flat_msat"),
        rate_ppm=_ppm(fields.get("proportional_ppm", 0), f"{place}.proportional_ppm"),
    )


def _exempt(value: object, place: str) -> Exempt:
    fields = _object(value, place, "levels", "up_to_msat")
    if not fields:
        raise _wrong(place, "exempts nobody: name levels, up_to_msat or both")
    levels = frozenset(range(MAX_LEVEL + 1))
    if "levels" in fields:
        listed = _list(fields["levels"], f"{place}.levels", MAX_LEVEL + 1)
        levels = frozenset(_whole(level, f"{place}.levels[{number}]", MAX_LEVEL) for number, level in enumerate(listed))
        if not levels or len(levels) != len(listed):
            raise _wrong(f"{place}.levels", "is empty, or names a level twice")
    up_to_msat = _msat(fields.get("up_to_msat", MAX_AMOUNT_MSAT), f"{place}.up_to_msat")
    if up_to_msat == 0:
        raise _wrong(f"{place}.up_to_msat", "exempts nothing: no amount is 0")
    return Exempt(levels, up_to_msat)


_READERS: Mapping[str, Callable[[object, str], Step]] = {
    "flat_msat": lambda value, place: Flat(_msat(value, place)),
    "proportional_ppm": lambda value, place: Proportional(_ppm(value, place)),
    "tiered": _tiered,
    "exempt": _exempt,
    "minimum_msat": lambda value, place: Minimum(_msat(value, place)),
    "maximum_msat": lambda value, place: Maximum(_msat(value, place)),
}


def _check_reach(kind: Kind, steps: tuple[Step, ...]) -> None:
    """Raises Invalid for a step that no amount reaches, and for an exemption that frees nothing more."""
    freed = dict.fromkeys(range(MAX_LEVEL + 1), 0)
    for number, step in enumerate(steps):
        if all(up_to_msat >= MAX_AMOUNT_MSAT for up_to_msat in freed.values()):
            raise _wrong(f"{kind}[{number}]", "is unreachable: every amount of every level is exempt before it")
        if isinstance(step, Exempt):
            if all(freed[level] >= step.up_to_msat for level in step.levels):
                raise _wrong(f"{kind}[{number}].exempt", "is unreachable: whom it frees is exempt before it")
            freed |= {level: max(freed[level], step.up_to_msat) for level in step.levels}


def _check_bounds(kind: Kind, steps: tuple[Step, ...]) -> None:
    """Raises Invalid where a minimum and a maximum contradict each other, with what the steps between them add."""
    floor_msat: int | None = None
    cap_msat: int | None = None
    for number, step in enumerate(steps):
        here = f"{kind}[{number}]"
        match step:
            case Minimum(fee_msat):
                if cap_msat is not None and fee_msat > cap_msat:
                    raise _wrong(here, f"can never hold beside the maximum before it: the fee is at most {cap_msat}")
                floor_msat = max(floor_msat or 0, fee_msat)
            case Maximum(fee_msat):
                if floor_msat is not None and fee_msat < floor_msat:
                    raise _wrong(here, f"can never hold beside the minimum before it: the fee is at least {floor_msat}")
                if kind in _ON_CHAIN and fee_msat % MSAT_PER_SAT:
                    raise _wrong(here, "is not in whole satoshi, to which a fee on chain is rounded up")
                cap_msat = fee_msat if cap_msat is None else min(cap_msat, fee_msat)
            case _:
                least_msat, most_msat = _range(step)
                floor_msat = None if floor_msat is None else floor_msat + least_msat
                cap_msat = None if cap_msat is None else cap_msat + most_msat


def _range(step: Step) -> tuple[Msat, Msat]:
    """The least and the most that a step adds to the fee of any amount."""
    lows, highs = [Msat(1)], [MAX_AMOUNT_MSAT]
    if isinstance(step, Tiered):
        lows = [max(tier.from_msat, Msat(1)) for tier in step.tiers]
        highs = [MAX_AMOUNT_MSAT if tier.to_msat is None else Msat(tier.to_msat - 1) for tier in step.tiers]
    return min(_after(step, Msat(0), low) for low in lows), max(_after(step, Msat(0), high) for high in highs)


# Values


def _object(value: object, place: str, *names: str) -> Mapping[str, object]:
    """An object; with names, one that has no other fields than these."""
    if not isinstance(value, Mapping):
        raise _wrong(place, "is no object")
    fields = cast("Mapping[str, object]", value)
    unknown = next((name for name in fields if names and name not in names), None)
    if unknown is not None:
        raise _wrong(f"{place}.{_shown(unknown)}", f"is not known; there are {', '.join(names)}")
    return fields


def _list(value: object, place: str, most: int) -> list[object]:
    if not isinstance(value, list):
        raise _wrong(place, "is no list")
    items = cast("list[object]", value)
    if len(items) > most:
        raise _wrong(place, f"has more than {most} entries")
    return items


def _msat(value: object, place: str) -> Msat:
    return Msat(_whole(value, place, MAX_AMOUNT_MSAT))


def _ppm(value: object, place: str) -> int:
    return _whole(value, place, _MAX_PPM)


def _whole(value: object, place: str, most: int) -> int:
    """A whole number from 0 to `most`. Neither JSON's true nor 1.0 counts as 1."""
    if type(value) is not int:
        raise _wrong(place, "is no whole number")
    if value < 0:
        raise _wrong(place, "is negative")
    if value > most:
        raise _wrong(place, f"is above {most}")
    return value


def _shown(name: str) -> str:
    return repr(name[:40])


def _wrong(place: str, why: str) -> Invalid:
    return Invalid(f"The fee schedule cannot be used: {place} {why}.", place=place)
