package patroni

import (
	"charmhub.io/postgresql-k8s/charm/state"
)

// Dynamic is what we decide of the configuration that all members share, with
// the PostgreSQL settings that must be equal on them
// (https://patroni.readthedocs.io/en/latest/dynamic_configuration.html). Patroni
// applies it within loop_wait, without a restart but where a setting says so.
func Dynamic(shared map[string]any, synchronous state.Known[state.Synchronous]) map[string]any {
	config := map[string]any{
		// Seconds. A dead primary's lock runs out after ttl, of which Patroni wants at
		// least 20 and loop_wait + 2 * retry_timeout: a member renews it every
		// loop_wait and rides out retry_timeout of silence of the API, twice. A short
		// loop_wait shortens what comes on top: the last renewal of a primary that is
		// heard but hears nothing, and the look of the others at the lock. Replicas
		// that follow anew are known to have every commit that much sooner, too. It
		// costs the API one small write for each member and loop.
		"ttl":           20,
		"loop_wait":     2,
		"retry_timeout": 5,
		// A crashed server fails over at once instead of being waited for: the
		// other member is up to date and recovery can take minutes.
		"primary_start_timeout": 0,
		// When the API server is away the primary goes on as long as it reaches
		// every other member.
		"failsafe_mode":         true,
		"max_timelines_history": 50,
		// Bytes: no limit. Who may be promoted has every confirmed commit; one that lacks
		// more than this of what nobody has confirmed, of a large load for instance, would
		// never be.
		"maximum_lag_on_failover": 1 << 50,
		// Seconds. The slot of a member that is away keeps the write-ahead log for
		// it; one that was removed must not fill the volume for long.
		"member_slots_ttl": 600,
		"postgresql": map[string]any{
			"use_pg_rewind": true,
			"use_slots":     true,
			// What cannot be rewound is kept until a person decides.
			"remove_data_directory_on_rewind_failure":     false,
			"remove_data_directory_on_diverged_timelines": false,
			"parameters": shared,
		},
	}
	if s, known := synchronous.Get(); known {
		setSynchronous(config, s)
	}
	return config
}

// setSynchronous sets the keys that say how commits are confirmed. A count of
// nought is not allowed: without a replica there is nobody to count.
func setSynchronous(config map[string]any, s state.Synchronous) {
	config["synchronous_mode"] = true
	if s.Quorum {
		config["synchronous_mode"] = "quorum"
	}
	config["synchronous_node_count"] = max(s.Count, 1)
	config["synchronous_mode_strict"] = s.Strict
}
