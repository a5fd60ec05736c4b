"""The programs that the stack runs, as provisioning found or made them."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

VARIABLE = "MILLRACE_TOOLS"


@dataclass(frozen=True)
class Tools:
    """Absolute paths. `postgres` is the folder of PostgreSQL's programs; the others are programs."""

    python: Path
    postgres: Path
    redis: Path
    bitcoind: Path
    temporal: Path
    lnd: Path

    def to_json(self) -> str:
        """As text, for a child process (`VARIABLE`)."""
        return json.dumps({name: str(path) for name, path in asdict(self).items()})

    @classmethod
    def from_json(cls, text: str) -> "Tools":
        """The reverse of `to_json`."""
        return cls(**{name: Path(path) for name, path in json.loads(text).items()})

    @classmethod
    def given(cls) -> "Tools":
        """Those that `./run` told this process; raises `LookupError` when it was started in another way."""
        told = os.environ.get(VARIABLE)
        if told is None:
            raise LookupError(f"{VARIABLE} is not set: start this with ./run, which provides the programs.")
        return cls.from_json(told)
