"""Every call to a node carries the macaroon, whatever its kind, and none goes without TLS."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.clients.lnd_channel import open_channel
from engine.settings import NodeSettings

pytestmark = pytest.mark.unit

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class MadeUpChannel:
    """Its calls answer with what they were called with."""

    def __init__(self) -> None:
        for kind in KINDS:
            setattr(self, kind, self._method)

    def _method(self, path: str, **_how: Any) -> Callable[..., dict[str, Any]]:
        return lambda request, **how: {"path": path, "request": request, **how}

    async def close(self, grace: float | None = None) -> None:
        """Nothing to let go of."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_macaroon_goes_with_the_call(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, grpc.ChannelCredentials]] = []

    def secure_channel(address: str, credentials: grpc.ChannelCredentials, **_how: Any) -> MadeUpChannel:
        opened.append((address, credentials))
        return MadeUpChannel()

    monkeypatch.setattr(grpc.aio, "secure_channel", secure_channel)
    (tmp_path / "macaroon").write_bytes(b"\x01\xfe")
    (tmp_path / "cert").write_bytes(b"")
    node = NodeSettings(address="node:1", tls_cert=tmp_path / "cert", macaroon=tmp_path / "macaroon")
    call = getattr(open_channel(node), kind)("/a/method", _registered_method=True)
    assert call("question", timeout=5) == {
        "path": "/a/method",
        "request": "question",
        "timeout": 5,
        "metadata": (("macaroon", "01fe"),),
    }
    assert [address for address, _ in opened] == ["node:1"]
    assert isinstance(opened[0][1], grpc.ChannelCredentials)
