package localmodel

import (
	"slices"
	"sync"
	"time"
)

// A Clock is the time of a model: that of its waits, of update-status, and of
// secrets that rotate or expire. Logs and the age of statuses are in real time.
type Clock interface {
	Now() time.Time
	// After sends the time when so much of it has passed.
	After(time.Duration) <-chan time.Time
}

// realTime is this machine's clock.
type realTime struct{}

// Now implements Clock.
func (realTime) Now() time.Time { return time.Now() }

// After implements Clock.
func (realTime) After(wait time.Duration) <-chan time.Time { return time.After(wait) }

// A ManualClock is driven by a test: it stands still but for Advance.
type ManualClock struct {
	mu    sync.Mutex
	now   time.Time
	waits []wait
}

// wait is somebody who waits for a time.
type wait struct {
	until time.Time
	over  chan time.Time
}

// NewManualClock returns a clock that shows the machine's time.
func NewManualClock() *ManualClock { return &ManualClock{now: time.Now()} }

// Now implements Clock.
func (c *ManualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// After implements Clock.
func (c *ManualClock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := wait{c.now.Add(d), make(chan time.Time, 1)}
	c.waits = append(c.waits, w)
	c.fire()
	return w.over
}

// Advance lets time pass. Whoever waited for it goes on by itself.
func (c *ManualClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	c.fire()
}

func (c *ManualClock) fire() {
	c.waits = slices.DeleteFunc(c.waits, func(w wait) bool {
		if w.until.After(c.now) {
			return false
		}
		w.over <- c.now
		return true
	})
}

// now is the model's time.
func (m *Model) now() time.Time { return m.opts.Clock.Now() }

// since is how much of the model's time has passed.
func (m *Model) since(t time.Time) time.Duration { return m.now().Sub(t) }

// after is a channel that gets the time when so much of it has passed.
func (m *Model) after(wait time.Duration) <-chan time.Time { return m.opts.Clock.After(wait) }
