"""What stands in LNURL's documents, and what a service outside answers."""

from base64 import b64encode
from typing import Any, cast

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from engine.clients.lnurl.web import Web
from engine.domain.errors import Unavailable
from engine.domain.outside import read_json
from tests.helpers.hostile import body

LNURL = (
    "lnurl1dp68gurn8ghj7um9wfmxjcm99e3k7mf0v9cxj0m385ekvcenxc6r2c35xvukxefcv5mkvv34x5ekzd3ev56nyd3hxqurzepexejxxepnxscrv"
    "wfnv9nxzcn9xq6xyefhvgcxxcmyxymnserxfq5fns"
)
"""The example of LUD-01."""
URL = "https://service.com/api?q=3fc3645b439ce8e7f2553a69e5267081d96dcd340693afabe04be7b0ccd178df"
PREIMAGE = "5e" * 32
IV = bytes(range(16))


def base64(data: bytes) -> str:
    return b64encode(data).decode()


def encrypted(text: bytes, *, preimage: str = PREIMAGE) -> str:
    padding = 16 - len(text) % 16
    encryptor = Cipher(algorithms.AES256(bytes.fromhex(preimage)), modes.CBC(IV)).encryptor()
    return base64(encryptor.update(text + bytes([padding]) * padding) + encryptor.finalize())


def aes(ciphertext: str, iv: str = base64(IV)) -> dict[str, str]:
    return {"tag": "aes", "description": "Your code", "ciphertext": ciphertext, "iv": iv}


METADATA = '[["text/plain","Tea"]]'
CALLBACK = "https://shop.example/pay"
OFFER: dict[str, Any] = {
    "tag": "payRequest",
    "callback": CALLBACK,
    "metadata": METADATA,
    "minSendable": 1,
    "maxSendable": 10**9,
    "commentAllowed": 20,
}


class Told:
    """In the web's place: the answer, read as the web reads it."""

    scheme = "https"

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    async def ask(self, url: str, query: object = None) -> dict[str, Any]:
        try:
            found = read_json(self._answer)
        except ValueError:
            raise Unavailable("no JSON", code="destination_unavailable") from None
        if not isinstance(found, dict):
            raise Unavailable("no object", code="destination_unavailable")
        return cast("dict[str, Any]", found)


def told(answer: object) -> Web:
    return cast("Web", Told(body(answer)))
