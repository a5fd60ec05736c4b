"""Why a bitcoind that answers cannot be followed."""

from dataclasses import dataclass

from engine.clients.bitcoind.answer import ChainInfo
from engine.clients.bitcoind.fault import Reason, unavailable
from engine.domain.errors import Unavailable

OLDEST_VERSION = 280000
_PER_MAJOR = 10_000
_HEADERS_AHEAD = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Hindrance:
    """A reason, and one sentence with the remedy."""

    reason: Reason
    sentence: str

    def error(self) -> Unavailable:
        """To raise where the node would be used."""
        return unavailable(self.reason, self.sentence)


def explain(
    info: ChainInfo, *, network: str, needed_from_height: int | None = None, known_work: str | None = None
) -> Hindrance | None:
    """What stands in the way, the gravest first; None: the node can be followed.

    `needed_from_height` is the lowest block that will be read again. `known_work` is the most work of any chain that
    the bank has followed, in the form of `ChainInfo.work`: a node below it has not got that far.
    """
    if info.network != network:
        return Hindrance(
            reason=Reason.OTHER_NETWORK,
            sentence=f"bitcoind is on {info.network}, the bank on {network}: set the URL of a node on {network}.",
        )
    if info.version < OLDEST_VERSION:
        return Hindrance(
            reason=Reason.TOO_OLD,
            sentence=f"bitcoind {info.subversion} is older than {OLDEST_VERSION // _PER_MAJOR}: upgrade it.",
        )
    if needed_from_height is not None and info.pruned_below is not None and needed_from_height < info.pruned_below:
        return Hindrance(
            reason=Reason.PRUNED,
            sentence=f"bitcoind has pruned the blocks below {info.pruned_below}, and block {needed_from_height} is "
            "needed: use a node that has it, or let this one load the chain again.",
        )
    if info.initial_download or info.headers > info.tip.height + _HEADERS_AHEAD:
        return Hindrance(
            reason=Reason.BEHIND,
            sentence=f"bitcoind is at block {info.tip.height} and knows of {info.headers}: wait until it has the rest.",
        )
    if known_work is not None and info.work < known_work:
        return Hindrance(
            reason=Reason.BEHIND,
            sentence=f"bitcoind is at block {info.tip.height}, on a chain with less work than the bank has seen: wait "
            "until it has caught up, or look at its peers.",
        )
    return None
