#!/bin/bash
# Pebble runs this every few seconds, as a check. If Patroni is there but has not
# answered twice in a row, it is frozen, and with it the lock that lets
# PostgreSQL take writes. It is killed before the lock runs out: supervise.sh
# starts it again, and it finds the server that it left running. What is merely slow
# to start refuses connections, which is not our business.

silent=/tmp/patroni-is-silent # a character for each time
data=/var/lib/postgresql/data/pgdata

# The check must be over in 2.9 s, however busy the node is: both are asked at a time.
if [ -e "$silent" ]; then
  "/usr/lib/postgresql/$(cat "$data/PG_VERSION")/bin/pg_isready" -q -h /var/run/postgresql -t 1 &
fi
# shellcheck disable=SC2016 # bash -c expands it
timeout 1.5 bash -c 'exec 3<>/dev/tcp/localhost/8008 || exit 0
  printf "GET /liveness HTTP/1.0\r\n\r\n" >&3 && read -r answer <&3 && [ -n "$answer" ] && cat <&3 >/dev/null' 2>/dev/null
if [ $? != 124 ]; then
  rm -f "$silent"
  exit 0
fi
printf x >>"$silent"
[ "$(wc -c <"$silent")" -ge 2 ] || exit 0

# A server that is frozen, too, would keep its role: the next Patroni would renew the
# lock for it. Killed it has crashed, and another member takes over. It is the first
# to be killed: if the check is ended in between, Patroni is still silent at the next.
wait "$!"
if [ $? = 2 ] && postmaster=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) &&
  [ "$(cat "/proc/$postmaster/comm" 2>/dev/null)" = postgres ]; then # the file may be a left-over
  echo "PostgreSQL is frozen, too: killing process $postmaster" >&2
  # shellcheck disable=SC2046 # a word for each child (proc(5))
  kill -KILL "$postmaster" $(cat "/proc/$postmaster/task/$postmaster/children")
fi
for cmdline in $(grep -lsa 'patroni[.]py' /proc/[0-9]*/cmdline); do
  process=${cmdline//[!0-9]/}
  echo "Patroni is frozen: killing process $process" >&2
  kill -KILL "$process"
done
rm -f "$silent"
exit 1
