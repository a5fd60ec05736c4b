"""Every call to a node carries the macaroon, whatever its kind, and none goes without TLS. What its errors mean."""

from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.clients.lnd.grpc_channel import open_channel, translated
from engine.domain.errors import EngineError, InvariantBroken, NotFound, OutcomeUnknown, Unavailable
from engine.settings import NodeSettings
from tests.helpers.node_credential import macaroon, self_signed

pytestmark = pytest.mark.unit

KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Echo:
    """A call whose only answer is what it was called with."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked

    def __await__(self) -> Generator[Any, None, dict[str, Any]]:
        return self._answer().__await__()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        yield self._asked

    async def _answer(self) -> dict[str, Any]:
        return self._asked


class MadeUpChannel:
    """Its calls answer with what they were called with."""

    def __init__(self) -> None:
        for kind in KINDS:
            setattr(self, kind, self._method)

    def _method(self, path: str, **_how: Any) -> Callable[..., "Echo"]:
        return lambda request, **how: Echo({"path": path, "request": request, **how})

    async def close(self, grace: float | None = None) -> None:
        """Nothing to let go of."""


@pytest.mark.parametrize("kind", KINDS)
async def test_the_macaroon_goes_with_the_call(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, grpc.ChannelCredentials]] = []

    def secure_channel(address: str, credentials: grpc.ChannelCredentials, **_how: Any) -> MadeUpChannel:
        opened.append((address, credentials))
        return MadeUpChannel()

    monkeypatch.setattr(grpc.aio, "secure_channel", secure_channel)
    (tmp_path / "macaroon").write_bytes(macaroon(1))
    (tmp_path / "cert").write_bytes(self_signed()[1])
    node = NodeSettings(address="node:1", tls_cert=tmp_path / "cert", macaroon=tmp_path / "macaroon")
    call = getattr(open_channel(node), kind)("/a/method", _registered_method=True)
    begun = call("question", timeout=5)
    assert (await begun if kind.endswith("unary") else await anext(aiter(begun))) == {
        "path": "/a/method",
        "request": "question",
        "timeout": 5,
        "metadata": (("macaroon", macaroon(1).hex()),),
    }
    assert [address for address, _ in opened] == ["node:1"]
    assert isinstance(opened[0][1], grpc.ChannelCredentials)


@pytest.mark.parametrize(
    ("code", "words", "of_an_act", "of_a_look"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, "too late", OutcomeUnknown, Unavailable),
        (grpc.StatusCode.UNKNOWN, "something", OutcomeUnknown, Unavailable),
        (grpc.StatusCode.UNAVAILABLE, "refused", Unavailable, Unavailable),
        (grpc.StatusCode.NOT_FOUND, "no such thing", NotFound, NotFound),
        (grpc.StatusCode.UNKNOWN, "cannot get macaroon", InvariantBroken, InvariantBroken),
    ],
)
def test_only_what_acts_has_an_outcome_that_can_be_unknown(
    code: grpc.StatusCode, words: str, of_an_act: type[EngineError], of_a_look: type[EngineError]
) -> None:
    broken = grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=words, debug_error_string=None
    )
    for looks, expected in ((False, of_an_act), (True, of_a_look)):
        with pytest.raises(EngineError, match=words) as told, translated("lnd-1", looks=looks):
            raise broken
        assert type(told.value) is expected
