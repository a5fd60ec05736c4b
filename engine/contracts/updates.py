"""What an update, an operator's word to a workflow, may be refused with."""

NOT_YET = "NotYet"
"""The type of the failure of an update whose word is known and not kept yet: to be asked again."""
