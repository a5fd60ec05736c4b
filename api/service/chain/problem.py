"""Why bitcoind cannot be followed, in a sentence for operators, with what to do. The pump stores the reason.

Nothing is lost while bitcoind is not followed: deposits are found by their blocks as soon as it is followed again.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainProblem:
    """A reason, read."""

    reason: str
    detail: str
    remedy: str


_KNOWN: Mapping[str, tuple[str, str]] = {
    "unreachable": (
        "bitcoind does not answer at its address.",
        "Start bitcoind. Check MILLRACE_BITCOIND_URL, rpcbind, rpcallowip and the firewall.",
    ),
    "refused": (
        "bitcoind refuses the credentials.",
        "Check MILLRACE_BITCOIND_AUTH_FILE, or user and password in MILLRACE_BITCOIND_URL. The file is read anew.",
    ),
    "busy": (
        "bitcoind has too many calls waiting.",
        "Wait. If it lasts, raise rpcworkqueue and rpcthreads, and look for other clients of bitcoind.",
    ),
    "timed_out": (
        "bitcoind answers too slowly.",
        "Look at the disk and the processor of bitcoind's host. A rescan of the wallet takes long and ends by itself.",
    ),
    "cut_off": (
        "Connections to bitcoind break off.",
        "Look at bitcoind's log, and at proxies between the worker and bitcoind.",
    ),
    "warming_up": ("bitcoind is starting.", "Wait until it has loaded its block index."),
    "wallet_missing": (
        "bitcoind has no wallet of this name.",
        "Restore the wallet from its backup or its descriptors. Never create an empty wallet of the same name.",
    ),
    "wallet_not_loaded": (
        "bitcoind has not loaded the wallet, and loading it fails.",
        "Read bitcoind's log. Load the wallet by hand with loadwallet, with load_on_startup.",
    ),
    "wallet_locked": (
        "The wallet is encrypted and locked: it can neither sign nor make further addresses.",
        "Unlock it with walletpassphrase, and again after each restart of bitcoind.",
    ),
    "coin_unknown": (
        "The wallet does not know a coin that the bank wants to spend.",
        "Wait if the wallet is being rescanned. Otherwise restore the right wallet. Nothing has been signed.",
    ),
    "wallet_replaced": (
        "The wallet does not know addresses that it has made: it has other keys.",
        "Stop the workers and restore the right wallet. Deposits to these addresses are not seen until then.",
    ),
    "other_network": (
        "bitcoind is on another network than the bank.",
        "Connect the worker to the right bitcoind. Nothing is booked from this one.",
    ),
    "other_chain": (
        "bitcoind has none of the blocks that the bank remembers.",
        "Connect the worker to the right bitcoind. If it is the right one, follow the runbook of deep reorganisations.",
    ),
    "pruned": (
        "bitcoind has pruned blocks that must be read again.",
        "Let another bitcoind with these blocks take over, or download the chain again (-reindex) with a higher prune.",
    ),
    "behind": (
        "bitcoind is behind the blocks that the books know, or behind the network.",
        "Check its peers and its clock, and wait until it has caught up.",
    ),
    "too_old": ("This version of bitcoind is not supported.", "Upgrade bitcoind to version 28 or newer."),
    "bitcoind_unforeseen": (
        "bitcoind has answered with an error that the bank does not know.",
        "Read the failed activity of the pump's workflow in the Temporal UI, and report the error.",
    ),
}
_UNKNOWN = ("bitcoind cannot be followed.", "Read the pump's workflow in the Temporal UI and the worker's log.")


def explain(reason: str) -> ChainProblem:
    """The sentence and the remedy of a stored reason, also of one that this release does not know."""
    detail, remedy = _KNOWN.get(reason, _UNKNOWN)
    return ChainProblem(reason=reason, detail=detail, remedy=remedy)
