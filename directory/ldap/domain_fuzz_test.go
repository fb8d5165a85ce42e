package ldap

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// FuzzDomain lets a domain controller answer one request of DirSync by any octets, and say anything of itself and of its
// counter: the tree follows, or there is an error of ours.
func FuzzDomain(f *testing.F) {
	model := newDomainActor(true)
	var entries []byte
	for _, o := range model.objects {
		entries = append(entries, entryMessage(3, o.entry())...)
	}
	done := func(more int64, cookie string) []byte { return dirSyncDone(3, more, cookie) }
	for at := range uint8(3) {
		f.Add(slices.Concat(entries, done(0, "9")), at, "9", "CN=NTDS", domainTop)
		f.Add(slices.Concat(entries, done(1, "9")), at, "8", "CN=NTDS", domainTop)
		f.Add(done(0, ""), at, "", "", "")
		f.Add(slices.Concat(entries[:100], resultMessage(3, goldap.ApplicationSearchResultDone, goldap.LDAPResultUnwillingToPerform)), at, "-1", ",", "DC=other")
	}
	f.Fuzz(func(t *testing.T, octets []byte, at uint8, usn, server, naming string) {
		synctest.Test(t, func(t *testing.T) { anyAnswer(t, octets, at, usn, server, naming) })
	})
}

// anyAnswer reads a domain and its first change where the request of DirSync with the number at is answered by octets.
func anyAnswer(t *testing.T, octets []byte, at uint8, usn, server, naming string) {
	d := newDomainActor(true)
	defer d.close()
	var number atomic.Int32
	d.search = func(c *actorConn, id int64, request *ber.Packet, cookie string) bool {
		if !c.asks(goldap.ControlTypeDirSync) || number.Add(1) != int32(at)+1 {
			return d.subtree(c, id, request, cookie)
		}
		c.send(renumbered(octets, id))
		c.send(nil)
		return true
	}
	d.object = func(c *actorConn, id int64, base string) bool {
		if base != "" {
			return d.one(c, id, base)
		}
		root := directory.Entry{Attributes: []directory.Attribute{
			{Name: "namingContexts", Values: []string{naming}}, {Name: "dsServiceName", Values: []string{server}},
			{Name: "highestCommittedUSN", Values: []string{usn}}, {Name: "supportedControl", Values: []string{goldap.ControlTypeDirSync}},
		}}
		c.send(slices.Concat(entryMessage(id, root), resultMessage(id, goldap.ApplicationSearchResultDone, 0)))
		return true
	}
	schema := directory.ActiveDirectory()
	s := d.reader(t, &schema)
	defer s.Close()
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		snap, err := s.Next(ctx)
		cancel()
		var known *Error
		switch {
		case err != nil && !errors.As(err, &known) && !errors.Is(err, context.DeadlineExceeded):
			t.Fatalf("error %v is no *Error", err)
		case err == nil:
			if containers, _, _ := snap.Len(); containers == 0 {
				t.Fatal("an empty snapshot")
			}
		}
		d.set("CN=m1", "l", "Graz")
	}
}
