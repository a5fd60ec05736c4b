"""Every setting is documented and reaches its process: engine/settings.py, .env.example and docker-compose.yml agree.

What compose asks for (`${NAME:?…}`) has no default and stands in .env.example. Every other setting is passed on
(`${NAME:-}`), so that what is set in .env arrives and what is not has its default; that is shown with the settings
classes themselves. What compose sets itself, whatever .env says, is listed here with its reason.
"""

import ast
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import pytest
import yaml

from engine.settings import ApiSettings, CommonSettings, WorkerSettings
from infra.local import environment
from infra.local.home import Home
from tests.tidy.house import ROOT, Source, dotted, read, source
from tests.tidy.rendering import Missing, render, services

pytestmark = pytest.mark.tidy

PREFIX = "MILLRACE_"
EXAMPLE_LINE = re.compile(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
ASKED = re.compile(r"\$\{([A-Z0-9_]+)([^}]*)\}")
SECRET = re.compile(r"PASSWORD|SECRET|KEY$|DSN")
OWNER_DSN = "MILLRACE_POSTGRES_OWNER_DSN"  # read by infra/migrations/env.py alone: no process holds it
PROCESSES: dict[str, type[CommonSettings]] = {"api": ApiSettings, "worker": WorkerSettings}
OWN = {
    "MILLRACE_POSTGRES_DSN": "compose's own database, with a password of .env",
    "MILLRACE_REDIS_URL": "compose's own cache",
    "MILLRACE_TEMPORAL_ADDRESS": "compose's own Temporal",
    "MILLRACE_TEMPORAL_NAMESPACE": "the namespace that compose makes there",
    "MILLRACE_BITCOIND_URL": "API_BITCOIND_URL and WORKER_BITCOIND_URL",
    "MILLRACE_NODES": "API_NODES and WORKER_NODES: each kind of process has other macaroons",
    "MILLRACE_READY_FILE": "what the worker's health check looks for",
}
LOCAL = {
    "MILLRACE_BITCOIND_AUTH_FILE": "the local stack's own bitcoind",
    "MILLRACE_BITCOIND_ZMQ": "the same",
    "MILLRACE_HOT_WALLET": "the wallet that the local stack makes there",
}
"""What the local stack sets itself, whatever is exported."""


@dataclass(frozen=True)
class Setting:
    """One field of a settings class, by its name in the environment."""

    name: str
    required: bool


def settings(one: Source, kind: str) -> set[Setting]:
    """The settings of one class, inherited ones with it."""
    classes = {node.name: node for node in one.tree.body if isinstance(node, ast.ClassDef)}
    found: set[Setting] = set()
    waiting = [kind]
    while waiting:
        node = classes.get(waiting.pop())
        if node is None:
            continue
        waiting += [dotted(base) for base in node.bases]
        fields = [each for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)]
        found |= {Setting(_name(field), not _has_default(field.value)) for field in fields}
    return found


def _name(field: ast.AnnAssign) -> str:
    """Its alias, or the prefix and its own name."""
    keywords = field.value.keywords if isinstance(field.value, ast.Call) else []
    aliases = [word.value.value for word in keywords if word.arg == "validation_alias" and _is_text(word.value)]
    return str(aliases[0]) if aliases else PREFIX + dotted(field.target).upper()


def _is_text(value: ast.expr) -> TypeGuard[ast.Constant]:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _has_default(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return any(keyword.arg in ("default", "default_factory") for keyword in value.keywords)
    return value is not None


def all_settings(one: Source) -> set[str]:
    return {each.name for kind in PROCESSES.values() for each in settings(one, kind.__name__)}


def asked(compose: str) -> set[str]:
    return {name for name, _ in ASKED.findall(compose)}


def undocumented(known: set[str], example: str, compose: str) -> list[str]:
    named = [name for name, _ in EXAMPLE_LINE.findall(example)]
    wanted = known | asked(compose) | {OWNER_DSN}
    missing = [f".env.example does not name {name}" for name in sorted(wanted - set(named))]
    missing += [f".env.example names {name} twice" for name in sorted(set(named)) if named.count(name) > 1]
    return missing + [f"nothing reads {name} of .env.example" for name in sorted(set(named) - wanted)]


def guessed(compose: str, optional: set[str]) -> list[str]:
    """What compose would do without, and must not; a secret with a default is a public secret."""
    return [
        f"{name} is not required"
        for name, rest in ASKED.findall(compose)
        if not rest.startswith(":?") and (name not in optional or SECRET.search(name) or not rest.startswith(":-"))
    ]


def wrong_environment(service: dict[str, Any], known: set[Setting]) -> list[str]:
    """A name that is no setting, or a setting that does not reach the process."""
    given = {name for name in service["environment"] if name.startswith(PREFIX)} - {OWNER_DSN}
    unknown = [f"{name} is no setting" for name in sorted(given - {each.name for each in known})]
    return unknown + [f"{each.name} is missing" for each in sorted(known, key=str) if not _arrives(service, each)]


def _arrives(service: dict[str, Any], setting: Setting) -> bool:
    """Whether what stands in .env is what the process is told; compose's own need only be told."""
    if setting.name in OWN:
        return setting.name in service["environment"]
    told = render(service["environment"].get(setting.name, ""), {setting.name: "set by somebody"})
    return bool(told == "set by somebody")


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    known = all_settings(read(ROOT / "engine/settings.py"))
    assert {"MILLRACE_POSTGRES_DSN", "MILLRACE_ADMIN_KEY", "MILLRACE_READY_FILE", "FORWARDED_ALLOW_IPS"} <= known
    assert undocumented(known, _text(".env.example"), _text("docker-compose.yml")) == []


def test_compose_asks_for_what_must_be_set_and_guesses_no_secret() -> None:
    source = read(ROOT / "engine/settings.py")
    known = {each for kind in PROCESSES.values() for each in settings(source, kind.__name__)}
    optional = {each.name for each in known if not each.required} | {"BANK_SUBNET"}
    assert guessed(_text("docker-compose.yml"), optional) == []


@pytest.mark.parametrize(("process", "kind"), PROCESSES.items())
def test_every_setting_reaches_its_process(process: str, kind: type[CommonSettings]) -> None:
    known = settings(read(ROOT / "engine/settings.py"), kind.__name__)
    assert wrong_environment(services()[process], known) == []


def test_the_migrations_alone_are_the_owner() -> None:
    assert [name for name, each in services().items() if OWNER_DSN in each.get("environment", {})] == ["migrate"]
    assert OWNER_DSN in _text("infra/migrations/env.py")


# What arrives, shown with the processes' own classes


@pytest.fixture
def nodes(tmp_path: Path) -> str:
    """The folder that a process sees as /nodes."""
    for name in ("tls.cert", "a.macaroon"):
        (tmp_path / name).write_bytes(b"")
    place = f'"tls_cert": "{tmp_path}/tls.cert", "macaroon": "{tmp_path}/a.macaroon"'
    return f'{{"lnd-1": {{"address": "node:10009", {place}}}}}'


def started(process: str, dotenv: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> CommonSettings:
    """The settings of a process of compose, with this .env."""
    told = render(services()[process]["environment"], dotenv)
    for name in [each for each in os.environ if each.startswith(PREFIX) or each == "FORWARDED_ALLOW_IPS"]:
        monkeypatch.delenv(name)
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    return PROCESSES[process]()


def filled(nodes: str) -> dict[str, str]:
    """The lines of .env.example that must be filled in, and no other."""
    blank = dict.fromkeys(re.findall(r"^([A-Z][A-Z0-9_]*)=", _text(".env.example"), re.MULTILINE), "x" * 20)
    network = {"MILLRACE_BITCOIN_NETWORK": "mainnet", "MILLRACE_PUBLIC_URL": "https://pay.example.org"}
    secret = {"MILLRACE_PREIMAGE_SECRET": "07" * 32}
    return {**blank, **network, **secret, "API_NODES": nodes, "WORKER_NODES": nodes}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_setting_that_is_not_set_has_its_default(process: str, nodes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = started(process, filled(nodes), monkeypatch)
    chosen = {"metrics_address": "0.0.0.0:9000", "forwarded_allow_ips": ("10.213.77.0/24",)}
    own = {name.removeprefix(PREFIX).lower() for name in OWN}
    fields = {name: field for name, field in type(found).model_fields.items() if name not in own}
    defaults = {name: chosen.get(name, field.default) for name, field in fields.items() if not field.is_required()}
    assert {name: getattr(found, name) for name in defaults} == defaults


def test_a_setting_that_is_set_arrives(nodes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dotenv = {
        **filled(nodes),
        "FORWARDED_ALLOW_IPS": "192.0.2.7, 2001:db8::/48",
        "MILLRACE_METRICS_ADDRESS": "10.0.0.1:9100",
        "MILLRACE_PUBLIC_RATE_LIMIT_PER_MINUTE": "17",
        "MILLRACE_KEYSEND": "true",
        "MILLRACE_WORKFLOW_TASK_SLOTS": "7",
    }
    api, worker = started("api", dotenv, monkeypatch), started("worker", dotenv, monkeypatch)
    assert isinstance(api, ApiSettings)
    assert isinstance(worker, WorkerSettings)
    assert api.forwarded_allow_ips == ("192.0.2.7/32", "2001:db8::/48")
    assert (api.metrics_address, worker.metrics_address) == ("10.0.0.1:9100", "10.0.0.1:9100")
    assert (api.public_rate_limit_per_minute, api.keysend, worker.workflow_task_slots) == (17, True, 7)
    elsewhere = started("api", {**dotenv, "FORWARDED_ALLOW_IPS": "", "BANK_SUBNET": "10.1.0.0/24"}, monkeypatch)
    assert isinstance(elsewhere, ApiSettings)
    assert elsewhere.forwarded_allow_ips == ("10.1.0.0/24",)


def test_a_setting_that_must_be_filled_in_is_asked_for(nodes: str) -> None:
    document = yaml.safe_load(_text("docker-compose.yml"))
    render(document, filled(nodes))
    for name in filled(nodes):
        with pytest.raises(Missing, match=name):
            render(document, {**filled(nodes), name: ""})


def test_the_example_tells_the_defaults() -> None:
    """A value behind `#` is the default, but where the words before it call it an example."""
    lines = dict(EXAMPLE_LINE.findall(_text(".env.example")))
    for kind in PROCESSES.values():
        for name, field in kind.model_fields.items():
            shown = str(field.validation_alias or PREFIX + name.upper())
            if field.is_required() or shown in OWN or field.default is None or (shown in lines and not lines[shown]):
                continue
            default = ",".join(field.default) if isinstance(field.default, tuple) else str(field.default)
            assert lines[shown] == (default.lower() if isinstance(field.default, bool) else default), shown


def test_an_exported_setting_reaches_the_local_stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    source = read(ROOT / "engine/settings.py")
    optional = {
        each.name for kind in PROCESSES.values() for each in settings(source, kind.__name__) if not each.required
    }
    optional -= OWN.keys() | LOCAL.keys()
    for name in optional:
        monkeypatch.setenv(name, "set by somebody")
    home = Home(tmp_path / "home")
    home.settle_ports(tmp_path / "registry")
    for told in (environment.of_api(home), environment.of_worker(home, "worker-1")):
        arrived = {**environment.inherited(), **told}
        assert {arrived[name] for name in optional} == {"set by somebody"}


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


SETTINGS = source(
    "engine/settings.py",
    "class Common:\n  dsn: str = Field(description='x')\n  size: int = Field(default=1)\n"
    "class ApiSettings(Common):\n  key: str\n  note: str | None = None\n"
    "  ips: str = Field(default='', validation_alias='ALLOWED')\n",
)


def test_settings_are_read_with_those_they_inherit() -> None:
    found = {each.name: each.required for each in settings(SETTINGS, "ApiSettings")}
    assert found == {
        "MILLRACE_DSN": True,
        "MILLRACE_SIZE": False,
        "MILLRACE_KEY": True,
        "MILLRACE_NOTE": False,
        "ALLOWED": False,
    }


def test_a_setting_without_example_and_an_example_without_setting_are_seen() -> None:
    example = f"MILLRACE_A=\n#MILLRACE_B=1\n{OWNER_DSN}=\nASKED=\n# A sentence with X=1 in it\n"
    assert undocumented({"MILLRACE_A", "MILLRACE_B"}, example + "#MILLRACE_A=2\n", "${ASKED:?}") == [
        ".env.example names MILLRACE_A twice"
    ]
    assert undocumented({"MILLRACE_A", "MILLRACE_B"}, example, "${ASKED:?}") == []
    assert undocumented({"MILLRACE_A", "MILLRACE_C"}, example, "${ASKED:?}") == [
        ".env.example does not name MILLRACE_C",
        "nothing reads MILLRACE_B of .env.example",
    ]
    assert undocumented({"MILLRACE_A", "MILLRACE_B"}, example, "${ASKED:?} ${MORE:?}") != []


@pytest.mark.parametrize("text", ["${PASSWORD}", "${PASSWORD:-guess}", "${PASSWORD-guess}", "${PASSWORD?}", "${SIZE}"])
def test_a_guess_in_compose_is_seen(text: str) -> None:
    assert guessed("${SIZE:-}${SIZE:-1}${PASSWORD:?}", {"SIZE", "PASSWORD"}) == []
    assert len(guessed(text, {"SIZE", "PASSWORD"})) == 1
    assert len(guessed("${SIZE:-}", set())) == 1


def test_a_setting_that_does_not_arrive_is_seen() -> None:
    known = {Setting("MILLRACE_A", required=True), Setting("MILLRACE_B", required=False)}
    right = {"MILLRACE_A": "${MILLRACE_A:?}", "MILLRACE_B": "${MILLRACE_B:-}", "OTHER": "2"}
    assert wrong_environment({"environment": right}, known) == []
    assert wrong_environment({"environment": {**right, "MILLRACE_B": "1"}}, known) == ["MILLRACE_B is missing"]
    assert wrong_environment({"environment": {**right, "MILLRACE_B": "${MILLRACE_A:-}"}}, known) != []
    assert wrong_environment({"environment": {"MILLRACE_A": "${MILLRACE_A:?}"}}, known) == ["MILLRACE_B is missing"]
    assert wrong_environment({"environment": {**right, "MILLRACE_C": "1"}}, known) == ["MILLRACE_C is no setting"]
