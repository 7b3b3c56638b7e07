// Package docs tests the documentation. The pages of docs/reference are rendered
// from the code, and compared; of all other pages the commands are checked against
// what the charm has, and the links against what is there.
//
// After a change of an action, an option, a relation or a status:
//
//	go test ./tests/docs -update
package docs
