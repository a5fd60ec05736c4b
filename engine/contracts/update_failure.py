"""The failure types of updates, through which operators tell a workflow their decision."""

NOT_YET = "NotYet"
"""The decision is known and not stored yet: send the update again."""
