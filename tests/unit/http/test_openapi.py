"""The OpenAPI document: every reference leads somewhere, every example is right, and names stay what they are."""

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openapi_spec_validator
import pytest
from jsonschema import Draft202012Validator

from api.app import create_app
from tests.helpers.api import settings_for

pytestmark = pytest.mark.unit

Json = dict[str, Any]

OPERATIONS = """
approve_correction approve_decision approve_deposit_decision approve_withdrawal_decision cancel_invoice
cancel_withdrawal change_account claim_lnurl_withdrawal decide_payout decide_withdrawal decode_destination
delete_withdraw_link draw_address export_ledger flush_batcher give_account_balance give_statement give_trial_balance
healthz list_addresses list_all_deposits list_all_withdrawals list_api_keys list_audit list_batchers list_cases
list_corrections list_decisions list_deposit_decisions list_deposits list_invoices list_own_wallets list_payments
list_payouts list_reconciliations list_transactions list_withdraw_links list_withdrawal_decisions list_withdrawals
make_address make_api_key make_batch make_invoice make_lnurl_invoice make_payment make_withdraw_link make_withdrawal
open_account preview_fee propose_correction propose_decision propose_deposit_decision quote_payment quote_withdrawal
readyz reject_correction reject_decision reject_deposit_decision reject_withdrawal_decision rescan_chain resolve_case
revoke_api_key search_accounts search_chain set_deposit_rules set_fees set_limit_rules set_price set_withdrawal_rules
show_account show_address show_any_withdrawal show_batch show_case show_chain show_correction show_decision
show_deposit show_deposit_decision show_deposit_rules show_fees show_fees_version show_invoice show_limit_rules
show_limits show_lnurl_offer show_lnurl_withdrawal show_own_account show_payment show_payout show_reconciliation
show_wallet show_withdraw_link show_withdrawal show_withdrawal_decision show_withdrawal_rules start_reconciliation
tell_transfer verify_lnurl_invoice
"""
"""Apps call methods of these names: none of them changes or goes without a major version."""


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Json:
    folder: Path = tmp_path_factory.mktemp("openapi")
    app = create_app(settings_for("postgresql://nobody@127.0.0.1:1/none", folder))
    return app.openapi()


def walk(node: Any, place: str = "#") -> Iterator[tuple[str, Json]]:
    """Every object of the document, with its place."""
    if isinstance(node, dict):
        yield place, node
    below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, inner in below:
        yield from walk(inner, f"{place}/{name}")


def dead_references(document: Json) -> list[str]:
    there = {place for place, _node in walk(document)}
    named = {node["$ref"] for _place, node in walk(document) if isinstance(node.get("$ref"), str)}
    return sorted(named - there)


def operations(document: Json) -> Iterator[tuple[str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield f"{method.upper()} {path}", operation


def wrong_examples(document: Json) -> list[str]:
    """Where an example is not what its schema says."""

    def fits(schema: Json, value: Any) -> bool:
        return bool(Draft202012Validator({**schema, "components": document["components"]}).is_valid(value))

    wrong = []
    for place, node in walk(document):
        if isinstance(node.get("examples"), list):  # of a schema
            rule = {name: value for name, value in node.items() if name != "examples"}
            wrong += [f"{place}: {value}" for value in node["examples"] if not fits(rule, value)]
        if isinstance(node.get("examples"), dict) and "schema" in node:  # of a body
            named = node["examples"].items()
            wrong += [f"{place} {name}" for name, each in named if not fits(node["schema"], each["value"])]
        if "example" in node and "schema" in node and not fits(node["schema"], node["example"]):
            wrong.append(f"{place}: {node['example']}")
    return wrong


def test_the_document_is_valid(document: Json) -> None:
    openapi_spec_validator.validate(document)


def test_every_reference_leads_somewhere(document: Json) -> None:
    assert dead_references(document) == []
    assert sum("$ref" in node for _place, node in walk(document)) > 100


def test_every_body_has_a_model_of_its_own(document: Json) -> None:
    bodies = {name: each["requestBody"] for name, each in operations(document) if "requestBody" in each}
    assert len(bodies) > 15
    for name, body in bodies.items():
        assert set(body["content"]["application/json"]["schema"]) == {"$ref"}, name


def test_every_answer_to_a_body_and_to_a_key_is_described(document: Json) -> None:
    for name, operation in operations(document):
        if " /v1/" in name:
            always = {"401", "429", "500", "503"} | ({"400", "413", "422"} if "requestBody" in operation else set())
            assert always <= set(operation["responses"]), name


def test_every_example_is_right(document: Json) -> None:
    assert wrong_examples(document) == []


def test_names_are_short_and_stay(document: Json) -> None:
    ids = [operation["operationId"] for _name, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == OPERATIONS.split()
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", each) for each in ids)
    assert [name for name in document["components"]["schemas"] if "__" in name] == []


def test_the_checks_see_what_is_wrong(document: Json) -> None:
    bad = copy.deepcopy(document)
    body = bad["paths"]["/v1/payments"]["post"]["requestBody"]["content"]["application/json"]
    body["schema"] = {"$ref": "#/$defs/SpendLimit"}
    assert dead_references(bad) == ["#/$defs/SpendLimit"]
    bad = copy.deepcopy(document)
    body = bad["paths"]["/v1/payments"]["post"]["requestBody"]["content"]["application/json"]
    next(iter(body["examples"].values()))["value"]["amount_msat"] = -1
    assert len(wrong_examples(bad)) == 1
    bad["components"]["schemas"]["WalletOut"]["properties"]["available_msat"]["examples"] = ["x"]
    assert len(wrong_examples(bad)) == 2
