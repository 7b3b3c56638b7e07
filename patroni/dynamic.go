package patroni

// Dynamic is what we decide of the configuration that all members share, with
// the PostgreSQL settings that must be equal on them
// (https://patroni.readthedocs.io/en/latest/dynamic_configuration.html). Patroni
// applies it within loop_wait, without a restart but where a setting says so.
func Dynamic(shared map[string]any) map[string]any {
	return map[string]any{
		// Seconds. A dead primary's lock runs out after ttl; a member renews it
		// every loop_wait and rides out retry_timeout of silence of the API, twice.
		// So ttl must be at least loop_wait + 2 * retry_timeout; a little more
		// keeps one slow answer from costing a failover.
		"ttl":           20,
		"loop_wait":     5,
		"retry_timeout": 5,
		// A crashed server fails over at once instead of being waited for: the
		// other member is up to date and recovery can take minutes.
		"primary_start_timeout": 0,
		// When the API server is away the primary goes on as long as it reaches
		// every other member.
		"failsafe_mode": true,
		// A commit returns when a replica has it, if there is a replica.
		"synchronous_mode":      true,
		"max_timelines_history": 50,
		"postgresql": map[string]any{
			"use_pg_rewind": true,
			"use_slots":     true,
			// What cannot be rewound is kept until a person decides.
			"remove_data_directory_on_rewind_failure":     false,
			"remove_data_directory_on_diverged_timelines": false,
			"parameters": shared,
		},
	}
}
