"""Which outputs of a wallet are change: those on an address of an internal descriptor, whoever has paid it.

bitcoind's own `ischange` asks whether the address was ever handed out, which a restored wallet does not know. Listings
name the descriptor of an output in another form than `listdescriptors` does, so one address of each descriptor is
looked up, once.
"""

import re
from collections.abc import Sequence
from typing import Any

from engine.clients.bitcoind.answer import Outpoint
from engine.clients.bitcoind.fault import translated
from engine.clients.bitcoind.rpc import Rpc

_CHANGE_BRANCH = re.compile(r"/1/\*'?h?\)")


class ChangeReader:
    """Knows the descriptors of one wallet that it has met."""

    def __init__(self, rpc: Rpc, wallet: str) -> None:
        self._rpc, self._wallet = rpc, wallet
        self._internal: dict[str, bool] = {}
        """By the text of `parent_descs`."""

    async def outpoints(self, rows: Sequence[Any]) -> frozenset[Outpoint]:
        """The outputs in a listing that are change."""
        found = set()
        for row in rows:
            for descriptor in row.get("parent_descs", ()):
                if descriptor not in self._internal:
                    self._internal[descriptor] = await self._is_internal(descriptor, row.get("address"))
                if self._internal[descriptor]:
                    found.add((row["txid"], row["vout"]))
        return frozenset(found)

    async def _is_internal(self, descriptor: str, address: str | None) -> bool:
        """By the wallet; of a descriptor that is not active any more, by its branch, which is 1 for change (BIP 44)."""
        with translated("getaddressinfo"):
            listed = await self._rpc.call("listdescriptors", wallet=self._wallet)
            known = await self._rpc.call("getaddressinfo", address, wallet=self._wallet) if address else {}
        for each in listed["descriptors"]:
            if each["desc"] == known.get("parent_desc") and "internal" in each:
                return bool(each["internal"])
        return _CHANGE_BRANCH.search(descriptor) is not None
