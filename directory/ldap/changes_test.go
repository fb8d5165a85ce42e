package ldap

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// eachWay plays a story with a domain whose changes are asked for by DirSync, and by update sequence numbers.
func eachWay(t *testing.T, story func(t *testing.T, d *domainActor)) {
	for name, dirSync := range map[string]bool{"DirSync": true, "USN": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDomainActor(dirSync)
				defer d.close()
				story(t, d)
			})
		})
	}
}

// wantNext wants the next snapshot to be the domain as it is now, within an hour.
func (d *domainActor) wantNext(t *testing.T, s *Source, what string) *directory.Snapshot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	snap, err := s.Next(ctx)
	if err != nil {
		t.Fatalf("%s: %v; status %+v", what, err, s.Status())
	}
	if want := d.tree(t, s.target.Schema); snap.Digest() != want.Digest() {
		t.Fatalf("%s: the domain has otherwise: %v", what, directory.NewDiff(want, snap))
	}
	return snap
}

// TestEntriesThatStopMatching changes an attribute that nothing but the filter is about: the machine goes and comes back
// without the whole tree being read.
func TestEntriesThatStopMatching(t *testing.T) {
	eachWay(t, func(t *testing.T, d *domainActor) {
		schema := directory.ActiveDirectory()
		schema.MachineFilter = "(!(l=Attic))"
		s := d.reader(t, &schema)
		defer s.Close()
		d.wantNext(t, s, "first")
		full := s.Status().LastFull
		d.set("CN=m1", "l", "Attic")
		d.set("CN=m2", "l", "Graz") // still matches
		if _, there := d.wantNext(t, s, "no match").MachineByName("m1"); there {
			t.Error("a machine is there that does not match")
		}
		d.set("CN=m1", "l", "Vienna")
		if _, there := d.wantNext(t, s, "a match again").MachineByName("m1"); !there {
			t.Error("a machine is not there that matches again")
		}
		if at := s.Status().LastFull; !at.Equal(full) {
			t.Error("the whole tree was read for it")
		}
	})
}

// TestRenameBetweenSearches renames a member after its group was read and before it is read itself, while the whole tree is
// read and while changes are asked for: the group has the member by its name in what is handed out.
func TestRenameBetweenSearches(t *testing.T) {
	eachWay(t, func(t *testing.T, d *domainActor) {
		schema := directory.ActiveDirectory()
		rename := func(from, to string) (renamed func() bool) {
			pages := 0
			done := false
			d.interrupt(func(filter string) {
				// The second page of what changed, or of everything, comes when the group was read.
				if strings.Contains(filter, "(objectClass=computer)") {
					if pages++; pages == 2 {
						d.set("CN="+from, "name", to)
						done = true
					}
				}
			})
			return func() bool { d.interrupt(nil); return done }
		}
		check := rename("m4", "n4")
		s := d.reader(t, &schema)
		defer s.Close()
		d.wantNext(t, s, "while everything was read")
		if !check() {
			t.Fatal("nothing was renamed while everything was read")
		}
		full := s.Status().LastFull
		d.set("CN=G", "cn", "G2")
		d.set("CN=H", "cn", "H2")
		for _, m := range []string{"m0", "m1", "m2"} {
			d.set("CN="+m, "dNSHostName", m+".lab.example")
		}
		d.set("CN=n4", "dNSHostName", "n4.lab.example")
		check = rename("n4", "o4")
		d.wantNext(t, s, "while changes were asked for")
		if !check() {
			t.Fatal("nothing was renamed while changes were asked for")
		}
		if at := s.Status().LastFull; !at.Equal(full) {
			t.Error("the whole tree was read for it")
		}
	})
}

// TestEndlessDirSync lets a domain controller say for ever that more is to come.
func TestEndlessDirSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDomainActor(true)
		defer d.close()
		schema := directory.ActiveDirectory()
		s := d.reader(t, &schema)
		defer s.Close()
		d.wantNext(t, s, "first")
		d.set("CN=m1", "dNSHostName", "db.lab.example")
		d.mu.Lock()
		d.endless = true
		d.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if _, err := s.Next(ctx); !errors.Is(err, ErrProtocol) || !errors.Is(err, errEndless) {
			t.Fatalf("Next: %v; want an error that says that there is no end", err)
		}
		// One that does so from the beginning is asked in the other way.
		if d.wantNext(t, s, "by numbers"); !strings.HasPrefix(s.Status().Protocol, protocolUSN) || s.Status().Machines != 5 {
			t.Errorf("status %+v", s.Status())
		}
	})
}

func TestFilterAttributes(t *testing.T) {
	got := filterAttributes(`(|(&(objectClass=computer)(!(L=Attic)))(cn=ipsec-*)(a>=1)(b<=2)(c=*)(d~=x)(e;lang-de=x)(f:1.2.840.113556.1.4.803:=2))`)
	if want := []string{"a", "b", "c", "cn", "d", "e", "f", "l", "objectclass"}; !slices.Equal(got, want) {
		t.Errorf("attributes %q, want %q", got, want)
	}
	if got := filterAttributes("(l=Attic"); got != nil {
		t.Errorf("attributes %q of a malformed filter", got)
	}
}
