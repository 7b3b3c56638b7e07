#!/bin/bash
# Patroni runs this on a replica that holds the leader's lock, before it promotes
# it (pre_promote, https://patroni.readthedocs.io/en/latest/yaml_configuration.html).
#
# A quorum commit needs any K of the N other members. An old primary that is cut
# off or frozen, but still reached by some of them, could go on confirming commits
# that this member will never see. So it waits here until so many of the others
# follow this member, and have nothing that it lacks, that the old primary cannot
# find K any more: N - K of them. That takes a few tenths of a second, as they
# follow whoever holds the lock. Without a quorum there is nothing to wait for:
# then the old primary needs this very member.
#
# Exits 1 after a while: Patroni gives the lock back, and another member may try,
# the one that is ahead, for instance. The argument is where psql is.

sql="
WITH wanted AS (
  SELECT regexp_match(current_setting('synchronous_standby_names'), '^ANY (\d+) \((.*)\)\$') AS m
), others AS (
  SELECT m[1]::int AS k, btrim(name, ' \"') AS name FROM wanted, string_to_table(m[2], ',') AS name
)
SELECT count(*) = 0 OR count(r.application_name) >= count(*) - min(k)
FROM others LEFT JOIN (
  SELECT DISTINCT application_name FROM pg_stat_replication
  WHERE state = 'streaming'
    AND greatest(flush_lsn, replay_lsn) <= greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
) r ON lower(r.application_name) = lower(others.name)"

for ((end = SECONDS + 20; SECONDS < end; )); do
  answer=$("$1/psql" -XAtq -h /var/run/postgresql -U backup -d postgres -c "$sql" 2>&1)
  case $answer in
    # The charm makes this role before it lets any client in.
    t | *'role "backup" does not exist'*) exit 0 ;;
  esac
  sleep 0.1
done
echo "$answer" >&2
echo "too few members follow this one: it is not promoted" >&2
exit 1
