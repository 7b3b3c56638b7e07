#!/bin/bash
# Pebble runs this on the primary, as a check: it fails when other replicas follow
# than those that the charm has last seen. That wakes the charm, which then tells
# clients who does. Arguments: where psql is, the name of the application, and the
# names of those replicas with commas between, sorted.
#
# A copy ends at the end of a segment. Until the primary writes again, which an idle
# one may not do for hours, a new replica takes it for being behind, and waits. So it
# writes a message while one waits, or is away and may be about to begin.
#
# A slot whose replica was away for too long is lost: it keeps no WAL any more, and later
# versions let nobody stream from it. Patroni leaves it as it is, so it is made anew.

now=$("$1/psql" -XAtq -h /var/run/postgresql -U backup -d postgres -v app="$2" <<<"
  SELECT string_agg(DISTINCT application_name, ',' ORDER BY application_name) FROM pg_stat_replication
  WHERE state = 'streaming' AND application_name ~ ('^' || :'app' || '-[0-9]+\$');
  SET synchronous_commit = local;
  SELECT pg_logical_emit_message(true, 'postgresql-k8s', 'wake') WHERE EXISTS (
    SELECT FROM pg_stat_replication
    WHERE state = 'startup' AND application_name ~ ('^' || :'app' || '-[0-9]+\$')
  ) OR EXISTS (
    SELECT FROM pg_replication_slots
    WHERE NOT active AND slot_name ~ ('^' || translate(:'app', '-', '_') || '_[0-9]+\$')
  ) \g /dev/null
  WITH lost AS MATERIALIZED (
    SELECT slot_name, pg_drop_replication_slot(slot_name) FROM pg_replication_slots
    WHERE wal_status = 'lost' AND NOT active AND slot_type = 'physical'
      AND slot_name ~ ('^' || translate(:'app', '-', '_') || '_[0-9]+\$')
  ) SELECT pg_create_physical_replication_slot(slot_name, true) FROM lost \g /dev/null")
[ "$now" = "$3" ]
