"""bitcoind's JSON-RPC for the local stack: one connection per call, so nothing is left broken by a restart."""

import base64
import http.client
import json
from typing import Any
from urllib.parse import urlsplit

MINER = "miner"
HOT = "hot"


class RpcError(Exception):
    """bitcoind answered with an error; `code` is its number."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code


class BitcoinRpc:
    """One bitcoind, or one wallet of it. Amounts in answers are what JSON says: use `Decimal(str(...))` for money."""

    def __init__(self, url: str, timeout_s: float = 30, wallet: str | None = None) -> None:
        parts = urlsplit(url)
        self._wallet = wallet
        self._host, self._port, self._timeout_s = parts.hostname or "127.0.0.1", parts.port or 8332, timeout_s
        self._authorization = "Basic " + base64.b64encode(f"{parts.username}:{parts.password}".encode()).decode()

    def call(self, method: str, *params: object, wallet: str | None = None, **named: object) -> Any:  # noqa: ANN401 - JSON
        """One call, by position or by name; raises `RpcError`, or `OSError` when bitcoind cannot be reached."""
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        body = json.dumps({"id": 0, "method": method, "params": named or params})
        wallet = wallet or self._wallet
        try:
            path = f"/wallet/{wallet}" if wallet else "/"
            connection.request(
                "POST", path, body, {"Authorization": self._authorization, "Content-Type": "application/json"}
            )
            answer = connection.getresponse()
            content = answer.read()
        except TimeoutError:
            raise TimeoutError(f"bitcoind gave no answer to {method} within {self._timeout_s:.0f} s") from None
        except http.client.HTTPException as error:
            raise ConnectionError(f"bitcoind broke the connection: {error!r}") from None
        finally:
            connection.close()
        try:
            said = json.loads(content)
        except ValueError:
            raise RpcError(answer.status, answer.reason) from None
        if said.get("error"):
            raise RpcError(said["error"]["code"], said["error"]["message"])
        return said["result"]

    def mine(self, blocks: int = 1) -> list[str]:
        """Mine blocks to the wallet `miner` and write them to disk; returns their hashes."""
        address = self.call("getnewaddress", "", "bech32", wallet=MINER)
        hashes: list[str] = self.call("generatetoaddress", blocks, address)
        self.flush()
        return hashes

    def flush(self) -> None:
        """Have the chain written to disk now. bitcoind does it about once an hour: after `kill -9` a real node gets
        the missing blocks back from its peers, but a regtest node without peers would have lost them for ever.
        """
        self.call("gettxoutsetinfo", "none")

    def flush_next(self, limit_s: float) -> None:
        """Wait for a new tip, at most this long, and have it written to disk."""
        self.call("waitfornewblock", int(limit_s * 1000))
        self.flush()

    def have_wallet(self, name: str) -> None:
        """Make a wallet, or load it; it loads itself after restarts."""
        if name in self.call("listwallets"):
            return
        if name in [wallet["name"] for wallet in self.call("listwalletdir")["wallets"]]:
            self.call("loadwallet", filename=name, load_on_startup=True)
            return
        self.call("createwallet", wallet_name=name, load_on_startup=True)
