"""Every setting is documented: engine/settings.py, .env.example and docker-compose.yml name the same things.

What compose asks for (`${NAME:?…}`) has no default and stands in .env.example; what a process is given there is one of
its settings, and every setting that it must have is given.
"""

import ast
import re
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.tidy.house import ROOT, Source, dotted, read, source

pytestmark = pytest.mark.tidy

PREFIX = "MILLRACE_"
EXAMPLE_LINE = re.compile(r"^#?([A-Z][A-Z0-9_]*)=", re.MULTILINE)
ASKED = re.compile(r"\$\{([A-Z0-9_]+)([^}]*)\}")
OWNER_DSN = "MILLRACE_POSTGRES_OWNER_DSN"  # read by infra/migrations/env.py alone: no process holds it
PROCESSES = {"api": "ApiSettings", "worker": "WorkerSettings"}


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
        found |= {Setting(PREFIX + dotted(field.target).upper(), not _has_default(field.value)) for field in fields}
    return found


def _has_default(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return any(keyword.arg in ("default", "default_factory") for keyword in value.keywords)
    return value is not None


def all_settings(one: Source) -> set[str]:
    return {each.name for kind in PROCESSES.values() for each in settings(one, kind)}


def asked(compose: str) -> set[str]:
    return {name for name, _ in ASKED.findall(compose)}


def undocumented(known: set[str], example: str, compose: str) -> list[str]:
    named = set(EXAMPLE_LINE.findall(example))
    wanted = known | asked(compose) | {OWNER_DSN}
    missing = [f".env.example does not name {name}" for name in sorted(wanted - named)]
    return missing + [f"nothing reads {name} of .env.example" for name in sorted(named - wanted)]


def with_defaults(compose: str) -> list[str]:
    """What compose asks for and would do without; a secret with a default is a public secret."""
    return [f"{name} is not required" for name, rest in ASKED.findall(compose) if not rest.startswith(":?")]


def wrong_environment(service: dict[str, Any], known: set[Setting]) -> list[str]:
    given = {name for name in service["environment"] if name.startswith(PREFIX)}
    unknown = [f"{name} is no setting" for name in sorted(given - {each.name for each in known})]
    return unknown + [f"{name} is missing" for name in sorted({each.name for each in known if each.required} - given)]


def test_every_setting_is_in_the_example_and_nothing_else() -> None:
    known = all_settings(read(ROOT / "engine/settings.py"))
    assert {"MILLRACE_POSTGRES_DSN", "MILLRACE_ADMIN_KEY", "MILLRACE_READY_FILE"} <= known
    assert undocumented(known, _text(".env.example"), _text("docker-compose.yml")) == []


def test_compose_asks_and_never_guesses() -> None:
    assert with_defaults(_text("docker-compose.yml")) == []


@pytest.mark.parametrize(("process", "kind"), PROCESSES.items())
def test_each_process_is_given_its_settings(process: str, kind: str) -> None:
    services = yaml.safe_load(_text("docker-compose.yml"))["services"]
    assert wrong_environment(services[process], settings(read(ROOT / "engine/settings.py"), kind)) == []


def test_the_migrations_alone_are_the_owner() -> None:
    services = yaml.safe_load(_text("docker-compose.yml"))["services"]
    assert [name for name, each in services.items() if OWNER_DSN in each.get("environment", {})] == ["migrate"]
    assert OWNER_DSN in _text("infra/migrations/env.py")


def _text(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


SETTINGS = source(
    "engine/settings.py",
    "class Common:\n  dsn: str = Field(description='x')\n  size: int = Field(default=1)\n"
    "class ApiSettings(Common):\n  key: str\n  note: str | None = None\n",
)


def test_settings_are_read_with_those_they_inherit() -> None:
    found = {each.name: each.required for each in settings(SETTINGS, "ApiSettings")}
    assert found == {"MILLRACE_DSN": True, "MILLRACE_SIZE": False, "MILLRACE_KEY": True, "MILLRACE_NOTE": False}


def test_a_setting_without_example_and_an_example_without_setting_are_seen() -> None:
    example = f"MILLRACE_A=\n#MILLRACE_B=1\n{OWNER_DSN}=\nASKED=\n# A sentence with X=1 in it\n"
    assert undocumented({"MILLRACE_A", "MILLRACE_B"}, example, "${ASKED:?}") == []
    assert undocumented({"MILLRACE_A", "MILLRACE_C"}, example, "${ASKED:?}") == [
        ".env.example does not name MILLRACE_C",
        "nothing reads MILLRACE_B of .env.example",
    ]
    assert undocumented({"MILLRACE_A", "MILLRACE_B"}, example, "${ASKED:?} ${MORE:?}") != []


@pytest.mark.parametrize("text", ["${PASSWORD}", "${PASSWORD:-guess}", "${PASSWORD-guess}", "${PASSWORD?}"])
def test_a_default_in_compose_is_seen(text: str) -> None:
    assert with_defaults(text) == ["PASSWORD is not required"]


def test_a_wrong_environment_is_seen() -> None:
    known = {Setting("MILLRACE_A", required=True), Setting("MILLRACE_B", required=False)}
    assert wrong_environment({"environment": {"MILLRACE_A": "1", "OTHER": "2"}}, known) == []
    assert wrong_environment({"environment": {"MILLRACE_B": "1"}}, known) == ["MILLRACE_A is missing"]
    assert wrong_environment({"environment": {"MILLRACE_A": "", "MILLRACE_C": "1"}}, known) == [
        "MILLRACE_C is no setting"
    ]
