"""Temporal, as the API asks it: what its silence means."""

from engine.domain.errors import Unavailable


def temporal_away(error: Exception) -> Unavailable:
    """Temporal did not answer, or a lazy client could not connect to it."""
    return Unavailable(f"Temporal: {error}", code="temporarily_unavailable")
