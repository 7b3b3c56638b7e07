#!/bin/bash
# Records the recorder charm's life on the current Juju controller:
#   record.sh RECORDER.charm IMAGE > life.log
# TestSameLifeAsOnJuju leads it through the same life in the local model.
set -eu
charm=$1 image=$2 model=recorder-$$
exec 3>&1 1>&2

juju add-model "$model" --no-switch
trap 'juju destroy-model "$model" --no-prompt --destroy-storage --force --no-wait' EXIT

# settled COUNT APP: so many units, all active and idle for a while.
settled() {
  local calm=0
  for _ in $(seq 120); do
    if juju status -m "$model" "$2" --format=json | grep -o '"juju-status":{"current":"[a-z]*"' | sort | uniq -c |
      grep -q "^ *$1 .*idle"; then calm=$((calm + 1)); else calm=0; fi
    [ $calm -lt 8 ] || return 0
    sleep 1
  done
  return 1
}

juju deploy -m "$model" "$charm" recorder --resource image="$image"
settled 1 recorder
juju config -m "$model" recorder word=zwei
settled 1 recorder
juju add-unit -m "$model" recorder
settled 2 recorder
juju run -m "$model" recorder/0 greet who=you
juju deploy -m "$model" "$charm" other --resource image="$image"
settled 1 other
juju integrate -m "$model" recorder:out other:in
settled 2 recorder && settled 1 other
juju remove-relation -m "$model" recorder:out other:in
settled 2 recorder && settled 1 other
juju remove-unit -m "$model" recorder --num-units 1
settled 1 recorder
juju remove-application -m "$model" --no-prompt other
sleep 30
juju debug-log -m "$model" --replay --no-tail | grep RECORD >&3
