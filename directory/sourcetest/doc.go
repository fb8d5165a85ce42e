// Package sourcetest is the contract of directory.Source as a story that every source has to live through in front of
// a real server: a small company is set up, changes in every way that matters, loses its connections, restarts and
// fails over, and after each step the source has to show what the server has, with the identities of before.
//
// Its invariant: what is expected is kept here as a model and never read from the source under test. It is for tests
// only, and leaves servers and the words in which they are changed to its callers.
package sourcetest
