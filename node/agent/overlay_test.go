package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/node/local"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/compile"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// ruleText is a policy of one rule that permits something.
func ruleText(name string) string {
	const head = "apiVersion: bailiwick.net/v1alpha1\n"
	return head + "kind: FilterAction\nname: Let pass\naction: permit\n---\n" +
		head + "kind: Policy\nname: " + name + "\nrules:\n  - {name: Pings, filterList: All ICMP Traffic, filterAction: Let pass}\n"
}

func rulesOf(t *testing.T, name string, kind local.Kind) local.RuleSet {
	t.Helper()
	s, err := local.ParseRules(name+".yaml", []byte(ruleText(name)), kind)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// atHome makes a story on a machine with a local policy "Home" and the rules that its state directory has.
func atHome(t *testing.T, dir string) *story {
	t.Helper()
	s := prepare(t, dir)
	file := filepath.Join(t.TempDir(), "local.yaml")
	if err := os.WriteFile(file, []byte(ruleText("Home")), 0o600); err != nil {
		t.Fatal(err)
	}
	policy, err := local.LoadPolicy(file, "")
	if err != nil {
		t.Fatal(err)
	}
	s.agent.config.LocalPolicy = &policy
	if s.agent.rules, err = local.OpenRules(dir); err != nil {
		t.Fatal(err)
	}
	return s
}

// inPlay names the rules that the last set of the datapath has, by policy and ID.
func (s *story) inPlay() string {
	s.t.Helper()
	var ids []string
	for _, f := range s.status().Set.Filters() {
		if f.Exempt == "" && (len(ids) == 0 || ids[len(ids)-1] != f.RuleID) {
			ids = append(ids, f.RuleID)
		}
	}
	return s.status().Set.Name() + ": " + strings.Join(ids, " ")
}

func (s *story) wantInPlay(what, want string) {
	s.t.Helper()
	if got := s.inPlay(); got != want {
		s.t.Errorf("%s: in force is %q, wanted %q", what, got, want)
	}
}

func (s *story) change(change func(local.Rules) (local.Rules, error)) error {
	s.t.Helper()
	err := s.agent.ChangeRules(context.Background(), change)
	synctest.Wait()
	return err
}

func (s *story) add(set local.RuleSet) error {
	return s.change(func(r local.Rules) (local.Rules, error) { return r.With(set) })
}

// TestLocalPolicyCountsWhileTheDirectoryAssignsNone is rows 6 and 9: a policy of the directory suppresses the local one,
// and the status says so.
func TestLocalPolicyCountsWhileTheDirectoryAssignsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := atHome(t, filepath.Join(t.TempDir(), "state"))
		s.start()
		s.wantInPlay("before the controller was heard", "Home: Pings")
		if got := s.status(); got.Policy != "Home" || !strings.Contains(got.Container, "local.yaml, as the directory assigns none") || got.Digest != "" {
			t.Errorf("status is %+v", got)
		}
		s.session.events <- control.Connected{Controller: "controller:7443"}
		synctest.Wait()
		if hello := s.session.said[0].GetHello(); len(hello.GetDigest()) != 0 || hello.GetRevision() != 0 {
			t.Errorf("hello %v claims an assignment", hello)
		}
		server := sealed(t, branchPolicy("a", "b"))
		s.assign(1, server, "Branch")
		s.deliver(server)
		s.confirm(1)
		s.wantInPlay("assigned by the directory", "Branch: all")
		if own := s.status().Own; own.Suppressed != `the directory assigns policy "Branch", from ou=servers,dc=bank,dc=example` || s.status().Policy != "Branch" {
			t.Errorf("own is %+v", own)
		}
		none := compile.None()
		s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Assignment{Assignment: &nodev1.Assignment{Revision: 2, Digest: none.Digest[:], Policy: policies.NoneName}}})
		s.deliver(none)
		s.confirm(2)
		s.wantInPlay("no longer assigned", "Home: Pings")
		if got := s.status(); got.Revision != 2 || got.Digest != none.Digest.String() || got.Policy != "Home" {
			t.Errorf("status is %+v, wanted the local policy under the assignment of none", got)
		}
		if notes := fmt.Sprint(s.agent.localNotes()); !strings.Contains(notes, `local policy "Home" counts`) {
			t.Errorf("the controller is told %s", notes)
		}
		s.stop()
		// A restart without the controller: what was assigned last counts, cached.
		s = atHome(t, s.dir)
		s.start()
		s.wantInPlay("after a restart", "Home: Pings")
		s.stop()
	})
}

// TestRulesStandBesideThePolicy is row 78: dynamic rules vanish with the daemon, persistent ones do not.
func TestRulesStandBesideThePolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := begin(t, dir)
		var err error
		if s.agent.rules, err = local.OpenRules(dir); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.add(rulesOf(t, "kept", local.Persistent)), s.add(rulesOf(t, "gone", local.Dynamic))); err != nil {
			t.Fatal(err)
		}
		s.wantInPlay("without any policy", "none: dynamic:gone/Pings persistent:kept/Pings")
		if err := s.add(rulesOf(t, "gone", local.Dynamic)); !errors.Is(err, local.ErrRules) {
			t.Errorf("the same again: %v", err)
		}
		s.session.events <- control.Connected{Controller: "controller:7443"}
		branch := sealed(t, branchPolicy("a", "b"))
		s.assign(1, branch, "Branch")
		s.deliver(branch)
		s.confirm(1)
		s.wantInPlay("beside a policy of the directory", "Branch: dynamic:gone/Pings persistent:kept/Pings all")
		if s.status().Digest != branch.Digest.String() {
			t.Error("rules change the digest of the policy")
		}

		// What cannot be put into force changes nothing, on the disk neither.
		s.datapath.fail = errors.New("no room")
		if err := s.add(rulesOf(t, "late", local.Persistent)); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("a datapath that fails: %v", err)
		}
		s.datapath.fail = nil
		s.wantInPlay("after a failure", "Branch: dynamic:gone/Pings persistent:kept/Pings all")
		s.stop()

		s = prepare(t, dir)
		if s.agent.rules, err = local.OpenRules(dir); err != nil {
			t.Fatal(err)
		}
		s.start()
		s.wantInPlay("after a restart, before the controller is heard", "Branch: persistent:kept/Pings all")
		if err := s.change(func(r local.Rules) (local.Rules, error) { return r.Without("kept") }); err != nil {
			t.Fatal(err)
		}
		s.wantInPlay("deleted", "Branch: all")
		s.stop()
	})
}

// A machine that was never told a policy takes dynamic rules back at its next start: the kernel may hold them still.
func TestDynamicRulesOfABareMachineAreTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		start := func() *story {
			s := prepare(t, dir)
			var err error
			if s.agent.rules, err = local.OpenRules(dir); err != nil {
				t.Fatal(err)
			}
			s.start()
			return s
		}
		s := start()
		s.wantEnforced()
		if err := s.add(rulesOf(t, "gone", local.Dynamic)); err != nil {
			t.Fatal(err)
		}
		s.stop()
		s = start()
		s.wantEnforced(policies.NoneName)
		s.wantInPlay("after a restart", "none: ")
		s.stop()
	})
}

// While the last good policy cannot be read, nothing may take the place of what the kernel holds.
func TestRulesWaitForAPolicyThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := atHome(t, dir)
		if err := os.WriteFile(filepath.Join(dir, cacheFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.start()
		s.wantEnforced()
		if err := s.add(rulesOf(t, "kept", local.Persistent)); err == nil || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("adding rules: %v", err)
		}
		s.stop()
		if _, err := os.Stat(filepath.Join(dir, "persistent-rules.json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("refused rules are on the disk: %v", err)
		}
	})
}

func TestEffectiveOfAnUnreadableVersionIsAnError(t *testing.T) {
	s := atHome(t, filepath.Join(t.TempDir(), "state"))
	if p, err := s.agent.effective(Version{Policy: policies.NoneName, Content: []byte("x")}); err == nil {
		t.Errorf("it is %+v, and no error", p)
	}
	if p, err := s.agent.effective(Version{}); err != nil || p.Name != "Home" {
		t.Errorf("of nothing assigned: %v, %v", p.Name, err)
	}
}
