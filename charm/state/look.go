package state

// Look is a step that only reads: it leads to another pass, but changes nothing.
type Look interface {
	Step
	Looks()
}
