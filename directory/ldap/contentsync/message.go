package contentsync

import (
	"fmt"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Message is what a server sends in the course of an operation: EntryState, IDSet, NewCookie or PhaseEnd. How the
// operation ends is not among them: when it does, the session is over.
type Message interface{ message() }

// State is the state of an entry in the Sync State Control (RFC 4533 2.3).
type State uint8

// The states, by their numbers on the wire.
const (
	Present State = iota
	Add
	Modify
	Delete
)

func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

var stateNames = [...]string{"present", "add", "modify", "delete"}

// An Item is what is kept of an entry.
type Item struct {
	DN directory.DN
	// Object is what the entry means; nil when it means nothing, but its identity has to be known nonetheless.
	Object   directory.Object
	Problems []directory.Problem
}

// An EntryState is a search result entry with its Sync State Control. Item is set for Add and Modify.
type EntryState struct {
	State  State
	UUID   directory.UUID
	Cookie Cookie
	Item   Item
}

// An IDSet names many entries that are present or, with Deletes, gone (syncIdSet, RFC 4533 2.5).
type IDSet struct {
	Deletes bool
	UUIDs   []directory.UUID
	Cookie  Cookie
}

// A NewCookie says that nothing of ours changed up to the cookie.
type NewCookie struct{ Cookie Cookie }

// A PhaseEnd ends the present phase or, with Deletes, the delete phase (refreshPresent and refreshDelete); with Done the
// refresh stage as well.
type PhaseEnd struct {
	Deletes, Done bool
	Cookie        Cookie
}

func (EntryState) message() {}
func (IDSet) message()      {}
func (NewCookie) message()  {}
func (PhaseEnd) message()   {}
