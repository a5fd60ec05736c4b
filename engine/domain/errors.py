"""Every error that Millrace raises on purpose.

EngineError
├─ Invalid          can never be right                     final
├─ Conflict         same key, other content                final
├─ NotFound         no such thing for this caller          final
├─ Refused          a rule says no (funds, limit, locked)  final, one stable code per rule
├─ Unavailable      nothing happened; try again            retried by policy
├─ OutcomeUnknown   it may have happened; look first       never retried blind
└─ InvariantBroken  our books or code are wrong            stop, page

`code` is stable and meant for programs and translators; `detail` is one sentence for a person; `fields` are the
facts of the case. Three tables translate this tree, and nothing else does: the clients (node codes into it),
`activities/failures.py` (into Temporal failures) and `api/http/errors.py` (into problem documents).
"""

from typing import ClassVar


class EngineError(Exception):
    """Something the engine will not or cannot do, with a stable code."""

    default_code: ClassVar[str] = "internal_error"

    def __init__(self, detail: str, *, code: str | None = None, **fields: str | int | None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.fields = fields
        self.is_replay = False
        """Whether an earlier request with the same idempotency key got this answer already."""


class Invalid(EngineError):
    """The request can never be right, for any caller at any time."""

    default_code = "invalid_request"


class Conflict(EngineError):
    """The key or reference was used before for other content."""

    default_code = "idempotency_conflict"


class NotFound(EngineError):
    """There is no such thing for this caller."""

    default_code = "not_found"


class Refused(EngineError):
    """A rule does not allow it. The same request will be refused again."""

    default_code = "refused"


class Unavailable(EngineError):
    """Nothing happened because a part is away; the same call may be made again."""

    default_code = "node_unavailable"


class OutcomeUnknown(EngineError):
    """The effect may have happened; only a look at the other side can tell."""

    default_code = "outcome_unknown"


class InvariantBroken(EngineError):
    """Our books or our code contradict themselves; a person must look before anything else moves."""

    default_code = "internal_error"


def no_such(thing: str) -> NotFound:
    """The same sentence for a thing that does not exist and for one that belongs to another account."""
    return NotFound(f"There is no such {thing}.")
