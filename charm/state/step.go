package state

import (
	"errors"
	"time"
)

// ErrUnconfirmed is the error of a step that is done on the primary, but that no
// replica has confirmed in time. It would be lost with the primary.
var ErrUnconfirmed = errors.New("no replica has confirmed the commit in time")

// Step is one change, as data. Its text goes to the log and never shows a
// secret.
type Step interface{ String() string }

// Look is a step that only reads: it leads to another pass, but changes nothing.
type Look interface {
	Step
	Looks()
}

// Slow is a step whose effect shows a little later than it was made, within the
// time that it names. A dispatch waits that long before it calls itself done.
type Slow interface {
	Step
	Settles() time.Duration
}

// Asked is a step that somebody has asked for and waits for: its failure, or that
// of a step before it, is the answer.
type Asked interface {
	Step
	Asked()
}
