#!/bin/bash
# Pebble runs this every second, as a check: it fails once when the member's role has
# changed, and that wakes the charm. It looks some times in each run: clients of a
# primary that is gone wait for it. A check by HTTP of Pebble's own would fail, and be
# logged, for as long as a member is a replica. What does not answer says nothing:
# watch.sh sees to it.

known=/tmp/role
exec 4<> <(:) # has nothing to read: bash has no sleep of its own

# look prints what Patroni says to whether this member has the lock, or nothing.
look() {
  exec 3<>/dev/tcp/localhost/8008 || { echo none; return; }
  printf 'GET /primary HTTP/1.0\r\n\r\n' >&3
  read -rt 0.2 -u 3 _ answer _ && echo "$answer"
  while read -rt 0.2 -u 3 _; do :; done # Patroni logs who hangs up before the end
} 2>/dev/null

for wait in 0.3 0.3 0; do
  role=$(look)
  if [ -n "$role" ] && [ "$role" != "$(cat "$known" 2>/dev/null)" ]; then
    echo "$role" >"$known"
    exit 1
  fi
  read -rt "$wait" -u 4
done
exit 0
