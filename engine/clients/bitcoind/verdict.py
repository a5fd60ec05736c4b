"""What a node says of a transaction that it is to relay, from its words.

    fate            what is true                                              what the sender does
    accepted        the node's mempool holds it, now or already               wait for a block
    confirmed       a block of the active chain holds it                      look for its block
    missing_inputs  an input is spent in a block, or its own transaction is   look at the inputs and at the conflicts
                    neither in a block nor in the mempool
    refused         the node does not take it, with a `Refusal`               act by the refusal; words are for people

The same bytes may be sent as often as one likes: a verdict never says that a transaction cannot come into a block.
Words differ between versions and between Bitcoin Core and Knots. Those that nobody has foreseen are `other`.
"""

from dataclasses import dataclass
from enum import StrEnum

from engine.clients.bitcoind import fault as faults
from engine.clients.bitcoind.fault import RpcFault, words


class Fate(StrEnum):
    """Where a transaction is after it was sent."""

    ACCEPTED = "accepted"
    CONFIRMED = "confirmed"
    MISSING_INPUTS = "missing_inputs"
    REFUSED = "refused"


class Refusal(StrEnum):
    """Why a node does not take a transaction."""

    BELOW_FLOOR = "below_floor"
    """Its rate is below what the node relays, or below what its full mempool keeps: pay more, or wait."""
    OUTBID = "outbid"
    """The mempool holds a transaction of the same coins, and this one does not pay enough more (BIP 125)."""
    CHAIN_TOO_LONG = "chain_too_long"
    """Too many unconfirmed transactions hang together: wait for a block, or spend other coins."""
    NOT_FINAL = "not_final"
    """A lock time or the age of a coin stands against it for now."""
    FEE_TOO_HIGH = "fee_too_high"
    """Above the caller's own bound."""
    DUST = "dust"
    SCRIPT = "script"
    """Its policy does not relay the script of an output."""
    INVALID = "invalid"
    """No node takes it: a signature or an amount is wrong, or it is no transaction."""
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One answer of a node about one transaction."""

    fate: Fate
    refusal: Refusal | None = None
    """Of what is refused."""
    words: str = ""
    """The node's own, made harmless: one line of bounded length."""

    @property
    def is_known(self) -> bool:
        """Whether the node has it, in its mempool or in a block."""
        return self.fate in (Fate.ACCEPTED, Fate.CONFIRMED)


_FATES: tuple[tuple[str, Fate], ...] = (
    ("txn-already-in-mempool", Fate.ACCEPTED),
    ("txn-same-nonwitness-data-in-mempool", Fate.ACCEPTED),
    ("txn-already-known", Fate.CONFIRMED),
    ("bad-txns-inputs-missingorspent", Fate.MISSING_INPUTS),
    ("missing-inputs", Fate.MISSING_INPUTS),
    ("missing inputs", Fate.MISSING_INPUTS),
)
_REFUSALS: tuple[tuple[str, Refusal], ...] = (
    ("min relay fee not met", Refusal.BELOW_FLOOR),
    ("mempool min fee not met", Refusal.BELOW_FLOOR),
    ("mempool full", Refusal.BELOW_FLOOR),
    ("insufficient fee", Refusal.OUTBID),
    ("txn-mempool-conflict", Refusal.OUTBID),
    ("too many potential replacements", Refusal.OUTBID),
    ("replacement-", Refusal.OUTBID),
    ("bad-txns-spends-conflicting-tx", Refusal.OUTBID),
    ("too-long-mempool-chain", Refusal.CHAIN_TOO_LONG),
    ("package-mempool-limits", Refusal.CHAIN_TOO_LONG),
    ("too-large-cluster", Refusal.CHAIN_TOO_LONG),
    ("non-final", Refusal.NOT_FINAL),
    ("non-bip68-final", Refusal.NOT_FINAL),
    ("bad-txns-nonfinal", Refusal.NOT_FINAL),
    ("bad-txns-premature-spend-of-coinbase", Refusal.NOT_FINAL),
    ("fee exceeds maximum", Refusal.FEE_TOO_HIGH),
    ("max-fee-exceeded", Refusal.FEE_TOO_HIGH),
    ("dust", Refusal.DUST),
    ("scriptpubkey", Refusal.SCRIPT),
    ("bad-", Refusal.INVALID),
    ("mandatory-script-verify-flag-failed", Refusal.INVALID),
    ("mempool-script-verify-flag-failed", Refusal.INVALID),
    ("non-mandatory-script-verify-flag", Refusal.INVALID),
    ("tx decode failed", Refusal.INVALID),
)
"""By how the words begin, in lower case; the first that fits."""


def by_words(text: str) -> Verdict:
    """What the reason of a rejection means, of `sendrawtransaction` or of `testmempoolaccept`."""
    said = words(text)
    begins = said.lower().startswith
    for beginning, fate in _FATES:
        if begins(beginning):
            return Verdict(fate=fate, words=said)
    refusal = next((each for beginning, each in _REFUSALS if begins(beginning)), Refusal.OTHER)
    return Verdict(fate=Fate.REFUSED, refusal=refusal, words=said)


def by_fault(fault: RpcFault) -> Verdict | None:
    """What an error of `sendrawtransaction` says of the transaction; None: it speaks of something else."""
    if fault.code == faults.ALREADY_IN_CHAIN:
        return Verdict(fate=Fate.CONFIRMED, words=words(fault.message))
    if fault.code in (faults.NOT_ACCEPTED, faults.REJECTED, faults.UNDECODABLE):
        return by_words(fault.message)
    return None
