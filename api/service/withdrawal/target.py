"""Where a withdrawal goes: an address of our network, alone or in a `bitcoin:` URI, and the amount that the URI names.

Everything is checked here, before anything is held: form, checksum, network, witness program and taproot key. A later
witness version is paid as it stands, because the rules of its spending are its owner's affair (BIP 350).
"""

from dataclasses import dataclass

from engine.domain.address import read_address
from engine.domain.bip21 import SCHEME, read_uri
from engine.domain.errors import Invalid
from engine.domain.money import Sat
from engine.domain.withdrawal.script import output_script


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """An address that can be paid."""

    address: str
    """Segwit addresses in lower case."""
    script: bytes
    uri_sat: Sat | None = None
    """The amount in the URI."""


def read_target(text: str, network: str) -> Target:
    """Read it. Raises Invalid: `invalid_destination`, `wrong_network`."""
    address, uri_sat = text, None
    if text[: len(SCHEME)].lower() == SCHEME:
        uri = read_uri(text)
        address, uri_sat = uri.address, uri.amount_sat
    try:
        found = read_address(address)
        if network not in found.networks:
            raise Invalid(f"This address is not on {network}.", code="wrong_network", field="address")
        script = output_script(found.text)
    except ValueError as error:
        detail = f"This is not a bitcoin address that can be paid: {error}."
        raise Invalid(detail, code="invalid_destination", field="address") from None
    return Target(address=found.text, script=script, uri_sat=uri_sat)


def agree_amount(target: Target, amount_sat: Sat | None, *, send_all: bool) -> Sat | None:
    """The amount to pay; None: all that is in the wallet.

    Raises Invalid: `amount_required` where nobody names one, `amount_mismatch` where two differ, and `invalid_request`
    for an amount beside `send_all`.
    """
    if send_all:
        if amount_sat is not None:
            raise Invalid("Give amount_sat or send_all, not both.", field="send_all")
        if target.uri_sat is not None:
            raise _mismatch(target.uri_sat, "leave send_all out, or take the address alone")
        return None
    if amount_sat is None and target.uri_sat is None:
        raise Invalid("Say how much: amount_sat, or send_all.", code="amount_required", field="amount_sat")
    if target.uri_sat is not None and amount_sat not in {None, target.uri_sat}:
        raise _mismatch(target.uri_sat, "leave amount_sat out, or give the same")
    return target.uri_sat if amount_sat is None else amount_sat


def _mismatch(uri_sat: Sat, cure: str) -> Invalid:
    return Invalid(
        f"The URI asks for {uri_sat:,} sat; {cure}.", code="amount_mismatch", field="amount_sat", uri_amount_sat=uri_sat
    )
