#!/bin/sh
# Makes the namespace and the search attributes that workflows set (engine/contracts/queues.py). Safe to repeat.
# TEMPORAL_ADDRESS tells it where. Retention is how long the UI shows a finished run: the books keep it for ever.
set -eu
namespace=millrace
temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "$namespace" --retention 30d
# A namespace is known to every part of the server only some seconds later: the second command waits for it.
attempt=0
until temporal operator search-attribute create --namespace "$namespace" \
  --name MillraceStatus --type Keyword \
  --name MillraceKind --type Keyword \
  --name AccountId --type Keyword \
  --name PaymentHash --type Keyword \
  --name AmountSat --type Int \
  --name NeedsOperator --type Bool; do
  attempt=$((attempt + 1))
  [ "$attempt" -lt 30 ] || exit 1
  sleep 1
done
