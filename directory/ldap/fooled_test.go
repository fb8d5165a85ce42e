package ldap

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// fooling is a source in front of an actor that goes wrong.
type fooling struct {
	*testing.T
	*Source
	server *actor
	ctx    context.Context
}

// shows wants the next thing that the source tells to be a snapshot of what a server holds.
func (f *fooling) shows(a *actor) {
	f.Helper()
	snap, err := f.Next(f.ctx)
	if err != nil {
		f.Fatalf("Next: %v; want a snapshot", err)
	}
	if want := a.tree(f.T); snap.Digest() != want.Digest() {
		f.Fatalf("the snapshot differs from what the server holds: %v", directory.NewDiff(want, snap))
	}
}

// refuses wants the next thing to be an error of a kind, which leaves what was known.
func (f *fooling) refuses(kind error) {
	f.Helper()
	before := f.Status()
	snap, err := f.Next(f.ctx)
	if !errors.Is(err, kind) {
		f.Fatalf("Next = %v, %v; want %v", snap, err, kind)
	}
	if st := f.Status(); st.Digest != before.Digest || st.Machines != before.Machines || st.LastError == "" || st.LastRead.After(before.LastRead) {
		f.Fatalf("after the error the status is %+v, and was %+v", st, before)
	}
}

// comesTo wants a snapshot of what a server holds, after nothing but errors of a kind.
func (f *fooling) comesTo(a *actor, kind error) {
	f.Helper()
	for {
		snap, err := f.Next(f.ctx)
		switch {
		case err == nil:
			if want := a.tree(f.T); snap.Digest() != want.Digest() {
				f.Fatalf("the snapshot differs from what the server holds: %v", directory.NewDiff(want, snap))
			}
			return
		case !errors.Is(err, kind) && !errors.Is(err, ErrInterrupted):
			f.Fatalf("Next: %v; want %v or a snapshot", err, kind)
		}
	}
}

// lead makes the same name lead to another server.
func (f *fooling) lead(a *actor) {
	f.target.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		return a.dial(ctx, network, address)
	}
	f.server.cut()
}

// spoil answers every search of the tree by some entries and an end of another kind.
func spoil(n int, messages func(id int64) []byte) func(*actorConn, int64, *ber.Packet, string) bool {
	return func(c *actorConn, id int64, _ *ber.Packet, _ string) bool {
		for _, e := range c.entries[:n] {
			c.send(entryMessage(id, e.Entry))
		}
		c.send(messages(id))
		return true
	}
}

func ends(code int64, controls ...goldap.Control) func(id int64) []byte {
	return func(id int64) []byte { return resultMessage(id, goldap.ApplicationSearchResultDone, code, controls...) }
}

func reference(id int64) []byte {
	p := ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationSearchResultReference, nil, "")
	p.AppendChild(octetString("ldap://elsewhere.example/ou=B,dc=bank,dc=example"))
	return slices.Concat(message(id, p), ends(0)(id))
}

// without leaves an attribute out of the entries of an actor, as an access rule does.
func (a *actor) without(attribute string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stage++
	for i := range a.entries {
		e := &a.entries[i]
		e.Attributes = slices.DeleteFunc(slices.Clone(e.Attributes), func(at directory.Attribute) bool { return at.Name == attribute })
	}
}

// copy is another server with the same content as of now.
func (a *actor) copy() *actor {
	return &actor{sid: a.sid, stage: a.stage, entries: slices.Clone(a.entries)}
}

const twoGroups = small + `
dn: cn=h,dc=bank,dc=example
objectClass: groupOfNames
cn: h
member: cn=m1,ou=A,dc=bank,dc=example
`

var (
	polled       = func(c *Config) { c.PollOnly = true }
	synchronized = func(*Config) {}
)

// TestNeverFooled goes through the ways in which a directory can answer wrongly without a line that fails. The first
// reads are right unless a row says otherwise.
func TestNeverFooled(t *testing.T) {
	both := []func(*Config){polled, synchronized}
	for _, tc := range []struct {
		name  string
		modes []func(*Config)
		first func(a *actor) // what is wrong from the start
		edit  func(*Config)
		then  func(f *fooling)
	}{
		{"part of the tree is a referral", both, nil, nil, func(f *fooling) {
			f.server.search = spoil(3, reference)
			f.server.cut()
			f.server.changeQuietly()
			f.refusesSoon(ErrReferral)
			f.server.search = nil
			f.comesTo(f.server, ErrReferral)
		}},
		{"a referral instead of an answer", both, func(a *actor) { a.search = spoil(0, ends(10)) }, nil, func(f *fooling) { f.refuses(ErrReferral) }},
		{"a size limit", []func(*Config){polled}, func(a *actor) { a.search = spoil(4, ends(4)) }, nil, func(f *fooling) { f.refuses(ErrLimit) }},
		{"a time limit", []func(*Config){polled}, func(a *actor) { a.search = spoil(4, ends(3)) }, nil, func(f *fooling) { f.refuses(ErrLimit) }},
		{"an administrative limit", []func(*Config){polled}, func(a *actor) { a.search = spoil(4, ends(11)) }, nil, func(f *fooling) { f.refuses(ErrLimit) }},
		{"a limit in mid refresh", []func(*Config){synchronized}, func(a *actor) { a.search = spoil(4, ends(4)) }, nil, func(f *fooling) { f.refuses(ErrLimit) }},
		{"a last page without its control", []func(*Config){polled}, func(a *actor) {
			a.search = func(c *actorConn, id int64, _ *ber.Packet, cookie string) bool {
				if cookie == "" {
					return false
				}
				c.send(ends(0)(id))
				return true
			}
		}, nil, func(f *fooling) { f.refuses(ErrProtocol) }},
		{"entries without their identity", both, func(a *actor) { a.without("entryUUID") }, nil, func(f *fooling) { f.refuses(ErrContent) }},
		{"a container that may not be seen", both, func(a *actor) { a.entries[1].gone = true }, nil, func(f *fooling) { f.refuses(ErrContent) }},
		{"a replica that is behind", both, nil, nil, func(f *fooling) {
			replica := f.server.copy()
			defer replica.close()
			f.server.change(faultChanges[0])
			f.shows(f.server)
			f.lead(replica)
			f.refusesSoon(ErrDoubtful)
			replica.change(faultChanges[0])
			replica.change(faultChanges[1])
			f.comesTo(replica, ErrDoubtful)
		}},
		{"a restored backup", both, nil, nil, func(f *fooling) {
			backup := f.server.copy()
			defer backup.close()
			f.server.change(faultChanges[0])
			f.shows(f.server)
			f.lead(backup)
			began := time.Now()
			f.refusesSoon(ErrDoubtful)
			f.comesTo(backup, ErrDoubtful)
			if held := time.Since(began); held < 5*time.Minute || held > 8*time.Minute {
				f.Errorf("the backup was believed after %v", held)
			}
		}},
		{"another server behind the name", both, nil, nil, func(f *fooling) {
			other := f.server.copy()
			defer other.close()
			for i := range other.entries {
				other.entries[i] = other.entry(directory.Entry{DN: other.entries[i].DN, Attributes: slices.DeleteFunc(slices.Clone(other.entries[i].Attributes),
					func(at directory.Attribute) bool { return at.Name == "entryUUID" })}, 100+i)
			}
			right := f.server
			right.change(faultChanges[0])
			f.shows(right)
			f.lead(other)
			for began := time.Now(); time.Since(began) < time.Hour; {
				f.refusesSoon(ErrOther)
			}
			f.lead(right)
			f.server = other
			other.cut()
			f.comesTo(right, ErrOther)
		}},
		{"a cookie that is not the server's", []func(*Config){synchronized}, nil, nil, func(f *fooling) {
			other := f.server.copy()
			defer other.close()
			// The other has a machine more, and takes our cookie for one that it gave when it had it.
			extra := other.entries[4]
			extra.DN = "cn=m9,ou=B,dc=bank,dc=example"
			extra.Attributes = []directory.Attribute{{Name: "objectClass", Values: []string{"device"}}, {Name: "cn", Values: []string{"m9"}}}
			added := other.entry(extra.Entry, 99)
			other.entries = append(other.entries, added)
			f.lead(other)
			f.comesTo(other, ErrDoubtful)
		}},
		{"two machines of one name", both, nil, nil, func(f *fooling) {
			f.server.change(func(find func(string) *actorEntry) {
				e := find("cn=m1,ou=A,dc=bank,dc=example")
				e.Attributes = slices.Clone(e.Attributes)
				e.Attributes[1] = directory.Attribute{Name: "cn", Values: []string{"m2"}}
			})
			f.refuses(ErrContent)
			f.server.change(func(find func(string) *actorEntry) {
				find("cn=m1,ou=A,dc=bank,dc=example").Attributes[1] = directory.Attribute{Name: "cn", Values: []string{"m1"}}
			})
			f.comesTo(f.server, ErrContent)
		}},
		{"an entry that moves to a page that was read", []func(*Config){polled}, func(a *actor) {
			moved := false
			a.search = func(c *actorConn, id int64, _ *ber.Packet, cookie string) bool {
				if cookie == "3" && !moved {
					moved = true
					a.mu.Lock()
					a.stage++
					// What was to come is now among what has been sent.
					e := a.entries[4]
					e.DN = "cn=m2,ou=B,dc=bank,dc=example"
					a.entries = slices.Insert(slices.Delete(a.entries, 4, 5), 1, e)
					a.entries[1], a.entries[2], a.entries[3] = a.entries[2], a.entries[3], a.entries[1]
					a.mu.Unlock()
				}
				return false
			}
		}, nil, func(f *fooling) { f.shows(f.server) }},
		{"a base DN with a slip", both, func(a *actor) { a.search = spoil(0, ends(32)) }, nil, func(f *fooling) { f.refuses(ErrNoBase) }},
		{"an object class with a slip", both, func(*actor) {}, func(c *Config) {
			schema := directory.OpenLDAP()
			schema.MachineClasses = []string{"devise"}
			c.Schema = &schema
		}, func(f *fooling) { f.refuses(ErrDoubtful) }},
		{"members that may not be read any more", both, nil, nil, func(f *fooling) {
			blind := f.server.copy()
			defer blind.close()
			blind.without("member")
			f.lead(blind)
			f.refusesSoon(ErrDoubtful)
			f.server.change(faultChanges[0])
			right := f.server
			f.server = blind
			f.lead(right)
			f.comesTo(right, ErrDoubtful)
		}},
		{"machines that may not be seen any more", both, nil, nil, func(f *fooling) {
			blind := f.server.copy()
			defer blind.close()
			blind.stage++
			for i := range blind.entries {
				blind.entries[i].gone = slices.ContainsFunc(blind.entries[i].Values("objectClass"), func(c string) bool { return c == "device" })
			}
			f.lead(blind)
			f.refusesSoon(ErrDoubtful)
		}},
	} {
		for i, mode := range tc.modes {
			name := tc.name + ", polled"
			if i > 0 || len(tc.modes) == 1 && tc.name == "a cookie that is not the server's" || tc.name == "a limit in mid refresh" {
				name = tc.name + ", synchronized"
			}
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					a := newActor(t, twoGroups)
					if tc.first != nil {
						tc.first(a)
					}
					s := a.reader(t, mode, func(c *Config) {
						if tc.edit != nil {
							tc.edit(c)
						}
					})
					defer a.close()
					defer s.Close()
					ctx, cancel := context.WithTimeout(t.Context(), 10*time.Hour)
					defer cancel()
					f := &fooling{t, s, a, ctx}
					if tc.first == nil {
						f.shows(a)
					}
					tc.then(f)
				})
			})
		}
	}
}

// refusesSoon passes over the end of the connection, which comes before what the next one finds.
func (f *fooling) refusesSoon(kind error) {
	f.Helper()
	for {
		before := f.Status()
		snap, err := f.Next(f.ctx)
		if err == nil {
			f.Fatalf("Next = a snapshot with %v; want %v", directory.NewDiff(f.server.tree(f.T), snap), kind)
		}
		if st := f.Status(); st.Digest != before.Digest || st.Machines != before.Machines {
			f.Fatalf("after %v the status is %+v, and was %+v", err, st, before)
		}
		if errors.Is(err, kind) {
			return
		}
		if !errors.Is(err, ErrInterrupted) {
			f.Fatalf("Next: %v; want %v", err, kind)
		}
	}
}

// changeQuietly makes a change of which nobody hears, so that a poll has to look.
func (a *actor) changeQuietly() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stage++
	a.entries[3].DN = "cn=m1,ou=B,dc=bank,dc=example"
	a.entries[3].stage = a.stage
}
