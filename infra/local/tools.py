"""The programs that the stack runs, as provisioning found or made them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path


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
        """As text, for a child process (`MILLRACE_TOOLS`)."""
        return json.dumps({name: str(path) for name, path in asdict(self).items()})

    @classmethod
    def from_json(cls, text: str) -> "Tools":
        """The reverse of `to_json`."""
        return cls(**{name: Path(path) for name, path in json.loads(text).items()})
