"""How bitcoind fails: its own error answers, and the reasons why it cannot be used now.

`RpcFault` is an answer of bitcoind. It stays in this package: each module translates the codes that it expects, and
`unforeseen` makes the rest visible. Everything else is `Unavailable` with code `bitcoind_unavailable`, whose field
`reason` is one of `Reason`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from engine.domain.errors import InvariantBroken, OutcomeUnknown, Unavailable
from engine.domain.outside import one_line

UNAVAILABLE = "bitcoind_unavailable"
UNKNOWN_OUTCOME = "bitcoind_outcome_unknown"
UNFORESEEN = "bitcoind_unforeseen"
_WORDS_BYTES = 300

MISC = -1
WALLET = -4
NOT_FOUND = -5
INVALID_PARAMETER = -8
SHUTTING_DOWN = -9
KEYPOOL_RAN_OUT = -12
UNLOCK_NEEDED = -13
WALLET_NOT_FOUND = -18
UNDECODABLE = -22
NOT_ACCEPTED = -25
REJECTED = -26
ALREADY_IN_CHAIN = -27
WARMING_UP = -28
ALREADY_LOADED = -35
INTERNAL = -32603


class Reason(StrEnum):
    """Why bitcoind cannot be used now, or cannot be followed."""

    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    BUSY = "busy"
    TIMED_OUT = "timed_out"
    CUT_OFF = "cut_off"
    WARMING_UP = "warming_up"
    WALLET_MISSING = "wallet_missing"
    WALLET_NOT_LOADED = "wallet_not_loaded"
    WALLET_LOCKED = "wallet_locked"
    COIN_UNKNOWN = "coin_unknown"
    OTHER_NETWORK = "other_network"
    PRUNED = "pruned"
    BEHIND = "behind"
    TOO_OLD = "too_old"


FOR_OPERATORS = (Reason.WALLET_LOCKED, Reason.WALLET_NOT_LOADED, Reason.WALLET_MISSING)
"""What keeps money from leaving and does not pass by itself: somebody must go to the wallet."""


class RpcFault(Exception):
    """bitcoind has answered with an error. The call has changed nothing."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


def words(text: str) -> str:
    """Words of bitcoind for a sentence of ours: one line of bounded length."""
    return one_line(text, _WORDS_BYTES)


def unavailable(reason: Reason, sentence: str) -> Unavailable:
    """The error to raise. Nothing has happened, and the call may be made again."""
    return Unavailable(sentence, code=UNAVAILABLE, reason=reason.value)


def outcome_unknown(sentence: str) -> OutcomeUnknown:
    """The error to raise when the request was sent, must not be repeated, and no answer has come."""
    return OutcomeUnknown(sentence, code=UNKNOWN_OUTCOME)


@contextmanager
def translated(method: str) -> Iterator[None]:
    """What no module has foreseen is InvariantBroken, so that a person sees it; a wallet at work is `busy`."""
    try:
        yield
    except RpcFault as fault:
        raise translation(method, fault) from None


def translation(method: str, fault: RpcFault) -> Unavailable | InvariantBroken:
    """The engine's error for a fault that means the same in every method."""
    said = words(fault.message)
    if fault.code == WALLET and ("rescanning" in said or "already loading" in said):
        return unavailable(Reason.BUSY, f"The wallet of bitcoind is busy: {said}")
    if fault.code == WALLET_NOT_FOUND:
        return unavailable(Reason.WALLET_NOT_LOADED, f"bitcoind has not loaded the wallet: {said}")
    if fault.code in (UNLOCK_NEEDED, KEYPOOL_RAN_OUT):
        return unavailable(Reason.WALLET_LOCKED, f"The wallet of bitcoind is locked; unlock it there: {said}")
    return InvariantBroken(
        f"bitcoind has answered {method} in an unforeseen way: {said} ({fault.code})",
        code=UNFORESEEN,
        method=method,
        rpc_code=fault.code,
    )
