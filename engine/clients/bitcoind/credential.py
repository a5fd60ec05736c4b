"""Where bitcoind is, and its user and password: from its cookie file, or from the URL.

bitcoind writes a new cookie at each start, so whoever is refused reads the file again.
"""

import base64
from pathlib import Path
from urllib.parse import unquote, urlsplit

from engine.clients.bitcoind.fault import Reason, unavailable

_PORT = 8332


class Address:
    """What a URL says. Raises ValueError, which tells nothing of the URL, for one that is not of bitcoind's kind."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        try:
            port = parts.port or _PORT
        except ValueError:
            # The error would tell what stands after a colon: a password with a character that was not percent-encoded.
            raise ValueError(
                "bitcoind's URL has no valid port; its user and password must be percent-encoded"
            ) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("bitcoind's URL must begin with http:// or https:// and name a host")
        self.secure = parts.scheme == "https"
        self.host, self.port = parts.hostname, port
        given = parts.username is not None
        self.credential = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if given else None
        """`user:password`, decoded."""


class Credential:
    """What all connections to one bitcoind show. Threads may share it."""

    def __init__(self, address: Address, auth_file: Path | None) -> None:
        self._in_url, self._auth_file = address.credential, auth_file
        self._authorization = ""

    def authorization(self) -> str:
        """The header, as last read. Raises Unavailable while there is no file and nothing in the URL."""
        if not self._authorization:
            self._authorization = self._read()
        return self._authorization

    def has_changed(self, used: str) -> bool:
        """Read the file anew. Whether it says something else than the header that bitcoind has refused."""
        self._authorization = self._read()
        return self._authorization != used

    def _read(self) -> str:
        content = self._in_url
        if self._auth_file is not None:
            try:
                content = self._auth_file.read_text(encoding="utf-8").strip()
            except FileNotFoundError:
                if content is None:
                    sentence = "bitcoind's cookie file does not exist: bitcoind is not running, or writes it elsewhere."
                    raise unavailable(Reason.UNREACHABLE, sentence) from None
            except (OSError, ValueError):
                sentence = "The credentials of bitcoind cannot be read from their file: check its owner and mode."
                raise unavailable(Reason.REFUSED, sentence) from None
        return "Basic " + base64.b64encode((content or ":").encode()).decode()
