#!/bin/bash
# Pebble runs this every second, as a check: it fails once when the member's role has
# changed, and that wakes the charm. It looks some times in each run: clients of a
# primary that is gone wait for it. A check by HTTP of Pebble's own would fail, and be
# logged, for as long as a member is a replica. What does not answer says nothing:
# watch.sh sees to it. It runs all the time, so no look starts a process.

file=/tmp/role
trap '' PIPE
exec 4<> <(:) # has nothing to read: bash has no sleep of its own

# look sets role to what Patroni answers to whether this member has the lock.
look() {
  role=none
  { exec 3<>/dev/tcp/localhost/8008; } 2>/dev/null || return
  role=
  printf 'GET /primary HTTP/1.0\r\n\r\n' >&3
  read -rt 0.2 -u 3 _ role _ || exit 0
  while read -rt 0.2 -u 3 _; do :; done # Patroni logs who hangs up before the end
  exec 3>&-
}

{ read -r known <"$file"; } 2>/dev/null
for wait in 0.3 0.3 0; do
  look
  if [ -n "$role" ] && [ "$role" != "$known" ]; then
    echo "$role" >"$file"
    exit 1
  fi
  read -rt "$wait" -u 4
done
exit 0
