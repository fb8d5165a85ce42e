package agent

import (
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/datapath"
	"github.com/bailiwick-net/bailiwick/node/facts"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// fakeDatapath records the names of the policies that were put into force.
type fakeDatapath struct {
	mu   sync.Mutex
	log  []string
	fail error
	soft int
}

func (d *fakeDatapath) SetPolicy(_ context.Context, set spd.Set) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return d.fail
	}
	d.log = append(d.log, set.Name())
	return nil
}

func (d *fakeDatapath) Status() datapath.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return datapath.Status{Backend: "fake", Soft: make([]datapath.SoftStatus, d.soft)}
}

type fakeEngine struct {
	mu       sync.Mutex // guards configs
	configs  []ike.Config
	rechecks int
}

func (e *fakeEngine) Recheck(context.Context) error {
	e.rechecks++
	return nil
}

func (e *fakeEngine) AddressesChanged(context.Context, []netip.Addr) error { return nil }

func (e *fakeEngine) Reconfigure(_ context.Context, c ike.Config) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.configs = append(e.configs, c)
	return nil
}

// last is the configuration in force.
func (e *fakeEngine) last() ike.Config {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.configs[len(e.configs)-1]
}

func (e *fakeEngine) Snapshot(context.Context) (engine.Snapshot, error) {
	return engine.Snapshot{}, nil
}

// fakeSession is the controller's side of the conversation.
type fakeSession struct {
	events chan control.Event
	mu     sync.Mutex
	said   []*nodev1.ConnectRequest
	full   bool // takes nothing
}

func (s *fakeSession) set(change func(*fakeSession)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *fakeSession) Events() <-chan control.Event { return s.events }
func (s *fakeSession) Send(m *nodev1.ConnectRequest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full {
		return false
	}
	s.said = append(s.said, m)
	return true
}

// sent is what the node said so far.
func (s *fakeSession) sent() []*nodev1.ConnectRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.said)
}

func (s *fakeSession) acknowledgements() []string {
	var out []string
	for _, m := range s.sent() {
		if a := m.GetAcknowledgement(); a != nil {
			out = append(out, a.GetError())
		}
	}
	return out
}

type fakeIdentity struct {
	denied *trust.Denials
	groups *trust.Groups
	heard  *time.Time
}

func (f fakeIdentity) Groups() trust.Groups { return *f.groups }

func (f fakeIdentity) SetGroups(g trust.Groups) error {
	*f.groups = g
	return nil
}

func (f fakeIdentity) SetDenials(now time.Time, d trust.Denials) error {
	*f.denied, *f.heard = d, now
	return nil
}

func (f fakeIdentity) ConfirmDenials(now time.Time) error {
	*f.heard = now
	return nil
}

func (fakeIdentity) Credentials() identity.Credentials { return identity.Credentials{} }
func (fakeIdentity) SetTrust(trust.Bundle) error       { return nil }
func (fakeIdentity) RenewWithin(time.Duration)         {}

func (d *fakeDatapath) set(change func(*fakeDatapath)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change(d)
}

func last[T any](list []T) T { return list[len(list)-1] }

// advance lets virtual time pass.
func advance(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// story is an agent with its surroundings.
type story struct {
	t        *testing.T
	dir      string
	datapath *fakeDatapath
	engine   *fakeEngine
	identity fakeIdentity
	session  *fakeSession
	facts    spd.Facts
	names    *facts.Names
	lookups  *lookups
	agent    *Agent
	stop     func()
}

func begin(t *testing.T, dir string) *story {
	s := prepare(t, dir)
	s.start()
	return s
}

// prepare makes an agent that does not run yet.
func prepare(t *testing.T, dir string) *story {
	s := &story{t: t, dir: dir, identity: fakeIdentity{new(trust.Denials), new(trust.Groups), new(time.Time)}, datapath: &fakeDatapath{}, engine: &fakeEngine{}, session: &fakeSession{events: make(chan control.Event)},
		facts: spd.Facts{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}, lookups: &lookups{}}
	s.names = facts.NewNames(s.lookups.lookup)
	a, err := New(Config{
		Dir: dir, Version: "test", Instance: "1", Datapath: s.datapath, Engine: s.engine, Session: s.session, Identity: s.identity,
		Gather: func() (spd.Facts, error) { return s.facts, nil }, Names: s.names, Logger: hclog.NewNullLogger(), Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.agent = a
	return s
}

func (s *story) start() {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() { done <- s.agent.Run(ctx) }()
	go func() { done <- s.names.Run(ctx, s.agent.FactsChanged) }()
	s.stop = func() {
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				s.t.Errorf("run ended with %v", err)
			}
		}
	}
	synctest.Wait()
}

func bundleNamed(t *testing.T, name string) compile.Bundle {
	t.Helper()
	b, err := compile.Seal(spd.Policy{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (s *story) say(r *nodev1.ConnectResponse) {
	s.session.events <- control.Message{Response: r}
	synctest.Wait()
}

func (s *story) assign(revision uint64, b compile.Bundle, name string) {
	s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Assignment{Assignment: &nodev1.Assignment{
		Revision: revision, Digest: b.Digest[:], Policy: name, Container: "ou=servers,dc=bank,dc=example",
	}}})
}

func (s *story) deliver(b compile.Bundle) {
	s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Bundle{Bundle: &nodev1.Bundle{Digest: b.Digest[:], Policy: b.Policy}}})
}

func (s *story) confirm(revision uint64) {
	s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Confirmed{Confirmed: &nodev1.Confirmed{Revision: revision}}})
}

func (s *story) wantEnforced(names ...string) {
	s.t.Helper()
	s.datapath.mu.Lock()
	defer s.datapath.mu.Unlock()
	if got, want := strings.Join(s.datapath.log, " "), strings.Join(names, " "); got != want {
		s.t.Errorf("policies put into force: %q, want %q", got, want)
	}
}

func (s *story) status() Status {
	s.t.Helper()
	status, err := s.agent.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

func TestPolicyIsCommittedOnceTheControllerConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := begin(t, dir)
		server := bundleNamed(t, "server")
		s.assign(7, server, "server")
		if want := last(s.session.sent()).GetWant(); string(want.GetDigest()) != string(server.Digest[:]) {
			t.Fatalf("node asked for %x, want the assigned bundle", want.GetDigest())
		}
		s.deliver(server)
		s.wantEnforced("server")
		if st := s.status(); !st.Pending || st.Revision != 7 {
			t.Errorf("before the confirmation: %+v, want revision 7 on probation", st)
		}
		s.confirm(7)
		if st := s.status(); st.Pending || st.Policy != "server" {
			t.Errorf("after the confirmation: %+v, want it committed", st)
		}
		s.stop()

		again := begin(t, dir)
		defer again.stop()
		again.wantEnforced("server")
		if st := again.status(); st.Revision != 7 || st.Pending {
			t.Errorf("after a restart without controller: %+v, want revision 7 in force", st)
		}
	})
}

func TestUnconfirmedPolicyIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		good, bad := bundleNamed(t, "good"), bundleNamed(t, "bad")
		s.assign(1, good, "good")
		s.deliver(good)
		s.confirm(1)
		s.assign(2, bad, "bad")
		s.deliver(bad)
		s.wantEnforced("good", "bad")
		advance(35 * time.Second)
		s.wantEnforced("good", "bad", "good")
		if st := s.status(); st.Revision != 1 || st.Pending || !strings.Contains(st.Problem, "taken back") {
			t.Errorf("status %+v, want revision 1 and a problem that says why", st)
		}
		s.assign(2, bad, "bad")
		s.wantEnforced("good", "bad", "good")
		acks := s.session.acknowledgements()
		if got := last(acks); !strings.Contains(got, "not tried again before") {
			t.Errorf("assignment of the same policy was answered %q, want a refusal for now", got)
		}
		advance(3 * time.Minute)
		s.assign(3, bad, "bad")
		s.deliver(bad)
		s.confirm(3)
		s.wantEnforced("good", "bad", "good", "bad")
	})
}

func TestFirstPolicyIsTakenBackToNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		bad := bundleNamed(t, "bad")
		s.assign(1, bad, "bad")
		s.deliver(bad)
		advance(35 * time.Second)
		s.wantEnforced("bad", policies.NoneName)
	})
}

func TestAlteredBundleChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		good, other := bundleNamed(t, "good"), bundleNamed(t, "other")
		s.assign(1, good, "good")
		s.deliver(compile.Bundle{Digest: good.Digest, Policy: other.Policy})
		s.wantEnforced()
		acks := s.session.acknowledgements()
		if len(acks) != 1 || !strings.Contains(acks[0], "does not match its digest") {
			t.Errorf("acknowledgements %q, want one error about the digest", acks)
		}
		s.deliver(good)
		s.wantEnforced()
	})
}

func TestDatapathFailureKeepsThePreviousPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		good, next := bundleNamed(t, "good"), bundleNamed(t, "next")
		s.assign(1, good, "good")
		s.deliver(good)
		s.confirm(1)
		s.datapath.set(func(d *fakeDatapath) { d.fail = errors.New("netlink: no buffer space available") })
		s.assign(2, next, "next")
		s.deliver(next)
		if st := s.status(); st.Revision != 1 || st.Pending {
			t.Errorf("status %+v, want revision 1 in force", st)
		}
		acks := s.session.acknowledgements()
		if got := last(acks); !strings.Contains(got, "no buffer space") {
			t.Errorf("acknowledgement %q, want the reason", got)
		}
	})
}

func TestFactsChangeExpandsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		good := bundleNamed(t, "good")
		s.assign(1, good, "good")
		s.deliver(good)
		s.confirm(1)
		s.agent.FactsChanged()
		synctest.Wait()
		s.wantEnforced("good")
		s.facts.Addresses = append(s.facts.Addresses, netip.MustParseAddr("192.0.2.2"))
		s.agent.FactsChanged()
		synctest.Wait()
		s.wantEnforced("good", "good")
		s.session.events <- control.Resolved{Addresses: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:7443")}}
		synctest.Wait()
		s.wantEnforced("good", "good", "good")
	})
}

func TestAlteredCacheIsAnErrorAndNothingIsTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := begin(t, dir)
		good := bundleNamed(t, "good")
		s.assign(1, good, "good")
		s.deliver(good)
		s.confirm(1)
		s.stop()
		path := filepath.Join(dir, cacheFile)
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var stored map[string]map[string]any
		if err := json.Unmarshal([]byte(strings.Replace(string(content), `"controllers":null`, `"controllers":{}`, 1)), &stored); err != nil {
			t.Fatal(err)
		}
		altered := strings.Replace(string(content), stored["version"]["content"].(string)[:4], "AAAA", 1)
		if err := os.WriteFile(path, []byte(altered), 0o600); err != nil {
			t.Fatal(err)
		}
		again := begin(t, dir)
		defer again.stop()
		again.wantEnforced()
		if st := again.status(); !strings.Contains(st.Problem, "last good policy") {
			t.Errorf("problem %q, want one about the last good policy", st.Problem)
		}
	})
}

func TestReportIsSentOnChangeAndAtIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		s.session.events <- control.Connected{Controller: "c"}
		synctest.Wait()
		reports := func() (n int) {
			for _, m := range s.session.sent() {
				if m.GetReport() != nil {
					n++
				}
			}
			return n
		}
		if s.session.sent()[0].GetHello() == nil || reports() != 1 {
			t.Fatalf("after connecting: first message %v and %d reports, want hello and 1", s.session.sent()[0], reports())
		}
		advance(10 * time.Second)
		if reports() != 1 {
			t.Errorf("%d reports without a change, want 1", reports())
		}
		s.datapath.set(func(d *fakeDatapath) { d.soft = 1 })
		advance(2 * time.Second)
		if reports() != 2 {
			t.Errorf("%d reports after a change, want 2", reports())
		}
		advance(31 * time.Second)
		if reports() != 3 {
			t.Errorf("%d reports after the interval, want 3", reports())
		}
	})
}
