package ldap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// TestEndlessPages lets a server say for ever that more is to come: the read fails and says what the server did.
func TestEndlessPages(t *testing.T) {
	page := func(c *actorConn, id int64, from, to int, cookie string) bool {
		for _, e := range c.entries[from:to] {
			c.send(entryMessage(id, e.Entry))
		}
		c.send(resultMessage(id, goldap.ApplicationSearchResultDone, 0, &goldap.ControlPaging{Cookie: []byte(cookie)}))
		return true
	}
	for name, tc := range map[string]struct {
		answer func(c *actorConn, id int64, n int, cookie string) bool
		want   string
	}{
		"the same cookie without entries": {func(c *actorConn, id int64, _ int, cookie string) bool {
			return cookie != "" && page(c, id, 0, 0, cookie)
		}, "with the cookie that it was asked with"},
		"other cookies without entries": {func(c *actorConn, id int64, n int, _ string) bool {
			return page(c, id, 0, 0, fmt.Sprint("c", n))
		}, "the last 1000 answers held no entry"},
		"the same page": {func(c *actorConn, id int64, _ int, _ string) bool {
			return page(c, id, 0, 3, "always")
		}, "entries in a row that it had sent before"},
		"the same page by other cookies": {func(c *actorConn, id int64, n int, _ string) bool {
			return page(c, id, 3, 6, fmt.Sprint("c", n))
		}, "entries in a row that it had sent before"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newActor(t, small)
				asked := 0
				a.search = func(c *actorConn, id int64, _ *ber.Packet, cookie string) bool {
					if asked++; asked > 3*maxEmpty {
						t.Error("the server is asked without end")
						c.send(nil)
						return true
					}
					return tc.answer(c, id, asked, cookie)
				}
				s := a.reader(t, polled)
				defer a.close()
				defer s.Close()
				_, err := s.Next(t.Context())
				if !errors.Is(err, ErrProtocol) || !errors.Is(err, errEndless) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("after %d requests: %v; want one of the protocol with %q", asked, err, tc.want)
				}
			})
		})
	}
}

// TestSparsePages: pages may be empty, cookies may stay the same, and entries may come again, as long as there is progress.
func TestSparsePages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newActor(t, small)
		asked := 0
		a.search = func(c *actorConn, id int64, _ *ber.Packet, cookie string) bool {
			if cookie == "" {
				asked = 0
			}
			asked++
			cookie = "always"
			switch n := asked / 2; {
			case asked%2 == 1: // without entries
			case n == len(a.entries)+1:
				cookie = ""
			default:
				for _, e := range a.entries[max(0, n-2):n] { // one of them again
					c.send(entryMessage(id, e.Entry))
				}
			}
			c.send(resultMessage(id, goldap.ApplicationSearchResultDone, 0, &goldap.ControlPaging{Cookie: []byte(cookie)}))
			return true
		}
		// A duplicate within one read is for the builder to judge: here the pages alone are looked at.
		s := a.reader(t, polled)
		defer a.close()
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		session, closeSession, err := s.target.open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer closeSession()
		names := map[string]bool{}
		if err := session.pages("(objectClass=*)", func(e directory.Entry) error { names[e.DN] = true; return nil }, nil); err != nil || len(names) != len(a.entries) {
			t.Errorf("%d entries of %d: %v", len(names), len(a.entries), err)
		}
	})
}

// TestArrivals counts entries up to the bound.
func TestArrivals(t *testing.T) {
	a := newArrivals(1)
	a.most = 3
	for i := range 3 {
		if err := a.add(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.add("3"); !errors.Is(err, errEndless) || !strings.Contains(err.Error(), "more than 3 entries") {
		t.Errorf("the fourth entry of three: %v", err)
	}
}
