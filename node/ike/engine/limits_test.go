package engine

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Thousands of peers that have returned a cookie and send pieces of their next message, while the keys to read them are
// still being computed, do not fill the memory: all of them together have one limit, and it is free again after them.
func TestUnauthenticatedPeersShareOneBuffer(t *testing.T) {
	e := New(ike.Config{Offers: []proposal.IKE{frontOffer}}, rand.NewChaCha8([32]byte{}))
	now := time.Unix(0, 0)
	const piece = 4000
	peers := 2 * limitBuffered / wire.LimitBeforeAuth
	highest := 0
	for i := range peers {
		first := firstMessage(i, nil)
		if _, answer := e.Front().Screen(first, nil); answer != nil {
			first = firstMessage(i, cookieIn(t, answer))
		}
		step(e, now, first)
		var own wire.SPI
		for _, x := range e.table.order.all() {
			if x.filed.remote == first.Remote {
				own = x.sa.SPI()
			}
		}
		if own == 0 {
			t.Fatalf("peer %d of %d was not let in", i, peers)
		}
		for part := range wire.LimitBeforeAuth/piece + 2 {
			d := ike.Datagram{Local: first.Local, Remote: first.Remote, Bytes: wire.AppendMessage(nil, wire.Message{
				Header: wire.Header{SPIi: wire.SPI(i + 1), SPIr: own, Exchange: wire.IKEAuth, Flags: wire.FlagInitiator, MessageID: 1},
				Payloads: []wire.Payload{wire.Fragment{
					Number: uint16(part + 1), Total: 60, Body: bytes.Repeat([]byte{byte(part)}, piece),
				}},
			})}
			e.Step(now, d) // the job that computes the keys stays under way
			highest = max(highest, e.table.buffered)
			if e.table.buffered > limitBuffered {
				t.Fatalf("%d octets are kept for peer 1 to %d, at most %d are allowed", e.table.buffered, i+1, limitBuffered)
			}
		}
	}
	if highest < limitBuffered-piece-wire.HeaderLen-8 {
		t.Errorf("at most %d octets were kept: the limit of %d was never reached", highest, limitBuffered)
	}
	if n := e.counters["dropped_buffer_limit"]; n == 0 {
		t.Errorf("nothing was dropped for the limit: %v", e.counters)
	}
	e.Step(now.Add(time.Hour), ike.Timeout{})
	if e.table.buffered != 0 || e.table.halfOpen != 0 {
		t.Errorf("an hour later %d octets are kept for %d half-open IKE SAs", e.table.buffered, e.table.halfOpen)
	}
}

// While many jobs are under way a first message needs a cookie, however few half-open SAs there are; when they are done
// it does not any more.
func TestCookiesAreWantedUnderLoadOfJobs(t *testing.T) {
	e := New(ike.Config{Offers: []proposal.IKE{frontOffer}}, rand.NewChaCha8([32]byte{}))
	now := time.Unix(0, 0)
	var jobs []ike.JobID
	for i := range cookieAboveJobs {
		if e.wantsCookies() {
			t.Fatalf("a cookie is wanted with %d jobs under way", len(e.jobs))
		}
		for _, a := range e.Step(now, firstMessage(i, nil)) {
			if j, ok := a.(ike.Job); ok {
				jobs = append(jobs, j.ID)
			}
		}
	}
	if len(jobs) != cookieAboveJobs || e.table.halfOpen >= cookieAbove {
		t.Fatalf("%d jobs and %d half-open IKE SAs, want %d and less than %d", len(jobs), e.table.halfOpen, cookieAboveJobs, cookieAbove)
	}
	stranger := firstMessage(1000, nil)
	stranger.Remote = netip.MustParseAddrPort("198.51.100.1:500")
	var sent []byte
	for _, a := range e.Step(now, stranger) {
		switch a := a.(type) {
		case ike.Job:
			t.Error("another job is begun for who has not shown where it is")
		case ike.Send:
			sent = a.Bytes
		}
	}
	cookieIn(t, sent)
	for _, id := range jobs {
		e.Step(now, ike.JobDone{ID: id, Result: ike.Generated{Public: make([]byte, 32)}})
	}
	before := e.table.halfOpen
	if e.Step(now, stranger); e.wantsCookies() || e.table.halfOpen != before+1 {
		t.Errorf("with %d jobs under way a cookie is wanted: %v; %d half-open IKE SAs, want %d", len(e.jobs), e.wantsCookies(), e.table.halfOpen, before+1)
	}
}
