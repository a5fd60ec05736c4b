"""The pause between two looks at a payment that does not go on."""

from datetime import timedelta

_QUICK, _LONGEST_PAUSE = timedelta(seconds=30), timedelta(minutes=5)


def pause_after(stalled_for: timedelta) -> timedelta | None:
    """The pause before the next look at a payment that has been stalled for this time; None while it is early.

    A tenth of that time, five minutes at most: in the end 2,000 payments that wait for one node ask it seven times a
    second, not 700 times.
    """
    return None if stalled_for < _QUICK else min(stalled_for // 10, _LONGEST_PAUSE)
