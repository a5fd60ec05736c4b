"""What it means that a node answered a send with an error, and then did not know the payment.

LND has no status for a payment that it refuses to begin: it gives the reason as text, with UNKNOWN. A text that is
known to mean a refusal ends the payment. The sending activity counts the others (activities/sending/sending.py).
"""

import grpc

_WORDS = {
    "invoice expired": "invoice_expired",
    "self-payments not allowed": "no_route",
    "amount must": "incorrect_payment_details",
    "invalid feature": "incorrect_payment_details",
    "feature vector": "incorrect_payment_details",
    "unknown feature": "incorrect_payment_details",
    "cltv limit": "no_route",
    "payment address": "incorrect_payment_details",
    "payment request": "incorrect_payment_details",
    "checksum": "incorrect_payment_details",
}


class SendRefused(Exception):
    """The node refused to begin this payment: nothing left it, and nothing will. Carries one of our failure codes."""

    def __init__(self, code: str, words: str) -> None:
        super().__init__(words)
        self.code = code
        self.words = words


class NotBegun(Exception):
    """The node answered the send with an unknown error, and then knew nothing of the payment.

    One such answer is no proof: the error may come from the connection, and the send may still be on its way.
    """

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.words = words


def refusal(status: grpc.StatusCode, words: str) -> SendRefused | NotBegun:
    """The exception for this error of the node, after a look has found no payment."""
    said = words.lower()
    code = next((code for text, code in _WORDS.items() if text in said), None)
    if code is not None and status in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INVALID_ARGUMENT}:
        return SendRefused(code, said)
    return NotBegun(words)
