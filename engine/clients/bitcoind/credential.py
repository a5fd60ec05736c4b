"""User and password of bitcoind: from its cookie file, or from the URL.

bitcoind writes a new cookie at each start, so whoever is refused reads the file again.
"""

import base64
from pathlib import Path
from urllib.parse import SplitResult, unquote

from engine.clients.bitcoind.fault import Reason, unavailable


class Credential:
    """What all connections to one bitcoind show. Threads may share it."""

    def __init__(self, url: SplitResult, auth_file: Path | None) -> None:
        given = url.username is not None
        self._in_url = f"{unquote(url.username or '')}:{unquote(url.password or '')}" if given else None
        self._auth_file = auth_file
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
                    raise unavailable(
                        Reason.UNREACHABLE, "bitcoind's cookie file does not exist: bitcoind is not running."
                    ) from None
            except (OSError, ValueError):
                sentence = "The credentials of bitcoind cannot be read from their file: check its owner and mode."
                raise unavailable(Reason.REFUSED, sentence) from None
        return "Basic " + base64.b64encode((content or ":").encode()).decode()
