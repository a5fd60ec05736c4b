"""Which role may do what. A key's scopes are what it may do for its own account, and its roles as an operator.

    read, receive, send   an app or a user: see the account, make invoices, pay
    support               helps users: finds accounts, locks and unlocks them
    treasury              moves the bank's own money, decides how payouts go on, and sets prices
    finance               answers for the books: reads and corrects them, ends payments, decides about deposits and
                          withdrawals, sets fees, limits and the rules of both
    admin                 everything that any role may; opens and closes accounts, and makes and revokes all their keys

An operation for operators names a line of `MAY` where it is declared: `Depends(needs_role(*MAY["read the books"]))`.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

Role = Literal["support", "treasury", "finance", "admin"]
Scope = Literal["read", "receive", "send"] | Role
ROLES: frozenset[str] = frozenset(get_args(Role))

Power: TypeAlias = Literal[
    "open accounts",
    "find accounts",
    "lock accounts",
    "close accounts and set levels",
    "read the audit trail",
    "read the books",
    "read a transfer",
    "reconcile",
    "correct the books",
    "move capital",
    "end a payment by force",
    "set fees",
    "set limits",
    "set prices",
    "see the chain",
    "rescan the chain",
    "set deposit rules",
    "decide about deposits",
    "see withdrawals",
    "set withdrawal rules",
    "decide about withdrawals",
    "decide about payouts",
]

MAY: Mapping[Power, tuple[Role, ...]] = {
    "open accounts": ("admin",),
    "find accounts": ("support", "finance"),
    "lock accounts": ("support",),
    "close accounts and set levels": ("admin",),
    "read the audit trail": ("finance",),
    "read the books": ("finance",),
    "read a transfer": ("finance", "support"),
    "reconcile": ("finance", "treasury"),
    "correct the books": ("finance",),
    "move capital": ("treasury",),
    "end a payment by force": ("finance",),
    "set fees": ("finance",),
    "set limits": ("finance",),
    "set prices": ("treasury",),
    "see the chain": ("support", "treasury", "finance"),
    "rescan the chain": ("treasury", "finance"),
    "set deposit rules": ("finance",),
    "decide about deposits": ("finance",),
    "see withdrawals": ("support", "treasury", "finance"),
    "set withdrawal rules": ("finance",),
    "decide about withdrawals": ("finance",),
    "decide about payouts": ("treasury", "finance"),
}
"""The roles of which one is enough; `admin` is enough for every line."""
