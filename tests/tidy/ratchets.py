"""What the tidy rules still let pass, file by file: lists that may only shrink.

A file that has mended itself fails its test until its entry is struck out, or its number set lower. So nobody spoils it
again.
"""

IMPORTS = {
    "activities/internal.py": 17,
    "activities/invoice.py": 22,
    "activities/janitor.py": 21,
    "activities/payment.py": 23,
    "activities/pump.py": 18,
    "activities/reconciliation/reconciliation.py": 24,
    "activities/sending.py": 22,
    "api/admin/account_status.py": 19,
    "api/admin/correction.py": 21,
    "api/admin/forced_end.py": 23,
    "api/admin/ledger.py": 18,
    "api/admin/reconciliation.py": 24,
    "api/app.py": 30,
    "api/public/tip.py": 26,
    "api/service/batch_run.py": 16,
    "api/service/correction_run.py": 16,
    "api/service/destination.py": 17,
    "api/service/payment_answer.py": 21,
    "api/service/payment_run.py": 23,
    "api/service/quote_run.py": 21,
    "api/service/two_operators.py": 19,
    "api/system/metrics.py": 16,
    "api/user/account.py": 23,
    "api/user/batch.py": 24,
    "api/user/fees.py": 16,
    "api/user/invoice.py": 23,
    "api/user/limits.py": 20,
    "api/user/payment.py": 26,
    "api/user/quote.py": 23,
    "api/user/statement.py": 16,
    "api/user/wallet.py": 17,
    "api/user/withdraw_link.py": 36,
    "engine/bank/accounts.py": 17,
    "engine/clients/lnd/client.py": 26,
    "engine/telemetry.py": 16,
    "infra/bench/books.py": 17,
    "infra/bench/flow.py": 21,
    "infra/bench/lightning.py": 18,
    "infra/bench/main.py": 24,
    "infra/bench/payee.py": 21,
    "infra/bench/standing.py": 16,
    "infra/bench/workers.py": 17,
    "infra/local/demo.py": 19,
    "infra/local/outside.py": 19,
    "worker.py": 45,
}
"""Modules with more imports than the limit, and how many."""

WEB_IN_SERVICE = {
    "api/service/payment_answer.py": 1,
}
"""Modules of the service that import FastAPI or Starlette, and how often."""

SQL_OUTSIDE = {
    "activities/correction.py": 1,
    "api/admin/audit.py": 1,
    "api/admin/correction.py": 4,
    "api/admin/forced_end.py": 1,
    "api/admin/reconciliation.py": 3,
    "api/http/paging.py": 1,
    "api/service/destination.py": 5,
    "api/service/invoice_row.py": 2,
    "api/service/payee.py": 1,
    "api/service/payment_answer.py": 2,
    "api/service/quote_run.py": 1,
    "api/system/health.py": 1,
    "api/user/invoice.py": 5,
    "api/user/payment.py": 2,
    "api/user/wallet.py": 4,
}
"""Modules with SQL outside its rooms, and how many statements."""
