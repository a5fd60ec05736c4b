"""`Prefer: wait=N` (RFC 7240): how long to wait for a final answer. A wish, so a malformed one is ignored.

This module imports no framework, because the service bounds its own waits by MAX_WAIT_S.
"""

_DEFAULT_S, MAX_WAIT_S = 10, 60
MEANING = f"`wait=N`: wait up to N seconds (0 to {MAX_WAIT_S}, default {_DEFAULT_S}) for a final status."


def wait_s(headers: list[str], *, default_s: int = _DEFAULT_S) -> int:
    """The first `wait` of all Prefer headers, at most a minute; the default where there is none that can be read."""
    for preference in ",".join(headers).split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        if name.strip().lower() == "wait":
            digits = value.strip().strip('"')
            return _read(digits) if digits.isascii() and digits.isdecimal() else default_s
    return default_s


def _read(digits: str) -> int:
    significant = digits.lstrip("0")
    return MAX_WAIT_S if len(significant) > len(str(MAX_WAIT_S)) else min(int(significant or "0"), MAX_WAIT_S)
