"""Invoices as strangers may write them: sound ones, changed in every field and signed again. By a seed."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

from coincurve import PrivateKey

from tests.helpers.invoice.bolt11_encoder import CHARSET, Draft, Field, bech32, number_words, sign, to_words

Change = Callable[[random.Random, Draft], Draft]
_AMOUNTS = ("", "1", "1m", "21u", "2500n", "10p", "1p", "25000000010p", "01m", "0", "0n", "20999999", "1x", "9" * 17)
_PREFIXES = ("lnbcrt", "lnbc", "lntb", "lntbs", "lnsb", "lnxx", "lnbcrtx")


def invoices(seed: int, count: int, now: int) -> Iterator[str]:
    """So many texts, each with one to three changes; some are still sound."""
    draw = random.Random(seed)
    for _ in range(count):
        draft = Draft(
            amount=draw.choice(("", "10u", "21000n")),
            timestamp=now,
            payment_hash=draw.randbytes(32),
            secret=draw.randbytes(32),
            key=PrivateKey(draw.randbytes(32)),
        )
        for change in draw.choices(CHANGES, k=draw.randint(1, 3)):
            draft = change(draw, draft)
        yield _written(draw, draft)


def _written(draw: random.Random, draft: Draft) -> str:
    text = draft.text()
    match draw.randrange(12):
        case 0:
            return text.upper()
        case 1:  # a signature whose last bits, or whose recovery id, are no signer's
            prefix, words = draft.prefix + draft.amount, draft.words()
            signature = sign(prefix, words, draft.key)
            signature[draw.choice((-1, -2, 3, 60))] ^= draw.randrange(1, 32)
            return bech32(prefix, [*words, *signature])
        case 2:  # cut off within its fields
            prefix, words = draft.prefix + draft.amount, draft.words()
            words = words[: draw.randrange(len(words))]
            return bech32(prefix, [*words, *sign(prefix, words, draft.key)])
        case 3:
            return f"lightning:{text}"
    return text


def _with(draft: Draft, *fields: Field) -> Draft:
    return replace(draft, extra=[*draft.extra, *fields])


def _bytes(draw: random.Random, longest: int) -> bytes:
    return draw.randbytes(draw.randint(0, longest))


def _words(draw: random.Random, longest: int) -> list[int]:
    return [draw.randrange(32) for _ in range(draw.randint(0, longest))]


def _address(draw: random.Random, draft: Draft) -> Draft:
    version = draw.choice((0, 1, 2, 16, 17, 18, 19, 31))
    data = draw.choice((to_words(draw.randbytes(draw.choice((0, 1, 19, 20, 21, 31, 32, 33)))), _words(draw, 60)))
    return _with(draft, ("f", [version, *data][: draw.randint(0, 70)]))


def _hint(draw: random.Random, draft: Draft) -> Draft:
    hops = b"".join(
        draw.choice((draft.key.public_key.format(), b"\x02" + draw.randbytes(32), draw.randbytes(33)))
        + draw.randbytes(18)
        for _ in range(draw.choice((0, 1, 1, 2, 12)))
    )
    data = to_words(hops[: draw.choice((None, None, -1))])
    return _with(draft, ("r", [*data, *([0] * draw.choice((0, 0, 1)))]))


def _blinded(draw: random.Random, draft: Draft) -> Draft:
    """LND's own field: fees, time lock, limits, features, a node, a blinding point, hops."""
    key = draft.key.public_key.format()
    hop = key + bytes([8]) + draw.randbytes(8)
    path = (
        draw.randbytes(4) + draw.randbytes(4) + draw.randbytes(2) + draw.randbytes(8) + draw.randbytes(8)
        + bytes(2) + key + key + bytes([1]) + hop
    )  # fmt: skip
    return _with(draft, ("5", to_words(path[: draw.choice((None, None, -1, 30, 0))])))


def _features(draw: random.Random, draft: Draft) -> Draft:
    bits = draw.choice((8, 9, 14, 15, 16, 17, 24, 25, 30, 31, 48, 49, 100, 101, 148, 149, 260, 1000, 1023))
    return replace(draft, features=draw.choice((0, draft.features)) | 1 << bits)


def _features_in_words(draw: random.Random, draft: Draft) -> Draft:
    return _with(replace(draft, without=draft.without + "9"), ("9", _words(draw, 1023)))


def _number(draw: random.Random, draft: Draft) -> Draft:
    number = draw.choice(
        (0, 1, 17, 18, 143, 65_535, 65_536, 2**31, 2**32, 9_223_372_036, 9_223_372_037, 2**63, 2**64 - 1)
    )
    tag = draw.choice("xc")
    without = draft.without + ("x" if tag == "x" else "")
    words = [*([0] * draw.choice((0, 0, 1, 9, 12))), *number_words(number)]
    return _with(replace(draft, without=without), (tag, draw.choice((words, words, []))))


def _key(draw: random.Random, draft: Draft) -> Draft:
    key = draw.choice(
        (draft.key.public_key.format(), PrivateKey(draw.randbytes(32)).public_key.format(), draw.randbytes(33))
    )
    return _with(draft, ("n", to_words(key[: draw.choice((None, None, None, 32))])))


def _fixed(draw: random.Random, draft: Draft) -> Draft:
    tag = draw.choice("psh")
    without = draft.without + draw.choice(("", tag, "d"))
    data = to_words(draw.randbytes(draw.choice((31, 32, 32, 33))))
    if data and draw.random() < 0.3:
        data[-1] ^= draw.randrange(32)  # padding that is not zero
    return _with(replace(draft, without=without), (tag, data))


def _text(draw: random.Random, draft: Draft) -> Draft:
    tag = draw.choice("dm")
    without = draft.without + (draw.choice(("d", "")) if tag == "d" else "")
    return _with(replace(draft, without=without), (tag, draw.choice((to_words(_bytes(draw, 639)), _words(draw, 40)))))


def _anything(draw: random.Random, draft: Draft) -> Draft:
    return _with(draft, (draw.choice(CHARSET), _words(draw, draw.choice((3, 60, 1023)))))


def _twice(draw: random.Random, draft: Draft) -> Draft:
    return _with(draft, draw.choice(draft.fields() or [("d", [])]))


CHANGES: tuple[Change, ...] = (
    _address,
    _hint,
    _blinded,
    _features,
    _features_in_words,
    _number,
    _key,
    _fixed,
    _text,
    _anything,
    _twice,
    lambda draw, draft: replace(draft, amount=draw.choice(_AMOUNTS)),
    lambda draw, draft: replace(draft, prefix=draw.choice(_PREFIXES)),
    lambda draw, draft: replace(draft, timestamp=draw.choice((0, 1, draft.timestamp + 10**6, 2**35 - 1))),
    lambda draw, draft: replace(draft, without=draft.without + draw.choice("psdx9")),
    lambda _draw, draft: replace(draft, high_s=True),
)
