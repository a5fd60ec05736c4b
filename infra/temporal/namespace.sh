#!/bin/sh
# Makes the namespace and waits until it answers. Safe to repeat; the worker makes what stands inside. TEMPORAL_ADDRESS
# tells it where. Retention is how long the UI shows a finished run: the books keep it for ever.
set -eu
namespace=millrace
temporal operator namespace describe --namespace "$namespace" >/dev/null 2>&1 ||
  temporal operator namespace create --namespace "$namespace" --retention 30d
# A new namespace is known to every part of the server only some seconds later.
attempt=0
until temporal workflow list --namespace "$namespace" --limit 1 >/dev/null; do
  attempt=$((attempt + 1))
  [ "$attempt" -lt 30 ] || exit 1
  sleep 1
done
