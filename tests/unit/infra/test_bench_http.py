"""The bench's own client reads whole answers, however they arrive."""

import asyncio

import pytest

from infra.bench.http import Answers, Broken

pytestmark = pytest.mark.unit

ANSWER = b'HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nContent-Length: 9\r\n\r\n{"id": 7}'


@pytest.mark.parametrize("cut", [1, 20, 60, len(ANSWER) - 9, len(ANSWER) - 1])
async def test_an_answer_in_pieces_is_one_answer(cut: int) -> None:
    answers = Answers()
    waiting = answers.expect()
    answers.data_received(ANSWER[:cut])
    assert not waiting.done()
    answers.data_received(ANSWER[cut:])
    assert await waiting == (201, b'{"id": 7}')


async def test_the_next_answer_is_not_the_last_one() -> None:
    answers = Answers()
    first = answers.expect()
    answers.data_received(ANSWER)
    await first
    second = answers.expect()
    answers.data_received(ANSWER.replace(b"201 Created", b"409 Conflict"))
    assert (await second)[0] == 409


async def test_an_answer_without_a_length_and_a_lost_connection_are_said() -> None:
    answers = Answers()
    waiting = answers.expect()
    answers.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with pytest.raises(Broken, match="without a length"):
        await waiting
    waiting = answers.expect()
    answers.connection_lost(None)
    with pytest.raises(Broken, match="ended"):
        await asyncio.wait_for(waiting, 1)
