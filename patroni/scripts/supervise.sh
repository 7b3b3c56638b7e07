#!/bin/bash
# Pebble runs this as the service: Patroni, started again whenever it ends.
#
# Pebble could do that by itself, but when Patroni alone is killed the server that
# it leaves running holds the pipe of its output, and Pebble waits for the end of
# that for most of the kill-delay: minutes in which the lock runs out. Patroni
# finds the server again. The argument is Patroni's configuration.

trap 'stopping=yes; kill -TERM "$patroni" 2>/dev/null' TERM INT
# The charm has Patroni load its file by this, when its interface has a new password.
trap 'kill -HUP "$patroni" 2>/dev/null' HUP
# Half a copy of a rewind.py that was killed, or the data that a whole one replaced.
data=/var/lib/postgresql/data
flock --nonblock "$data" rm -rf "$data/pgdata.clone" &
while [ -z "$stopping" ]; do
  python3 "$data/patroni.py" "$1" & # a volume may forbid to execute files
  patroni=$!
  while kill -0 "$patroni" 2>/dev/null; do # a signal ends the wait before Patroni ends
    wait "$patroni"
  done
  [ -n "$stopping" ] || sleep 1
done
