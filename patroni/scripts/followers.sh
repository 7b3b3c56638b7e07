#!/bin/bash
# Pebble runs this on the primary, as a check: it fails when other replicas follow
# than those that the charm has last seen. That wakes the charm, which then tells
# clients who does. Arguments: where psql is, the name of the application, and the
# names of those replicas with commas between, sorted.

now=$("$1/psql" -XAtq -h /var/run/postgresql -U backup -d postgres -v app="$2" <<<"
  SELECT string_agg(DISTINCT application_name, ',' ORDER BY application_name) FROM pg_stat_replication
  WHERE state = 'streaming' AND application_name ~ ('^' || :'app' || '-[0-9]+\$')")
[ "$now" = "$3" ]
