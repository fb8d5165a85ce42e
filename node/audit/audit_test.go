package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

var update = flag.Bool("update", false, "write the generated documents")

var (
	start  = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	local  = netip.MustParseAddrPort("10.0.0.1:500")
	remote = netip.MustParseAddrPort("10.0.0.2:500")
	suite  = proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}
	esp    = proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 128}
)

func host(a netip.AddrPort) sa.Selector {
	return sa.Selector{Protocol: 6, From: a.Addr(), To: a.Addr(), PortTo: 65535}
}

func someChild() sa.Child {
	return sa.Child{
		Rule: "r1", Peer: "b.example", Mode: sa.Transport, Local: local, Remote: remote, Suite: esp,
		LocalTS: []sa.Selector{host(local)}, RemoteTS: []sa.Selector{host(remote)},
		In:  sa.Keys{SPI: 0x11111111, Encryption: sa.NewSecret([]byte("SECRET"))},
		Out: sa.Keys{SPI: 0x22222222, Encryption: sa.NewSecret([]byte("SECRET"))},
	}
}

func someFlow() ike.Flow {
	return ike.Flow{Rule: "r1", Local: local.Addr(), Remote: remote.Addr(), LocalTS: host(local), RemoteTS: host(remote)}
}

func dropped(spi ike.IKESPI, r ike.Reason) *ike.Trace {
	return &ike.Trace{IKE: spi, Remote: remote, Kind: ike.TraceDropped, Reason: r, Text: ike.Sentence{Format: "12 octets"}}
}

func failure(spi ike.IKESPI, child bool, r ike.Reason) *ike.Trace {
	return &ike.Trace{
		IKE: spi, Remote: remote, Rule: "r1", Child: child, Kind: ike.TraceFailed, Reason: r, Fault: ike.FaultPeer, Text: ike.Sentence{Format: "why"},
	}
}

const (
	up   = `"ike":"0000000000000007","local":"10.0.0.1:500","remote":"10.0.0.2:500","peer":"b.example"`
	down = `"ike":"0000000000000007","remote":"10.0.0.2:500","peer":"b.example"`
	pair = `"spiIn":"11111111","spiOut":"22222222","local":"10.0.0.1:500","remote":"10.0.0.2:500","peer":"b.example","suite":"ESP[AES-GCM-128]","rule":"r1","mode":"transport","localTS":["10.0.0.1 protocol 6"],"remoteTS":["10.0.0.2 protocol 6"]`
	flw  = `"local":"10.0.0.1","remote":"10.0.0.2","rule":"r1","localTS":["10.0.0.1 protocol 6"],"remoteTS":["10.0.0.2 protocol 6"]`
)

// TestRows is the table of semantics: each row of the events, what happens, and the line that it makes.
func TestRows(t *testing.T) {
	isUp := ike.Up{IKE: 7, Peer: "b.example", Local: local, Remote: remote, Suite: suite, Auth: spd.AuthPSK}
	byCert := isUp
	byCert.Auth, byCert.Replaces = spd.AuthCertificate, 6
	end := func(r ike.Reason, f ike.Fault, detail string) ike.Down {
		return ike.Down{IKE: 7, Peer: "b.example", Remote: remote, Reason: r, Fault: f, Detail: detail}
	}
	seen := make(map[Kind]bool)
	for _, c := range []struct {
		before []ike.Action
		action ike.Action
		kind   Kind
		want   string // what follows the name of the event; empty when there is none
	}{
		{nil, isUp, MainEstablished, `"outcome":"success","count":1,` + strings.Replace(up, `"b.example"`, `"b.example","authentication":"psk","suite":"AES-GCM-256-SHA256-x25519"`, 1)},
		{nil, byCert, MainEstablishedByCert, `"outcome":"success","count":1,` + strings.Replace(strings.Replace(up, `7",`, `7","replaces":"0000000000000006",`, 1), `"b.example"`, `"b.example","authentication":"certificate","suite":"AES-GCM-256-SHA256-x25519"`, 1)},
		{nil, end(ike.ReasonCertExpired, ike.FaultPeer, "expired yesterday"), MainFailedByCert, `"outcome":"failure","count":1,` + down + `,"reason":"certificate-expired","fault":"peer","detail":"expired yesterday"`},
		{nil, ike.Down{IKE: 7, Peer: "10.0.0.2", Remote: remote, Reason: ike.ReasonTimeout, Fault: ike.FaultNetwork}, MainFailed, `"outcome":"failure","count":1,"ike":"0000000000000007","remote":"10.0.0.2:500","reason":"peer-silent","fault":"network"`},
		{nil, failure(0, false, ike.ReasonNoProposal), MainFailed, `"outcome":"failure","count":1,"remote":"10.0.0.2","rule":"r1","reason":"no-proposal-chosen","fault":"peer","detail":"why"`},
		{nil, failure(0, false, ike.ReasonUnknownIssuer), MainFailedByCert, `"outcome":"failure","count":1,"remote":"10.0.0.2","rule":"r1","reason":"unknown-issuer","fault":"peer","detail":"why"`},
		{nil, failure(7, false, ike.ReasonTimeout), 0, ""}, // the Down of that SA has told
		{nil, failure(7, true, ike.ReasonTSUnacceptable), QuickFailed, `"outcome":"failure","count":1,"ike":"0000000000000007","remote":"10.0.0.2","rule":"r1","reason":"ts-unacceptable","fault":"peer","detail":"why"`},
		{[]ike.Action{isUp}, end(ike.ReasonLiveness, ike.FaultNetwork, "no response"), MainEnded, `"count":1,` + down + `,"reason":"peer-lost","fault":"network","detail":"no response"`},
		{[]ike.Action{isUp}, end(ike.ReasonDeleted, ike.FaultNone, ""), Deleted, `"outcome":"success","count":1,` + down + `,"reason":"deleted"`},
		{[]ike.Action{isUp, end(ike.ReasonRekeyed, ike.FaultNone, "")}, end(ike.ReasonInternal, ike.FaultLocal, ""), MainFailed, `"outcome":"failure","count":1,` + down + `,"reason":"internal-error","fault":"local"`},
		{nil, ike.InstallOut{Child: someChild()}, QuickEstablished, `"outcome":"success","count":1,` + pair},
		{nil, ike.InstallIn{Child: someChild()}, 0, ""},
		{nil, ike.Remove{Child: someChild(), Reason: ike.ReasonExpired}, QuickEnded, `"count":1,` + pair + `,"reason":"expired","fault":"local"`},
		{nil, ike.Remove{Child: someChild(), Reason: ike.ReasonDeleted}, Deleted, `"outcome":"success","count":1,` + pair + `,"reason":"deleted"`},
		{nil, dropped(0, ike.ReasonMalformed), InvalidMainPacket, `"outcome":"failure","count":1,"remote":"10.0.0.2","reason":"malformed-message","fault":"peer","detail":"12 octets"`},
		{nil, dropped(7, ike.ReasonIntegrity), InvalidMainPacket, `"outcome":"failure","count":1,"ike":"0000000000000007","remote":"10.0.0.2","reason":"integrity-check-failed","fault":"peer","detail":"12 octets"`},
		{[]ike.Action{isUp}, dropped(7, ike.ReasonIntegrity), InvalidQuickPacket, `"outcome":"failure","count":1,"ike":"0000000000000007","remote":"10.0.0.2","reason":"integrity-check-failed","fault":"peer","detail":"12 octets"`},
		{[]ike.Action{isUp}, dropped(7, ike.ReasonMessageID), 0, ""}, // networks repeat
		{nil, ike.Fallback{Flow: someFlow(), TTL: time.Minute}, SoftAssociation, `"outcome":"success","count":1,` + flw},
		{nil, ike.Refuse{Flow: someFlow(), Reason: ike.ReasonShutdown}, NotRunning, `"outcome":"failure","count":1,` + flw + `,"reason":"shutdown","fault":"local"`},
		{nil, ike.Refuse{Flow: someFlow(), Reason: ike.ReasonTimeout}, 0, ""},
		{nil, &ike.Trace{Kind: ike.TraceGuard, Reason: ike.ReasonHalfOpenLimit, Text: ike.Sentence{Format: "many"}}, DoSProtection, `"count":1,"reason":"half-open-limit","fault":"peer","detail":"many"`},
		{nil, &ike.Trace{Kind: ike.TraceSent, Text: ike.Sentence{Format: "x"}}, 0, ""},
		{nil, ike.Send{}, 0, ""},
		{nil, ike.KeyLog{Line: sa.NewSecret([]byte("SECRET"))}, 0, ""},
	} {
		x := newTranslator()
		for _, a := range c.before {
			x.event(start, a)
		}
		e, ok := x.event(start, c.action)
		if !ok {
			if c.want != "" {
				t.Errorf("%T %+v makes no event", c.action, c.action)
			}
			continue
		}
		seen[e.ID] = true
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf(`{"time":"2030-01-02T03:04:05Z","id":%d,"event":%q,%s}`, c.kind, describe(c.kind).Name, c.want)
		if string(b) != want {
			t.Errorf("%T makes\n%s\nwant\n%s", c.action, b, want)
		}
		if bytes.Contains(b, []byte("SECRET")) {
			t.Errorf("%T gives a key away: %s", c.action, b)
		}
	}
	for _, d := range Descriptions() {
		if !seen[d.Kind] && d.Kind != ServiceStarted && d.Kind != ServiceStopped {
			t.Errorf("nothing here makes event %d, %s", d.Kind, d.Name)
		}
	}
}

// memory is a file that tests read.
type memory struct {
	bytes.Buffer
	closed bool
}

func (m *memory) Close() error { m.closed = true; return nil }

func (m *memory) events(t *testing.T) []Event {
	t.Helper()
	var events []Event
	for _, line := range strings.Split(strings.TrimSpace(m.String()), "\n") {
		var e Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

// drain lets Run write everything and end.
func drain(t *testing.T, l *Log) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestNoEventGoesUncounted floods the log with events of several kinds and reasons, and adds up what it wrote.
func TestNoEventGoesUncounted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &memory{}
		l, err := New(hclog.NewNullLogger(), "")
		if err != nil {
			rt.Fatal(err)
		}
		l.file = m
		now := start
		want := make(map[string]uint64)
		l.Started(now)
		want["4709"]++
		for range rapid.IntRange(0, 3000).Draw(rt, "events") {
			now = now.Add(time.Duration(rapid.IntRange(0, 5).Draw(rt, "ms")) * time.Millisecond)
			reason := rapid.SampledFrom([]ike.Reason{ike.ReasonMalformed, ike.ReasonIntegrity, ike.ReasonUnprotected}).Draw(rt, "reason")
			l.Observe(now, dropped(0, reason))
			want["4976"]++
			want[string(reason)]++
			if rapid.IntRange(0, 50).Draw(rt, "fail") == 0 {
				l.Observe(now, failure(0, false, ike.ReasonNoProposal))
				want["4653"]++
				want["no-proposal-chosen"]++
			}
		}
		l.Stopped(now)
		want["4710"]++
		drain(t, l)
		have := make(map[string]uint64)
		lines := m.events(t)
		for _, e := range lines {
			have[fmt.Sprint(e.ID)] += e.Count
			if e.Reason != "" {
				have[e.Reason] += e.Count
			}
		}
		if !reflect.DeepEqual(have, want) {
			rt.Errorf("%v events were written, want %v", have, want)
		}
		if most := int(now.Sub(start).Seconds()*perSec+burst)*2 + 10; len(lines) > most {
			rt.Errorf("%d lines, want at most %d", len(lines), most)
		}
		if !m.closed {
			rt.Error("the file is not closed")
		}
	})
}

// TestAFloodHidesNothing: a kind that is not flooded keeps its lines.
func TestAFloodHidesNothing(t *testing.T) {
	m := &memory{}
	l, err := New(hclog.NewNullLogger(), "")
	if err != nil {
		t.Fatal(err)
	}
	l.file = m
	for range 10 * limitQueue {
		l.Observe(start, dropped(0, ike.ReasonMalformed))
	}
	l.Observe(start, failure(0, false, ike.ReasonNoProposal))
	drain(t, l)
	events := m.events(t)
	single := slices.IndexFunc(events, func(e Event) bool { return e.ID == MainFailed && e.Detail == "why" && e.Count == 1 })
	many := slices.IndexFunc(events, func(e Event) bool { return e.ID == InvalidMainPacket && e.Count > 1 })
	if single < 0 || many < 0 || events[many].Count != 10*limitQueue-burst || events[many].Since.IsZero() || len(events) != burst+2 {
		t.Errorf("%d lines, the last are %+v", len(events), events[max(0, len(events)-2):])
	}
}

func TestLoggerGetsNoAddress(t *testing.T) {
	for _, level := range []hclog.Level{hclog.Info, hclog.Debug} {
		var out bytes.Buffer
		l, err := New(hclog.New(&hclog.LoggerOptions{Name: "audit", Level: level, Output: &out}), "")
		if err != nil {
			t.Fatal(err)
		}
		l.Observe(start, ike.Up{IKE: 7, Peer: "b.example", Local: local, Remote: remote, Suite: suite, Auth: spd.AuthPSK})
		l.Observe(start, ike.Down{IKE: 8, Peer: "10.0.0.2", Remote: remote, Reason: ike.ReasonTimeout, Fault: ike.FaultNetwork, Detail: "no response"})
		drain(t, l)
		for _, want := range []string{"[INFO]  audit: audit: id=4650 event=main-mode-established", "peer=b.example", "[WARN]  audit: audit: id=4653", "reason=peer-silent"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the log has no %q:\n%s", want, out.String())
			}
		}
		if strings.Contains(out.String(), "10.0.0.2") != (level == hclog.Debug) {
			t.Errorf("at level %s the log is\n%s", level, out.String())
		}
	}
}

func TestFileIsRotated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.json")
	f, err := openFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		t.Helper()
		f.looked = time.Time{} // a second has passed
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) string {
		t.Helper()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	write("one ")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write("two ")
	if err := os.Rename(path, path+".2"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil { // as logrotate's "create" does
		t.Fatal(err)
	}
	write("three ")
	if read(path+".1") != "one " || read(path+".2") != "two " || read(path) != "three " {
		t.Errorf("rotated files hold %q, %q, %q", read(path+".1"), read(path+".2"), read(path))
	}
	if info, err := os.Stat(path + ".2"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a new file has mode %v, %v", info.Mode(), err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := New(hclog.NewNullLogger(), filepath.Join(path, "below-a-file")); err == nil {
		t.Error("a path that cannot be is accepted")
	}
}

// TestAuditDocument keeps AUDIT.md: go test ./node/audit -run Document -update writes it.
func TestAuditDocument(t *testing.T) {
	var b strings.Builder
	b.WriteString("# Audit events\n\nThe node writes who was let in, who was not and why: to its log (logger `audit`, without addresses unless the level is\n")
	b.WriteString("debug), and with `bailiwick-node run --audit-file FILE` to a file of JSON objects, one a line. A file that was renamed is\n")
	b.WriteString("opened anew within a second, so any log rotation will do. Numbers are those of Windows.\n\n")
	fmt.Fprintf(&b, "Each event gets at most %d lines at once and %d a second after that. What comes faster is counted by event, reason and\n", burst, perSec)
	fmt.Fprintf(&b, "fault, and the counts are written every %d seconds, with `count` and `since`: no event goes uncounted.\n", int(flushEvery.Seconds()))
	b.WriteString("This file is generated from the code.\n\n| id | event | outcome | meaning |\n|---|---|---|---|\n")
	for _, d := range Descriptions() {
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s |\n", d.Kind, d.Name, d.Outcome, d.Meaning)
	}
	if *update {
		if err := os.WriteFile("AUDIT.md", []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile("AUDIT.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("AUDIT.md is not what the code says; run go test ./node/audit -run Document -update")
	}
}
