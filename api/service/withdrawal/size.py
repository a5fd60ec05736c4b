"""How small and how large a withdrawal may be, whoever owns the address."""

from api.service.withdrawal.target import Target
from engine.domain.errors import Invalid
from engine.domain.money import MAX_AMOUNT_MSAT, Sat, sat_to_msat
from engine.domain.withdrawal.rules import WithdrawalRules
from engine.domain.withdrawal.script import dust_sat
from engine.domain.withdrawal.terms import require_size


def check_size(rules: WithdrawalRules, target: Target, amount_sat: Sat | None, max_fee_sat: Sat | None) -> None:
    """Raises Invalid: `dust_amount`, `amount_too_small`; `invalid_request` for amount and fee beyond all bounds."""
    if amount_sat is None:
        return
    require_size(amount_sat, minimum_sat=rules.minimum_sat, dust_sat=dust_sat(target.script))
    if sat_to_msat(Sat(amount_sat + (max_fee_sat or 0))) > MAX_AMOUNT_MSAT:
        raise Invalid(f"Amount and max_fee_sat together are at most {MAX_AMOUNT_MSAT:,} msat.", field="max_fee_sat")
