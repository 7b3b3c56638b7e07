#!/bin/bash
# Pebble runs this every few seconds, as a check. If Patroni is there but has not
# answered twice in a row, it is frozen, and with it the lock that lets
# PostgreSQL take writes. It is killed before the lock runs out: supervise.sh
# starts it again, and it finds the server that it left running. What is merely slow
# to start refuses connections, which is not our business.

silent=/tmp/patroni-is-silent # a character for each time

# shellcheck disable=SC2016 # bash -c expands it
timeout 1.7 bash -c 'exec 3<>/dev/tcp/localhost/8008 || exit 0
  printf "GET /liveness HTTP/1.0\r\n\r\n" >&3 && read -r answer <&3 && [ -n "$answer" ]' 2>/dev/null
if [ $? != 124 ]; then
  rm -f "$silent"
  exit 0
fi
printf x >>"$silent"
[ "$(wc -c <"$silent")" -ge 2 ] || exit 0
rm -f "$silent"

# A server that is frozen, too, would keep its role: Patroni would renew the lock
# for it. Killed it has crashed, and another member takes over.
data=/var/lib/postgresql/data/pgdata
"/usr/lib/postgresql/$(cat "$data/PG_VERSION")/bin/pg_isready" -q -h /var/run/postgresql -t 1
if [ $? = 2 ] && postmaster=$(head -n 1 "$data/postmaster.pid" 2>/dev/null) &&
  [ "$(cat "/proc/$postmaster/comm" 2>/dev/null)" = postgres ]; then # the file may be a left-over
  echo "PostgreSQL is frozen, too: killing process $postmaster" >&2
  for process in /proc/[0-9]*; do
    # After the name, which may have blanks, come the state and the parent (proc(5)).
    stat=$(cat "$process/stat" 2>/dev/null) && [ "$(cut -d' ' -f2 <<<"${stat##*) }")" = "$postmaster" ] &&
      kill -KILL "${process#/proc/}"
  done
  kill -KILL "$postmaster"
fi
for process in /proc/[0-9]*; do
  if tr '\0' ' ' <"$process/cmdline" 2>/dev/null | grep -q '/patroni.py /.*/patroni.yml'; then
    echo "Patroni is frozen: killing process ${process#/proc/}" >&2
    kill -KILL "${process#/proc/}"
  fi
done
exit 1
