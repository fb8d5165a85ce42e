package agent

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// lookups is a DNS of one name, which can fail.
type lookups struct {
	mu     sync.Mutex
	answer []netip.Addr
}

func (l *lookups) lookup(context.Context, string) ([]netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answer == nil {
		return nil, errors.New("no resolver here")
	}
	return l.answer, nil
}

func (l *lookups) says(addresses ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answer = nil
	for _, a := range addresses {
		l.answer = append(l.answer, netip.MustParseAddr(a))
	}
}

func naming(t *testing.T, name string, action spd.Action) compile.Bundle {
	t.Helper()
	rule := spd.Rule{ID: "partner", Name: "partner", Action: spd.FilterAction{Action: action}, Filters: []spd.Filter{{
		ID: "f", Source: spd.Address{Kind: spd.AddressMe}, Destination: spd.Address{Kind: spd.AddressName, Name: "web.partner.example"},
	}}}
	p := spd.Policy{Name: name, KeyExchange: spd.KeyExchange{Offers: proposal.DefaultIKE()}}
	if action == spd.ActionNegotiate {
		rule.Action.Offers, rule.Auth = proposal.DefaultESP(), []spd.Auth{{Method: spd.AuthCertificate}}
	}
	p.Rules = []spd.Rule{rule}
	b, err := compile.Seal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// to lists where the filters in force point to.
func (s *story) to() string {
	s.t.Helper()
	status, err := s.agent.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, f := range status.Set.Filters() {
		if f.Exempt == "" {
			out = append(out, f.Destination.String())
		}
	}
	return strings.Join(out, " ")
}

func (s *story) problem() string {
	s.t.Helper()
	status, err := s.agent.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return status.Problem
}

func TestPolicyFollowsDNS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := begin(t, dir)
		s.session.events <- control.Connected{Controller: "c"}
		s.lookups.says("198.51.100.1", "2001:db8::1")
		b := naming(t, "first", spd.ActionNegotiate)
		s.facts.Addresses = append(s.facts.Addresses, netip.MustParseAddr("2001:db8::ff"))
		s.assign(1, b, "first")
		s.deliver(b)
		if got := s.to(); got != "2001:db8::1 198.51.100.1" {
			t.Errorf("filters point to %q", got)
		}
		s.confirm(1)
		s.lookups.says("198.51.100.2")
		advance(61 * time.Second)
		if got := s.to(); got != "198.51.100.2" {
			t.Errorf("after another answer filters point to %q", got)
		}
		s.lookups.says() // fails
		advance(10 * time.Minute)
		if got := s.to(); got != "198.51.100.2" {
			t.Errorf("after failed lookups filters point to %q", got)
		}
		if got := s.problem(); !strings.Contains(got, "dns:web.partner.example of the policy cannot be resolved since ") || !strings.HasSuffix(got, "its last addresses stay: no resolver here") {
			t.Errorf("status says %q", got)
		}
		s.stop()

		// Without a resolver the next process goes on with the addresses that the last one knew.
		s = begin(t, dir)
		if got := s.to(); got != "198.51.100.2" {
			t.Errorf("after a restart without a resolver filters point to %q", got)
		}
		s.lookups.says("198.51.100.3")
		advance(2 * time.Minute)
		if got, problem := s.to(), s.problem(); got != "198.51.100.3" || problem != "" {
			t.Errorf("with a resolver again filters point to %q, problem %q", got, problem)
		}
		s.stop()
	})
}

// A name that was never resolved keeps a policy that blocks or negotiates with it out, and the previous one in.
func TestPolicyWithANameThatDoesNotResolve(t *testing.T) {
	for _, action := range []spd.Action{spd.ActionBlock, spd.ActionNegotiate, spd.ActionPermit} {
		synctest.Test(t, func(t *testing.T) {
			s := begin(t, filepath.Join(t.TempDir(), "state"))
			defer s.stop()
			s.session.events <- control.Connected{Controller: "c"}
			first := bundleNamed(t, "first")
			s.assign(1, first, "first")
			s.deliver(first)
			s.confirm(1)
			b := naming(t, "second", action)
			s.assign(2, b, "second")
			s.deliver(b)
			if action == spd.ActionPermit {
				s.wantEnforced("first", "second")
				if got := s.to(); got != "" {
					t.Errorf("filters point to %q", got)
				}
				return
			}
			s.wantEnforced("first")
			if told := last(s.session.acknowledgements()); !strings.Contains(told, "web.partner.example, which was never resolved") {
				t.Errorf("the controller was told %q", told)
			}
			s.lookups.says("198.51.100.1")
			advance(11 * time.Second)
			s.deliver(b)
			s.wantEnforced("first", "second")
			if got := s.to(); got != "198.51.100.1" {
				t.Errorf("filters point to %q", got)
			}
		})
	}
}
