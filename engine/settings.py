"""What a process must be told from outside, read once from the environment (prefix `MILLRACE_`).

There is one class per kind of process, so that none holds a secret it does not need: the API alone knows the preimage
secret and the bootstrap key, and its node macaroon can only make, look up and cancel invoices. Nothing secret has a
default. An empty value counts as not set, and the default applies. So a file may pass on what nobody has set. A missing
or wrong setting is reported together with all the others, by name, and the process does not start.
"""

import ipaddress
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Network = Literal["mainnet", "testnet", "signet", "regtest"]


class NodeSettings(BaseModel):
    """How to reach one LND node. The files must be there at the start, and are read anew when a call fails."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = Field(pattern=r"^[^\s:]+:\d+$", description="host:port of LND's gRPC listener")
    tls_cert: Path = Field(description="path of the node's TLS certificate")
    macaroon: Path = Field(description="path of a macaroon baked for this process alone")

    @model_validator(mode="after")
    def _files_exist(self) -> "NodeSettings":
        missing = [str(path) for path in (self.tls_cert, self.macaroon) if not path.is_file()]
        if missing:
            raise ValueError(f"no such file: {', '.join(missing)}")
        return self


def _read_json(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


Nodes = Annotated[
    dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")], NodeSettings],
    Field(min_length=1),
    NoDecode,  # decoded below, so that broken JSON is one problem in the list and not the end of it
    BeforeValidator(_read_json),
]


def _require_32_bytes(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[0-9a-f]{64}", secret.get_secret_value()):
        raise ValueError("must be 64 lower-case hex digits")
    return secret


PreimageSecret = Annotated[SecretStr, AfterValidator(_require_32_bytes)]


def _require_origin(url: str, info: ValidationInfo) -> str:
    match = re.fullmatch(r"(https?)://[a-z0-9.-]+(:[0-9]{1,5})?", url)
    if match is None:
        raise ValueError("must be https://<host>, in lower case, with a port if need be and nothing after it")
    if match[1] == "http" and info.data.get("bitcoin_network") != "regtest":
        raise ValueError("must be https outside regtest")
    return url


PublicUrl = Annotated[str, AfterValidator(_require_origin)]


def _read_keys(value: object) -> object:
    return [key for key in re.split(r"[,\s]+", value) if key] if isinstance(value, str) else value


PublicKeys = Annotated[
    frozenset[Annotated[str, Field(pattern=r"^0[23][0-9a-f]{64}$")]], NoDecode, BeforeValidator(_read_keys)
]


def _refuse_on_mainnet(rate: int, info: ValidationInfo) -> int:
    if info.data.get("bitcoin_network") == "mainnet":
        raise ValueError("must not be set on mainnet: payouts would wait for ever, or pay too much")
    return rate


FixedFeeRate = Annotated[int, Field(ge=100, le=10_000_000), AfterValidator(_refuse_on_mainnet)]


def _read_networks(value: object) -> object:
    """Addresses and networks, separated by commas, each in its shortest form."""
    if not isinstance(value, str):
        return value
    networks = [_network(text) for text in re.split(r"[,\s]+", value) if text]
    return tuple(str(network) for network in networks)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = None if text == "*" else ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text[:50]!r} is no address and no network") from None
    if network is None or network.prefixlen == 0:
        raise ValueError("name the proxies' own addresses: if everybody is trusted, everybody writes his own address")
    return network


Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_read_networks)]


class CommonSettings(BaseSettings):
    """What every process needs."""

    model_config = SettingsConfigDict(
        env_prefix="MILLRACE_", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    postgres_dsn: SecretStr = Field(description="PostgreSQL DSN of the application role, which may only post and read")
    redis_url: SecretStr = Field(description="Redis or Valkey URL; a cache: losing it loses no money")
    temporal_address: str = Field(description="host:port of the Temporal frontend")
    temporal_namespace: str = Field(default="millrace", description="Temporal namespace")
    bitcoin_network: Network = Field(description="the one network that invoices and addresses must belong to")
    nodes: Nodes = Field(description='JSON: {"<name>": {"address": …, "tls_cert": …, "macaroon": …}}')
    bitcoind_url: SecretStr = Field(description="bitcoind's RPC URL; without credentials for the API")
    postgres_pool_size: int = Field(default=16, ge=2, le=200, description="connections per process")
    log_format: Literal["console", "json"] = Field(default="json", description="how log lines look")
    metrics_address: str | None = Field(
        default=None,
        pattern=r"^[^\s:]+:\d+$",
        description="host:port of a listener for /metrics alone; none: no metrics, but of the API on regtest",
    )
    otlp_endpoint: str | None = Field(default=None, description="OTLP gRPC endpoint for traces; none: no traces")


class ApiSettings(CommonSettings):
    """What only the API needs."""

    admin_key: SecretStr = Field(min_length=20, description="bootstrap key with scope admin")
    preimage_secret: PreimageSecret = Field(
        description="32 bytes in hex from which the preimages of our invoices are derived"
    )
    public_url: PublicUrl = Field(
        description="where the world reaches the API, as https://pay.example.org: its host is our lightning domain"
    )
    rate_limit_per_minute: int = Field(
        default=6000, ge=0, le=1_000_000, description="requests per API key and minute; 0: no limit"
    )
    payment_lanes: int = Field(
        default=1,
        ge=0,
        le=16,
        description="workflows of internal payments on their way before others go together; 0: each alone",
    )
    lightning_lanes: int = Field(
        default=2,
        ge=0,
        le=64,
        description="workflows of Lightning payments on their way before others go together; 0: each alone",
    )
    public_rate_limit_per_minute: int = Field(
        default=300, ge=0, le=1_000_000, description="requests without a key per client address and minute; 0: no limit"
    )
    public_rate_limit_per_second: int = Field(
        default=30, ge=0, le=100_000, description="of these, how many are begun in a second, others wait; 0: no limit"
    )
    forwarded_allow_ips: Networks = Field(
        default=("127.0.0.1/32", "::1/128"),
        validation_alias="FORWARDED_ALLOW_IPS",
        description="proxies whose X-Forwarded-For is believed: addresses and networks, with commas between",
    )
    max_connections: int = Field(default=2048, ge=16, le=1_000_000, description="connections of one process")
    max_connections_per_address: int = Field(
        default=256, ge=0, le=1_000_000, description="connections of one client address, proxies aside; 0: no limit"
    )
    max_head_bytes: int = Field(default=65_536, ge=4096, le=2**20, description="largest head of a request")
    max_body_bytes: int = Field(default=65_536, ge=1024, le=2**24, description="largest request body")
    head_timeout_s: int = Field(default=10, ge=1, le=3600, description="a head must have come within so many seconds")
    body_timeout_s: int = Field(default=30, ge=1, le=3600, description="and a body within so many after it")
    write_timeout_s: int = Field(
        default=30, ge=1, le=3600, description="seconds in which an answer's next 64 KiB must have been taken"
    )
    idle_timeout_s: int = Field(
        default=75, ge=1, le=3600, description="seconds between requests of a connection; longer than your proxy's"
    )
    price_max_age_s: int = Field(
        default=3600, ge=1, le=7 * 86_400, description="how old a price may be where a limit in its currency applies"
    )

    keysend: bool = Field(default=False, description="whether nodes are paid without an invoice")
    probe_max_sat: int = Field(
        default=1_000_000,
        ge=0,
        le=2_100_000_000_000_000,
        description="most that a quote sends as a probe; 0: no probes",
    )
    probe_skip: PublicKeys = Field(
        default=frozenset(), description="public keys of nodes that are never probed, with commas between"
    )

    @property
    def domain(self) -> str:
        """What stands after the `@` of our users' lightning addresses; with the port, where there is one."""
        return self.public_url.partition("://")[2]


class WorkerSettings(CommonSettings):
    """What only the worker needs."""

    ready_file: Path | None = Field(default=None, description="file to create when all task queues are polled")
    max_in_flight_per_account: int = Field(
        default=300, ge=1, le=100_000, description="Lightning payments of one account that may be in flight at once"
    )
    max_in_flight_per_node: int = Field(
        default=2_000, ge=1, le=100_000, description="Lightning payments over one node that may be in flight at once"
    )
    receipts_together: int = Field(
        default=100, ge=1, le=256, description="receipts of one page of the pump that share a workflow; 1: each alone"
    )
    bitcoind_auth_file: Path | None = Field(
        default=None,
        description="file with user:password for bitcoind, such as its .cookie, read anew when refused",
    )
    bitcoind_zmq: str | None = Field(
        default=None,
        pattern=r"^tcp://[^\s:]+:\d+$",
        description="bitcoind's ZMQ publisher of hashblock and hashtx; none: the pump only polls",
    )
    hot_wallet: str = Field(
        default="hot", pattern=r"^[a-z][a-z0-9-]{0,30}$", description="bitcoind's wallet for deposits and withdrawals"
    )
    address_type: Literal["bech32", "bech32m"] = Field(
        default="bech32", description="of deposit addresses: bech32 (segwit v0) or bech32m (taproot)"
    )
    address_pool: int = Field(default=1000, ge=10, le=100_000, description="addresses that are made ahead")
    deposits_together: int = Field(
        default=100, ge=1, le=256, description="deposits of one block that share a workflow per step; 1: each alone"
    )
    fixed_fee_rate: FixedFeeRate | None = Field(
        default=None,
        description="fee rate of payouts where no market makes one, in sat per 1,000 vB; none: bitcoind's estimates",
    )
    workflow_task_slots: int = Field(default=32, ge=4, le=200, description="workflow tasks at once in one process")


S = TypeVar("S", bound=CommonSettings)


def load_settings(kind: type[S]) -> S:
    """Read the settings of one kind of process, or name everything that is wrong with them and exit with status 2."""
    try:
        return kind()
    except ValidationError as error:
        problems = [_sentence(kind, item["loc"], item["msg"]) for item in error.errors(include_input=False)]
    print("Millrace cannot start; mend these settings:", *problems, sep="\n  ", file=sys.stderr)
    sys.exit(2)


def _sentence(kind: type[CommonSettings], loc: tuple[int | str, ...], message: str) -> str:
    name, *rest = (str(part) for part in loc) if loc else ("?",)
    place = "".join(f"[{part}]" for part in rest)
    field = kind.model_fields.get(name) or kind.model_fields.get(name.lower())
    about = f" ({field.description})" if field else ""
    aliased = field is not None and field.validation_alias == name
    return f"{name if aliased else f'MILLRACE_{name.upper()}'}{place}: {message}{about}"
