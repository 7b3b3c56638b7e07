package postgres

import (
	"fmt"
	"maps"
	"math/bits"
	"strings"

	"charmhub.io/postgresql-k8s/charm/config"
	"charmhub.io/postgresql-k8s/charm/state"
)

// page is the unit of shared_buffers and effective_cache_size, in bytes.
const page = 8192

// archiveCommand archives nothing yet. A promotion renames the last segment of the old
// timeline to *.partial, for the archive. A member that was away for two promotions
// within one segment needs the one of the timeline between them: it would never get it
// and wait for ever (CleanupAfterArchiveRecovery in
// https://github.com/postgres/postgres/blob/REL_17_STABLE/src/backend/access/transam/xlog.c).
// So it keeps its own name, too, and is never archived under that: the old primary's
// segment of that name may have other contents. Reload.
const archiveCommand = `case %f in *.partial) cd pg_wal && ` +
	`touch "archive_status/$(basename %f .partial).done" && ln -f %f "$(basename %f .partial)";; esac`

// Parameters are the settings of a member that Patroni takes from its own file.
// Each names where its manual is; all of
// https://www.postgresql.org/docs/17/runtime-config.html.
func Parameters(server state.Server, r state.Resources, cfg config.Values) map[string]string {
	p := map[string]string{
		// Connections and authentication (runtime-config-connection). Restart.
		"unix_socket_directories": "/var/run/postgresql",
		// Reload. Never anything weaker.
		"password_encryption": "scram-sha-256",
		// Write-ahead log (runtime-config-wal). archive_mode needs a restart, the
		// command does not: archiving can be turned on without one.
		"archive_mode":    "on",
		"archive_command": archiveCommand,
		// Replication (runtime-config-replication). ms. Whoever does not answer for
		// so long is gone: the lock that makes a primary would have run out, too.
		"wal_sender_timeout":   "20000",
		"wal_receiver_timeout": "20000",
		// ms. A replica looks for its primary again that often.
		"wal_retrieve_retry_interval": "1000",
		// Logging (runtime-config-logging), to the container's log, where
		// kubectl logs and Pebble's log forwarding find it. Reload.
		"log_destination":             "stderr",
		"logging_collector":           "off", // restart
		"log_checkpoints":             "on",
		"log_lock_waits":              "on",
		"log_autovacuum_min_duration": "60000", // ms
		"log_temp_files":              "1024",  // kB
		"log_line_prefix":             "%t [%p]: user=%u,db=%d,app=%a,client=%h,line=%l ",
		"log_timezone":                "UTC",
	}
	if len(server.Libraries) > 0 { // client connection defaults; restart
		p["shared_preload_libraries"] = strings.Join(server.Libraries, ",")
	}
	maps.Copy(p, memoryParameters(r, cfg))
	maps.Copy(p, volumeParameters(r.Volume))
	return p
}

// keptWAL is how much of a volume WAL may take that a member needs which is away, in MB:
// a quarter. The rounding keeps it the same on a volume that shares its room with
// others. It is 0 if the volume is not known.
func keptWAL(volume int64) int64 {
	mb := volume >> 20
	step := int64(1) << max(bits.Len64(uint64(mb))-3, 0)
	return mb / step * step / 4
}

// volumeParameters keep WAL from filling a volume (runtime-config-replication,
// runtime-config-wal): a full one stops the server. A replica that needs more is copied
// anew (patroni.py). Reload.
func volumeParameters(volume int64) map[string]string {
	kept := keptWAL(volume)
	if kept == 0 {
		return nil
	}
	return map[string]string{
		"max_slot_wal_keep_size": fmt.Sprintf("%dMB", kept),
		"max_wal_size":           fmt.Sprintf("%dMB", max(min(1024, kept), 32)), // two segments at least
	}
}

// memoryParameters gives a quarter of the memory to PostgreSQL's own cache and
// tells the planner that the rest is the kernel's (runtime-config-resource,
// runtime-config-query). shared_buffers needs a restart.
func memoryParameters(r state.Resources, cfg config.Values) map[string]string {
	memory := r.Memory
	if limit, ok := cfg.Int("profile_limit_memory"); ok && limit*1e6 < memory {
		memory = limit * 1e6
	}
	if cfg.String("profile") == "testing" || memory <= 0 {
		return nil
	}
	buffers := memory / 4
	return map[string]string{
		"shared_buffers":       fmt.Sprint(max(buffers/page, 16)), // 16 is the smallest allowed
		"effective_cache_size": fmt.Sprint(max((memory-buffers)/page, 1)),
	}
}

// SharedParameters are the settings that must be equal on all members, which
// Patroni takes from the cluster's configuration only. All need a restart, but
// for wal_keep_size. The volume's size is in bytes, 0 if it is not known.
func SharedParameters(cpus int, volume int64, cfg config.Values) map[string]any {
	connections := int64(max(4*cpus, 100))
	if n, ok := cfg.Int("experimental_max_connections"); ok {
		connections = n
	}
	keep := int64(4096) // MB
	if kept := keptWAL(volume); kept > 0 {
		keep = max(min(keep, kept), 16) // Patroni takes no less
	}
	return map[string]any{
		"max_connections":       connections,
		"max_worker_processes":  max(min(8, 2*cpus), 2),
		"max_wal_senders":       25,
		"max_replication_slots": 25,
		"wal_level":             "logical", // a client may ask for logical replication
		"wal_keep_size":         keep,
	}
}
