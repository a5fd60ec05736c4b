"""Invoices on which two readers may differ, one of each kind that was found."""

import json
from pathlib import Path
from typing import TypedDict


class Known(TypedDict):
    """One invoice: our code, or `read`, and what LND says, or `read`."""

    text: str
    ours: str
    lnd: str


CORPUS: list[Known] = json.loads((Path(__file__).parent / "corpus.json").read_text())
