package sourcetest

import (
	"context"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// patience bounds every wait for something that must happen.
const patience = 40 * time.Second

// A Server is a real directory in front of which the story is told.
type Server struct {
	Dialect Dialect
	// Apply makes the changes; the company is that after them.
	Apply func(t *testing.T, ldif string, c *Company)
	// Open returns a source of the server, which the story closes.
	Open func(t *testing.T) directory.Source
	// Cut ends the source's connections; nil where there are none.
	Cut func(t *testing.T)
	// Stop makes the server unreachable and Start brings it back with what it held.
	Stop, Start func(t *testing.T)
	// FailOver puts another server of the same content in its place, under the same name; nil where there is none.
	FailOver func(t *testing.T)
}

// Run tells the story.
func Run(t *testing.T, server Server) {
	c := NewCompany(server.Dialect)
	found(c)
	server.Apply(t, c.take(), c)
	source := server.Open(t)
	t.Cleanup(func() { source.Close() })
	s := &story{t, server, c, source}
	s.settle("found the company")

	for _, step := range changes {
		step.change(c)
		s.apply()
		s.settle(step.name)
	}
	if server.Cut != nil {
		for _, step := range awayChanges {
			server.Cut(t)
			step.change(c)
			s.apply()
			s.settle("cut the connections and " + step.name)
		}
	}
	server.Stop(t)
	s.fails("the server is gone")
	server.Start(t)
	s.settle("the server is back")
	c.addMachine("restarted", "servers")
	s.apply()
	s.settle("add a machine after the restart")
	if server.FailOver != nil {
		server.FailOver(t)
		c.moveMachine("restarted", "desks")
		s.apply()
		s.settle("move a machine at a server that took over")
	}
	// What a source that came by all these changes shows is what one finds that starts now.
	fresh := server.Open(t)
	defer fresh.Close()
	s.source = fresh
	s.settle("a new source")
}

type story struct {
	*testing.T
	server  Server
	company *Company
	source  directory.Source
}

func (s *story) apply() {
	s.Helper()
	s.server.Apply(s.T, s.company.take(), s.company)
}

// settle waits until the source shows the company as it is. Errors on the way are allowed: reading is tried again.
func (s *story) settle(what string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	began := time.Now()
	var last error
	for {
		snap, err := s.source.Next(ctx)
		if ctx.Err() != nil {
			s.Fatalf("%s: not seen within %v; last: %v", what, patience, last)
		}
		if err != nil {
			last = err
			continue
		}
		if last = s.company.Check(snap); last == nil {
			st := s.source.Status()
			if digest := snap.Digest(); st.Digest != digest || st.LastError != "" || st.Failures != 0 || st.LastRead.IsZero() {
				s.Errorf("%s: the status is %+v", what, st)
			}
			s.Logf("%-50s %6.3f s, %s", what, time.Since(began).Seconds(), st.Protocol)
			return
		}
	}
}

// fails waits for an error, which must leave what was known as it is.
func (s *story) fails(what string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	before := s.source.Status()
	for {
		snap, err := s.source.Next(ctx)
		if ctx.Err() != nil {
			s.Fatalf("%s: no error within %v", what, patience)
		}
		if err == nil {
			if err := s.company.Check(snap); err != nil {
				s.Fatalf("%s: a snapshot that the server never had: %v", what, err)
			}
			continue
		}
		if st := s.source.Status(); st.Digest != before.Digest || st.LastError == "" || st.Failures == 0 || st.Machines != before.Machines {
			s.Errorf("%s: after the error the status is %+v, and was %+v", what, st, before)
		}
		return
	}
}

// found sets the company up.
func found(c *Company) {
	c.root()
	c.addOU("servers", "Servers", "")
	c.addOU("desks", "Workstations", "")
	c.addOU("branches", "Branches", "")
	c.addOU("north", "North", "branches")
	c.addMachine("sql1", "servers")
	c.addMachine("files1", "servers")
	c.addMachine("ws1", "desks")
	c.addMachine("ws2", "desks")
	c.addMachine("north1", "north")
	c.addMachine("north2", "north")
	c.addGroup("databases", "sql1")
	c.addGroup("core", "group databases")
}

type step struct {
	name   string
	change func(*Company)
}

// changes are made while the source listens. What is in a group is not moved: whether the group follows is different
// from server to server.
var changes = []step{
	{"add a machine", func(c *Company) { c.addMachine("audit1", "servers") }},
	{"modify a machine", func(c *Company) { c.modifyDNS("sql1", "sql1.bank.example") }},
	{"move a machine", func(c *Company) { c.moveMachine("ws2", "servers") }},
	{"rename a machine", func(c *Company) { c.renameMachine("ws2", "ws9") }},
	{"move a subtree", func(c *Company) { c.moveOU("branches", "Branches", "desks") }},
	{"rename a container", func(c *Company) { c.moveOU("branches", "Offices", "desks") }},
	{"disable a machine", func(c *Company) { c.disable("ws1", true) }},
	{"enable a machine", func(c *Company) { c.disable("ws1", false) }},
	{"join a group", func(c *Company) { c.join("databases", "files1") }},
	{"leave a group", func(c *Company) { c.leave("databases", "sql1") }},
	{"nest a machine beside a group", func(c *Company) { c.join("core", "sql1") }},
	{"delete a machine", func(c *Company) { c.removeMachine("audit1") }},
	{"add a container with a machine", func(c *Company) { c.addOU("lab", "Lab", "branches"); c.addMachine("lab1", "lab") }},
	{"delete a subtree", func(c *Company) { c.removeMachine("lab1"); c.removeOU("lab") }},
}

// awayChanges are made while the source has no connection.
var awayChanges = []step{
	{"add a machine", func(c *Company) { c.addMachine("web1", "servers") }},
	{"move a subtree", func(c *Company) { c.moveOU("branches", "Branches", "") }},
	{"delete a machine", func(c *Company) { c.removeMachine("web1") }},
	{"change a group", func(c *Company) { c.leave("core", "sql1"); c.join("databases", "sql1") }},
	{"disable a machine", func(c *Company) { c.disable("north1", true) }},
}
