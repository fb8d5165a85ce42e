package agent

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/identity"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/ikesim"
	"github.com/bailiwick-net/bailiwick/node/keyring"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

const (
	oldKey = "the former key of the branch"
	newKey = "the present key of the branch"
)

// branchPolicy negotiates everything with a preshared key between two peers.
func branchPolicy(own, peer string) spd.Policy {
	everything := spd.Address{Kind: spd.AddressAny}
	return spd.Policy{
		Name:        "Branch",
		KeyExchange: spd.KeyExchange{Offers: proposal.DefaultIKE()},
		Rules: []spd.Rule{{
			ID: "all", Name: "All",
			Filters: []spd.Filter{{ID: "1", Source: spd.Address{Kind: spd.AddressMe}, Destination: everything, Mirrored: true}},
			Action:  spd.FilterAction{Name: "Require", Action: spd.ActionNegotiate, Offers: proposal.DefaultESP()},
			Auth:    []spd.Auth{{Method: spd.AuthPSK, Secret: "branch", LocalID: "fqdn:" + own, RemoteID: "fqdn:" + peer}},
		}},
	}
}

// TestRotationOfAPresharedKey plays what machines meet while a key is changed and not all of them have heard of it.
func TestRotationOfAPresharedKey(t *testing.T) {
	one := func(key string) map[string]sa.Secret {
		return map[string]sa.Secret{"branch": sa.NewSecret([]byte(key))}
	}
	both := one(newKey)
	both[keyring.PreviousOf("branch")] = sa.NewSecret([]byte(oldKey))
	for _, tt := range []struct {
		name               string
		initiator, answers map[string]sa.Secret
		up                 bool
	}{
		{"both have heard", both, both, true},
		{"the initiator has not heard", one(oldKey), both, true},
		{"the time of the former value is over", one(newKey), one(newKey), true},
		{"the time is over and the initiator never heard", one(oldKey), one(newKey), false},
		// Refused with the present key, the initiator tries its next entry.
		{"the responder has not heard", both, one(oldKey), true},
		{"the time is over and the responder never heard", one(newKey), one(oldKey), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := ikesim.New(1, ikesim.Faults{})
			addresses := map[string]netip.Addr{"a": netip.MustParseAddr("192.0.2.1"), "b": netip.MustParseAddr("192.0.2.2")}
			configure := func(name, peer string, keys map[string]sa.Secret) ike.Config {
				set, err := spd.Expand(branchPolicy(name, peer), spd.Facts{Addresses: []netip.Addr{addresses[name]}})
				if err != nil {
					t.Fatal(err)
				}
				return IKEConfig(set, identity.Credentials{}, Negotiation{Secrets: keys})
			}
			a := w.Add("a", addresses["a"], configure("a", "b", tt.initiator))
			b := w.Add("b", addresses["b"], configure("b", "a", tt.answers))
			from, to := addresses["a"], addresses["b"]
			a.Do(ike.Acquire{Flow: ike.Flow{
				Rule: "all", Local: from, Remote: to,
				LocalTS: sa.Selector{From: from, To: from, PortTo: 65535}, RemoteTS: sa.Selector{From: to, To: to, PortTo: 65535},
			}})
			w.Run(time.Second)
			up := 0
			for _, s := range b.Engine.Snapshot().SAs {
				if len(s.Children) > 0 {
					up++
				}
			}
			if (up == 1) != tt.up {
				t.Errorf("%d associations, wanted up %v; failures %+v", up, tt.up, a.Engine.Snapshot().Failures)
			}
			// The end of the former value ends what stands on it.
			if tt.name == "the initiator has not heard" {
				b.Do(ike.Reconfigure{Config: configure("b", "a", one(newKey))})
				w.Run(time.Second)
				if left := b.Engine.Snapshot().SAs; len(left) != 0 {
					t.Errorf("%d associations stand on a value whose time is over", len(left))
				}
			}
			for _, broken := range w.Broken {
				t.Error(broken)
			}
		})
	}
}

func TestAcceptingLeavesThePolicyAlone(t *testing.T) {
	entries := []spd.Auth{{Method: spd.AuthPSK, Secret: "a"}, {Method: spd.AuthCertificate}, {Method: spd.AuthPSK, Secret: "b", PPK: "q"}}
	before := fmt.Sprint(entries)
	keys := map[string]sa.Secret{keyring.PreviousOf("b"): sa.NewSecret([]byte(oldKey))}
	got := accepting(entries[:3:3], keys)
	if len(got) != 4 || got[2].Secret != "b" || got[3].Secret != keyring.PreviousOf("b") || got[3].PPK != "q" || fmt.Sprint(entries) != before {
		t.Errorf("entries are %+v, of the policy %+v", got, entries)
	}
	if same := accepting(entries, nil); &same[0] != &entries[0] {
		t.Error("a list without former values was copied")
	}
}

func sealed(t *testing.T, p spd.Policy) compile.Bundle {
	t.Helper()
	b, err := compile.Seal(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDeliveredKeysFollowThePolicies tells when keys come, change and go.
func TestDeliveredKeysFollowThePolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := prepare(t, filepath.Join(t.TempDir(), "state"))
		ring, err := keyring.Open(s.dir, filepath.Join(s.dir, "secrets"))
		if err != nil {
			t.Fatal(err)
		}
		s.agent.config.Keys = ring
		var log strings.Builder // the agent writes, and the test reads when it has stopped
		s.agent.config.Logger = hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &log})
		s.start()
		s.session.events <- control.Connected{Controller: "controller:7443"}
		deliver := func(secrets ...*nodev1.Secret) {
			s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Secrets{Secrets: &nodev1.Secrets{Secrets: secrets}}})
		}
		want := func(what string, keys map[string]string) {
			t.Helper()
			got := s.engine.last().Secrets
			for name, text := range keys {
				if !got[name].Equal(sa.NewSecret([]byte(text))) {
					t.Errorf("%s: key %q is not the one wanted", what, name)
				}
			}
			if len(got) != len(keys) {
				t.Errorf("%s: the engine has %d keys, wanted %d", what, len(got), len(keys))
			}
		}
		s.facts = spd.Facts{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}

		deliver(&nodev1.Secret{Name: "branch", Kind: "psk", Value: []byte(oldKey)})
		branch := sealed(t, branchPolicy("a", "b"))
		s.assign(1, branch, "Branch")
		s.deliver(branch)
		s.confirm(1)
		want("the first policy", map[string]string{"branch": oldKey})

		// A change reaches the engine without a new policy, and the former value ends by itself.
		deliver(&nodev1.Secret{Name: "branch", Kind: "psk", Value: []byte(newKey), Previous: []byte(oldKey), PreviousUntil: timestamppb.New(time.Now().Add(time.Minute))})
		want("the changed key", map[string]string{"branch": newKey, keyring.PreviousOf("branch"): oldKey})
		if auth := s.engine.last().Rules[0].Auth; len(auth) != 2 || auth[1].Secret != keyring.PreviousOf("branch") {
			t.Errorf("authentication is %+v, wanted the present key and the former one", auth)
		}
		<-time.After(time.Minute + time.Second) // of the bubble
		synctest.Wait()
		want("after the overlap", map[string]string{"branch": newKey})

		// What is not valid is refused whole and without the key in the words.
		deliver(&nodev1.Secret{Name: "branch", Kind: "psk", Value: []byte("short")})
		want("a key that is too short", map[string]string{"branch": newKey})
		shown, err := json.Marshal(s.status())
		if err != nil {
			t.Fatal(err)
		}
		s.stop()
		if !strings.Contains(log.String(), "preshared keys of the controller were replaced") || !strings.Contains(string(shown), "branch") {
			t.Errorf("log and status do not tell of the key:\n%s\n%s", log.String(), shown)
		}
		for _, key := range []string{oldKey, newKey, base64.StdEncoding.EncodeToString([]byte(newKey))} {
			if strings.Contains(log.String()+string(shown), key) || strings.Contains(fmt.Sprintf("%+v", s.session.said), key) {
				t.Error("log, status or a message to the controller hold a key")
			}
		}
	})
}

func TestKeysStayWhileAPolicyMayComeBack(t *testing.T) {
	s := prepare(t, filepath.Join(t.TempDir(), "state"))
	a := s.agent
	branch := sealed(t, branchPolicy("a", "b"))
	other := bundleNamed(t, "Other")
	a.current = Version{Digest: branch.Digest, Content: branch.Policy}
	a.pending = &pending{version: Version{Digest: other.Digest, Content: other.Policy}}
	if named := a.namesSecret(); !named("branch") || named("another") {
		t.Error("on probation: the policy that may come back does not keep its key, or another one is kept")
	}
	a.current, a.pending = a.pending.version, nil
	if named := a.namesSecret(); named("branch") {
		t.Error("after the commit the key is still named")
	}
	a.current.Content = []byte("not a bundle")
	if named := a.namesSecret(); !named("branch") {
		t.Error("a policy that cannot be read lets keys go")
	}
	if strings.Contains(fmt.Sprintf("%+v", a.negotiation()), newKey) {
		t.Error("the configuration prints a key")
	}
}

// A policy that came and went between two looks at the keys leaves none behind.
func TestKeysOfAShortLivedPolicyGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := prepare(t, filepath.Join(t.TempDir(), "state"))
		ring, err := keyring.Open(s.dir, filepath.Join(s.dir, "secrets"))
		if err != nil {
			t.Fatal(err)
		}
		s.agent.config.Keys = ring
		s.start()
		s.session.events <- control.Connected{Controller: "controller:7443"}
		change := func(revision uint64, b compile.Bundle, name string, secrets ...*nodev1.Secret) {
			s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Secrets{Secrets: &nodev1.Secrets{Secrets: secrets}}})
			s.assign(revision, b, name)
			s.deliver(b)
			s.confirm(revision)
		}
		other, branch := bundleNamed(t, "Other"), sealed(t, branchPolicy("a", "b"))
		change(1, other, "Other")
		<-time.After(2 * time.Second) // of the bubble
		change(2, branch, "Branch", &nodev1.Secret{Name: "branch", Kind: "psk", Value: []byte(newKey)})
		change(3, other, "Other")
		<-time.After(2 * time.Second) // of the bubble
		s.stop()
		if keys := ring.Keys(time.Now()); len(keys) != 0 {
			t.Errorf("%d keys are left, wanted none", len(keys))
		}
	})
}
