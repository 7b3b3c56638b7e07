// Package clients is what all applications that want a database have in common,
// whichever interface they speak: the record of their relations, their users, and
// the databases that these work in. The rooms of the interfaces stand on it.
package clients
