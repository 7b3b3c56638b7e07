package state

// Severity orders problems; the worst one becomes the unit's status.
type Severity int

// The severities, in the words of Juju's statuses.
const (
	Active Severity = iota
	Waiting
	Maintenance
	Blocked
)

// String returns Juju's name of the status.
func (s Severity) String() string {
	return [...]string{"active", "waiting", "maintenance", "blocked"}[s]
}

// Problem is something that keeps the unit from being plainly active. It is not
// an error: it is either a matter of time, or its message names the cure.
type Problem struct {
	Severity Severity
	Message  string
	// Soon tells that it should be over within seconds, so that looking again in
	// this dispatch is better than waiting for the next event.
	Soon bool
}

// Status is the unit's status in Juju.
type Status struct {
	Severity Severity
	Message  string
}

// Status returns the worst problem, the first one of equals, or active.
func (d Desired) Status() Status {
	status := Status{Active, d.Message}
	for _, p := range d.Problems {
		if p.Severity > status.Severity {
			status = Status{p.Severity, p.Message}
		}
	}
	return status
}

// Soon tells whether a problem is worth another look within this dispatch.
func (d Desired) Soon() bool {
	for _, p := range d.Problems {
		if p.Soon {
			return true
		}
	}
	return false
}
