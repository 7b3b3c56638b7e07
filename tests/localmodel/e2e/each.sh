#!/bin/bash
# Runs the tests of this package, two at a time: most of them wait for something, as for
# a lock to run out. Each has a process and a model of its own.
#   tests/localmodel/e2e/each.sh [REGEXP]   those of that name
set -euo pipefail
cd "$(dirname "$0")"
export BINARY=../../../dist/e2e.test
go test -c -tags localmodel -o "$BINARY" .

one() {
  local output start=$SECONDS
  export LOCALMODEL_DIR=/var/lib/postgresql-k8s-localmodel/test-$SLOT
  if output=$("$BINARY" -test.run "^$1\$" -test.timeout 120m 2>&1); then
    echo "ok   $1 ($((SECONDS - start)) s)"
  else
    printf '%s\nFAIL %s (%d s)\n' "$output" "$1" "$((SECONDS - start))"
    exit 1
  fi
}
export -f one

"$BINARY" -test.list "${1:-.}" | grep ^Test | xargs -n 1 -P 2 --process-slot-var=SLOT bash -c 'one "$0"'
