package trace

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

var (
	start = time.Date(2030, 1, 2, 3, 4, 5, 678901000, time.UTC)
	peerA = netip.MustParseAddrPort("10.0.0.1:500")
	peerB = netip.MustParseAddrPort("[2001:db8::1]:4500")
)

func sentence(format string, args ...any) ike.Sentence {
	return ike.Sentence{Format: format, Args: args}
}

func request() wire.Summary {
	return wire.Message{
		Header:   wire.Header{Exchange: wire.IKEAuth, MessageID: 1},
		Payloads: []wire.Payload{wire.ID{}, wire.Auth{}, wire.Notify{Type: wire.NotifyInitialContact}, wire.TS{}, wire.TS{Responder: true}},
	}.Summary()
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		record Record
		text   string
		json   string
	}{
		{
			Record{Time: start, Trace: &ike.Trace{IKE: 0xabc, Remote: peerA, Kind: ike.TraceSent, Text: request()}},
			"2030-01-02T03:04:05.678901Z 0000000000000abc 10.0.0.1:500 - sent IKE_AUTH request 1 IDi AUTH N(INITIAL_CONTACT) TSi TSr",
			`{"time":"2030-01-02T03:04:05.678901Z","ike":"0000000000000abc","remote":"10.0.0.1:500","kind":"sent","exchange":"IKE_AUTH","messageID":1,"payloads":["IDi","AUTH","N(INITIAL_CONTACT)","TSi","TSr"],"text":"IKE_AUTH request 1 IDi AUTH N(INITIAL_CONTACT) TSi TSr"}`,
		},
		{
			Record{Time: start, Trace: &ike.Trace{
				IKE: 1, Remote: peerB, Peer: "CN=b, O=Bank", Kind: ike.TraceFailed, Reason: ike.ReasonAuthFailed, Fault: ike.FaultPeer, Rule: "r1",
				Text: sentence("the preshared key %q differs", "k"),
			}},
			`2030-01-02T03:04:05.678901Z 0000000000000001 [2001:db8::1]:4500 "CN=b, O=Bank" failed authentication-failed fault=peer the preshared key "k" differs`,
			`{"time":"2030-01-02T03:04:05.678901Z","ike":"0000000000000001","remote":"[2001:db8::1]:4500","peer":"CN=b, O=Bank","kind":"failed","reason":"authentication-failed","fault":"peer","rule":"r1","text":"the preshared key \"k\" differs"}`,
		},
		{ // what a peer says cannot look like a line of its own, nor reach the terminal
			Record{Time: start, Trace: &ike.Trace{
				Remote: netip.AddrPortFrom(peerA.Addr(), 0), Peer: "a\nb\x1b[31m", Kind: ike.TraceDropped, Reason: ike.ReasonUnexpected, Text: sentence("%s", "x\r\ny"),
			}},
			`2030-01-02T03:04:05.678901Z - 10.0.0.1 a\nb\x1b[31m dropped unexpected-message x\r\ny`,
			`{"time":"2030-01-02T03:04:05.678901Z","remote":"10.0.0.1","peer":"a\\nb\\x1b[31m","kind":"dropped","reason":"unexpected-message","text":"x\\r\\ny"}`,
		},
	} {
		l := c.record.Line()
		if l.String() != c.text {
			t.Errorf("line\n%s\nwant\n%s", l, c.text)
		}
		if b, err := json.Marshal(l); err != nil || string(b) != c.json {
			t.Errorf("JSON\n%s, %v\nwant\n%s", b, err, c.json)
		}
	}
}

func line(remote netip.AddrPort, known bool, kind ike.TraceKind, text string) *ike.Trace {
	return &ike.Trace{IKE: 1, Remote: remote, Known: known, Kind: kind, Text: sentence("%s", text), Reason: ike.ReasonTimeout}
}

func texts(records []Record) string {
	var all []string
	for _, r := range records {
		all = append(all, r.Text.String())
	}
	return strings.Join(all, " ")
}

func TestTheReasonOfAnHourAgoIsStillThere(t *testing.T) {
	h := NewHistory()
	h.Add(Record{Time: start, Trace: line(peerA, true, ike.TraceFailed, "why")})
	for i := range 3600 { // more than all rings of the peer, and liveness checks that do not count
		quiet := line(peerA, true, ike.TraceSent, "liveness")
		quiet.Routine = true
		h.Add(Record{Time: start.Add(time.Duration(i) * time.Second), Trace: quiet})
		h.Add(Record{Time: start.Add(time.Duration(i) * time.Second), Trace: line(peerA, true, ike.TraceSent, fmt.Sprint(i))})
	}
	have := h.Records(Filter{Addresses: []netip.Addr{peerA.Addr()}})
	if len(have) != LimitLines+1 || have[0].Text.String() != "why" || have[1].Text.String() != fmt.Sprint(3600-LimitLines) {
		t.Errorf("%d records, the first are %s", len(have), texts(have[:min(len(have), 3)]))
	}
}

func TestStrangersDisplaceNobody(t *testing.T) {
	h := NewHistory()
	h.Add(Record{Trace: line(peerA, true, ike.TraceFailed, "kept")})
	r := rand.New(rand.NewPCG(1, 1))
	for range 200_000 {
		var b [4]byte
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		from := netip.AddrPortFrom(netip.AddrFrom4(b), 500)
		h.Add(Record{Trace: line(from, false, ike.TraceReceived, "stranger")})
		stray := line(from, false, ike.TraceDropped, "stray")
		stray.IKE = 0
		h.Add(Record{Trace: stray})
	}
	if n := len(h.peers); n != LimitStrangers+1 {
		t.Errorf("%d peers are kept, want %d", n, LimitStrangers+1)
	}
	if n := h.stateless.len(); n != LimitStateless {
		t.Errorf("%d lines without SA are kept, want %d", n, LimitStateless)
	}
	if have := texts(h.Records(Filter{Addresses: []netip.Addr{peerA.Addr()}})); have != "kept" {
		t.Errorf("of the peer %q is kept", have)
	}
}

func TestTheWholeIsBounded(t *testing.T) {
	h := NewHistory()
	for i := range LimitPeers * 2 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 500)
		h.Add(Record{Trace: line(from, true, ike.TraceFailed, "failed")})
		for range 40 {
			h.Add(Record{Trace: line(from, true, ike.TraceSent, "sent")})
		}
		total := 0
		if i%1000 == 0 {
			for _, p := range h.peers {
				total += p.lines.len() + p.failures.len()
			}
			if total != h.total || total > LimitTotal || len(h.peers) > LimitPeers {
				t.Fatalf("%d lines of %d peers are kept, %d are counted", total, len(h.peers), h.total)
			}
		}
	}
	if have := h.Records(Filter{}); len(have) < LimitTotal/2 {
		t.Errorf("only %d lines are kept", len(have))
	}
}

func TestFilters(t *testing.T) {
	h := NewHistory()
	before := line(peerA, true, ike.TraceSent, "init")
	after := line(peerA, true, ike.TraceReceived, "auth")
	after.Peer, after.IKE = "b.bank.example", 7
	other := line(peerB, true, ike.TraceSent, "other mentions 1fb8eaba")
	other.IKE = 9
	for _, x := range []*ike.Trace{before, after, other} {
		h.Add(Record{Trace: x})
	}
	for _, c := range []struct {
		filter Filter
		want   string
	}{
		{Filter{}, "init auth other mentions 1fb8eaba"},
		{Filter{Names: []string{"B.bank.example"}}, "init auth"}, // what came before it authenticated as well
		{Filter{Names: []string{"b"}}, "init auth"},
		{Filter{Names: []string{"bank"}}, ""},
		{Filter{Addresses: []netip.Addr{peerB.Addr()}}, "other mentions 1fb8eaba"},
		{Filter{IKE: []ike.IKESPI{7}}, "auth"},
		{Filter{Mention: "1fb8eaba"}, "other mentions 1fb8eaba"},
		{Filter{Names: []string{"nobody"}, IKE: []ike.IKESPI{9}}, "other mentions 1fb8eaba"},
	} {
		if have := texts(h.Records(c.filter)); have != c.want {
			t.Errorf("%+v gives %q, want %q", c.filter, have, c.want)
		}
	}
}

func TestReaders(t *testing.T) {
	h := NewHub()
	h.Add(start, line(peerA, true, ike.TraceSent, "0"))
	before, r := h.Watch(Filter{Addresses: []netip.Addr{peerA.Addr()}})
	if texts(before) != "0" {
		t.Errorf("before: %s", texts(before))
	}
	h.Add(start, line(peerB, true, ike.TraceSent, "other"))
	for i := range limitQueue + 10 {
		h.Add(start, line(peerA, true, ike.TraceSent, fmt.Sprint(i+1)))
	}
	for i := range limitQueue {
		if x := <-r.Records(); x.Text.String() != fmt.Sprint(i+1) {
			t.Fatalf("line %d is %s", i+1, x.Text)
		}
	}
	h.Add(start, line(peerA, true, ike.TraceSent, "last"))
	if x := <-r.Records(); x.Kind != ike.TraceLost || !strings.HasPrefix(x.Text.String(), "10 lines") {
		t.Errorf("after 10 lost lines comes %s", x.Line())
	}
	if x := <-r.Records(); x.Text.String() != "last" {
		t.Errorf("the line after the lost ones is %s", x.Line())
	}
	r.Close()
	h.Add(start, line(peerA, true, ike.TraceSent, "late"))
	if len(r.Records()) != 0 {
		t.Error("a closed reader gets lines")
	}
}

// loud fails the test when somebody asks for the text.
type loud struct{ t testing.TB }

func (l loud) String() string {
	l.t.Error("a text is put together although nobody reads it")
	return ""
}

func TestWithoutReadersNothingIsFormatted(t *testing.T) {
	h := NewHub()
	x := line(peerA, true, ike.TraceSent, "")
	x.Text = loud{t}
	if n := testing.AllocsPerRun(1000, func() { h.Add(start, x) }); n > 0 {
		t.Errorf("a line that nobody reads costs %v allocations", n)
	}
}

func TestErrorsInSentencesAreText(t *testing.T) {
	if s := (ike.Sentence{Format: "open: %s", Args: []any{errors.New("no")}}).String(); s != "open: no" {
		t.Error(s)
	}
}

// BenchmarkAdd is what a line costs that nobody reads: the summary of a message, and its place in the history.
func BenchmarkAdd(b *testing.B) {
	h := NewHub()
	m := wire.Message{
		Header:   wire.Header{Exchange: wire.IKEAuth, MessageID: 1},
		Payloads: []wire.Payload{wire.ID{}, wire.Auth{}, wire.Notify{Type: wire.NotifyInitialContact}, wire.TS{}, wire.TS{Responder: true}},
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Add(start, &ike.Trace{IKE: 1, Remote: peerA, Known: true, Kind: ike.TraceSent, Text: m.Summary()})
	}
}

// BenchmarkRead is what it costs where somebody does.
func BenchmarkRead(b *testing.B) {
	r := Record{Time: start, Trace: &ike.Trace{IKE: 1, Remote: peerA, Kind: ike.TraceSent, Text: request()}}
	b.ReportAllocs()
	for b.Loop() {
		_ = r.Line().String()
	}
}
