// Package charm is the loop of the house. Every dispatch observes the world,
// asks each handler what it wants, applies the differences until there are none,
// and Juju commits what was published only if all of it succeeded.
//
//	Juju agent ── exec ./dispatch (main.go); the event is only a hint
//	     │
//	     ▼           ┌────────── passes inside the dispatch's time budget ─────────┐
//	parse event ──► OBSERVE ──► DESIRE ──► DIFF ──► APPLY ──► any step? "soon"? ───┤ yes: again
//	(facts only)    I/O         pure       pure     I/O                            │
//	                systems     handlers   systems  workload first, Juju last      │
//	                                                                               ▼ no
//	                                       STATUS (pure: the worst problem) ──► exit 0, Juju commits
//	                                                                            exit ≠ 0, Juju discards and retries
//
// # Rules
//
//   - Deletion is a wish, not an omission. Who wishes nothing drops nothing.
//   - Unknown is not empty: a diff against an unknown gives no steps.
//   - Commit before use: a password that this dispatch made or replaced is put to
//     use only when Juju has it, in a later dispatch. Then whoever can compares what
//     a server accepts with what the secret shows; for the system users that is the
//     primary's unit, whose local socket no password locks.
//   - An action is asked in every pass, like a handler, until it is done: it only
//     wishes. What it publishes reaches others when it is over, so it does not wait
//     for what comes by itself.
//   - What does not work is not advertised: a handler wishes a databag only on
//     facts that were observed, so that takes one pass more than the work itself.
//   - A second dispatch right after a first makes no step and writes nothing.
//   - What was published reaches others only when the hook ends: a dispatch with
//     something to publish asks to be woken again rather than wait.
//   - The charm comes back a moment later for what no event tells of.
//   - A step of a system that fails becomes a status that names it, and is tried
//     again soon, then at the next event. Only Juju's own steps fail the hook,
//     because only those does Juju roll back and retry.
//   - A dispatch has a budget, and each step a limit. The end of it is no failure:
//     what was done is published, and the next dispatch goes on.
//
// # Floors
//
// Imports point down only, and a test says so.
//
//	4  main
//	3  charm                                   sees handlers and systems
//	2  charm/core  relations/*  actions/*      wishes; import floor 0 only, and relations/clients
//	1  juju  pebble  patroni  postgres  kube   systems; floor 0, never each other
//	0  charm/state  charm/config               standard library only
//
// A system may bring a handler of its own, for the wishes that only it can
// render: patroni.yml, PostgreSQL's settings.
package charm
