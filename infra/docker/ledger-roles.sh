#!/bin/bash
# Runs once, when the ledger's database is made. The owner changes the schema and is no superuser, so that the triggers
# which keep the books append-only bind it too; the engine's own role may only post and read.
set -euo pipefail
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set owner_password="$LEDGER_OWNER_PASSWORD" --set app_password="$LEDGER_APP_PASSWORD" <<'SQL'
CREATE ROLE millrace_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE millrace_app LOGIN PASSWORD :'app_password';
CREATE DATABASE millrace OWNER millrace_owner;
REVOKE ALL ON DATABASE millrace FROM PUBLIC;
GRANT CONNECT ON DATABASE millrace TO millrace_app;
SQL
