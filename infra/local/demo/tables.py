"""What the demo prints at its end: the steps, a statement, a batch with its shares, the wallets and the proof."""

from rich.console import Console
from rich.table import Table

from infra.local.demo.parts import Json, Line, Story, sat
from infra.local.demo.withdrawals import Batch
from infra.local.proof import Proof
from infra.local.stack import Stack


def show_tables(
    story: Story, wallets: list[tuple[str, Json]], statement: Json | None, batch: Batch | None, proof: Proof
) -> None:
    """All of it; what the story did not get to is left out."""
    story.console.print(
        _steps(story.lines),
        *([_statement(statement)] if statement else []),
        *([_shares(batch)] if batch else []),
        _people(wallets),
        _proof(proof),
    )


def show_links(console: Console, stack: Stack) -> None:
    """Where to look, and what to try next."""
    told = stack.environment()
    metrics = "millrace_reconciliation_status, _difference_msat, millrace_cases_open"
    lines = [
        f"API docs      {told['MILLRACE_API_URL']}/docs",
        f"Temporal UI   {told['MILLRACE_TEMPORAL_UI_URL']}",
        f"Metrics       {told['MILLRACE_API_URL']}/metrics: {metrics}",
        'Try next      the tour in README.md, after: eval "$(./run env)"',
    ]
    for line in lines:
        console.print(line, highlight=False)


def _steps(lines: list[Line]) -> Table:
    table = Table("", "step", "what moved", "where it stands", "took", title="What happened")
    for line in lines:
        mark = "[green]✓[/]" if line.holds else "[red]✗[/]"
        table.add_row(mark, line.step, line.moved, line.stands, f"{line.took_s:.1f} s")
    table.columns[4].justify = "right"
    return table


def _statement(statement: Json) -> Table:
    """The statement as its owner reads it: money in is positive."""
    table = Table("movement", "amount, msat", "fee in it", "balance", "with or why", title="Alice's statement")
    table.add_row("opening", "", "", f"{statement['opening_msat']:,}", statement["from"])
    for movement in statement["movements"]:
        figures = (f"{movement[name]:,}" for name in ("amount_msat", "fee_msat", "balance_msat"))
        table.add_row(movement["kind"], *figures, movement["counterparty"] or movement["memo"])
    table.add_row("closing", "", "", f"{statement['closing_msat']:,}", statement["to"])
    for column in table.columns[1:4]:
        column.justify = "right"
    return table


def _shares(batch: Batch) -> Table:
    """Who pays which part of the miner fee, and that it is the fee which bitcoind shows."""
    table = Table("", "output", "paid", "share of the fee", title="The batch, and the exact shares of its miner fee")
    for member in batch.members:
        kind = batch.kinds[member["address"]]
        share = f"{member['miner_fee_sat']:,} sat"
        table.add_row(str(member["place"] + 1), kind, f"{member['paid_sat']:,} sat", share)
    shares_sat = sum(member["miner_fee_sat"] for member in batch.members)
    table.add_section()
    paid_sat = sum(member["paid_sat"] for member in batch.members)
    table.add_row("", "all shares", f"{paid_sat:,} sat", f"{shares_sat:,} sat")
    if batch.fee_sat != shares_sat:
        table.add_row("", "what the bank adds", "", f"{batch.fee_sat - shares_sat:,} sat")
    table.add_row("", "the fee, by bitcoind", "", f"{batch.fee_sat:,} sat")
    table.add_row("", "the fee after the bump, by bitcoind", "", f"{batch.bumped_sat:,} sat")
    table.add_row("", "of it, the bank pays", "", f"{batch.bumped_sat - shares_sat:,} sat")
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def _people(wallets: list[tuple[str, Json]]) -> Table:
    table = Table("wallet", "available", "held", title="What the users have")
    for name, wallet in wallets:
        table.add_row(f"@{name}", sat(wallet["available_msat"]), sat(wallet["held_msat"]))
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _proof(proof: Proof) -> Table:
    table = Table("account", "books, msat", "node, msat", "books − node", title="The proof")
    for account in proof.accounts:
        difference = f"[{'red' if account.difference_msat else 'green'}]{account.difference_msat:,}[/]"
        table.add_row(account.account, f"{account.books_msat:,}", f"{account.node_msat:,}", difference)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
