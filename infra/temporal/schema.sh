#!/bin/sh
# Makes and updates Temporal's two databases. Safe to repeat; run it before each newer server starts.
# SQL_PLUGIN, SQL_HOST, SQL_PORT, SQL_USER and SQL_PASSWORD tell it where.
set -eu
for part in temporal visibility; do
  database=temporal
  [ "$part" = temporal ] || database=temporal_$part
  temporal-sql-tool --db "$database" create
  temporal-sql-tool --db "$database" setup-schema -v 0.0
  temporal-sql-tool --db "$database" update-schema --schema-name "postgresql/v12/$part"
done
