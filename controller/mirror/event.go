package mirror

import (
	"fmt"
	"time"

	"github.com/bailiwick-net/bailiwick/directory/guard"
)

// EventKind is what happened to a directory.
type EventKind uint8

// The kinds of events.
const (
	Failed           EventKind = iota + 1 // a read failed after one that did not
	Recovered                             // a read succeeded after one that did not
	HeldBack                              // the guard holds a change
	LetGo                                 // a held change is no longer what the directory says
	Released                              // an administrator let a held change pass
	Discarded                             // an administrator refused a held change
	LimitsRaised                          // an administrator announced a change
	Passed                                // the announced change came
	MachinesVanished                      // machines are missing from the directory
	GraceOver                             // vanished machines lost their policy
	Unstored                              // what is in force could not be stored, after it could
	Stored                                // it could, after it could not
)

var eventNames = map[EventKind]string{
	Failed: "failed", Recovered: "recovered", HeldBack: "held", LetGo: "let-go", Released: "released", Discarded: "discarded",
	LimitsRaised: "raised", Passed: "passed", MachinesVanished: "vanished", GraceOver: "grace-over", Unstored: "unstored", Stored: "stored",
}

func (k EventKind) String() string {
	if name, ok := eventNames[k]; ok {
		return name
	}
	return fmt.Sprintf("event %d", uint8(k))
}

// An Event is something that whoever looks after the fleet may have to account for.
type Event struct {
	Kind EventKind
	At   time.Time
	// By is the administrator who did it, "" for what came by itself.
	By string
	// ID is the held change that it is about, or zero.
	ID   guard.ID
	Text string
}

// Counts are of the time since the start.
type Counts struct {
	// Reads and Failures count results of the source, Changes what came into force, Held what the guard stopped,
	// Vanished and Expired machines.
	Reads, Failures, Changes, Held, Vanished, Expired uint64
}

func (m *Mirror) tell(e Event) {
	e.At = m.config.Now()
	m.config.Tell(e)
}

// count publishes other counts; only the goroutine of Run calls it.
func (m *Mirror) count(change func(*Counts)) {
	var c Counts
	if old := m.counts.Load(); old != nil {
		c = *old
	}
	change(&c)
	m.counts.Store(&c)
}

// letGo notes that what was held is no more, without an administrator.
func (m *Mirror) letGo(id guard.ID) {
	m.held.Store(nil)
	m.tell(Event{Kind: LetGo, ID: id, Text: "the directory no longer says so"})
}
