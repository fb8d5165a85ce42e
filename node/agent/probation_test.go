package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/node/control"
)

// committed begins a story in which a policy is in force and confirmed.
func committed(t *testing.T, dir string) *story {
	s := begin(t, dir)
	s.session.events <- control.Connected{Controller: "c"}
	synctest.Wait()
	good := bundleNamed(t, "good")
	s.assign(1, good, "good")
	s.deliver(good)
	s.confirm(1)
	return s
}

func (s *story) wants() (n int) {
	for _, m := range s.session.sent() {
		if m.GetWant() != nil {
			n++
		}
	}
	return n
}

// The controller says an assignment once in a session: a node that puts it off must come back to it by itself.
func TestPolicyTakenBackIsTriedAgainWithoutTheControllerSayingSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := committed(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		bad := bundleNamed(t, "bad")
		s.assign(2, bad, "bad")
		s.deliver(bad)
		advance(35 * time.Second)
		s.wantEnforced("good", "bad", "good")
		s.session.events <- control.Disconnected{}
		s.session.events <- control.Connected{Controller: "c"}
		s.assign(2, bad, "bad")
		before := s.wants()
		advance(3 * time.Minute)
		if s.wants() != before+1 {
			t.Fatalf("the node asked for the bundle %d times after the wait, want once", s.wants()-before)
		}
		s.deliver(bad)
		s.confirm(2)
		s.wantEnforced("good", "bad", "good", "bad")
		if st := s.status(); st.Revision != 2 || st.Pending {
			t.Errorf("status %+v, want revision 2 committed", st)
		}
	})
}

func TestPolicyThatCouldNotBePutIntoForceIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := committed(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		next := bundleNamed(t, "next")
		s.datapath.set(func(d *fakeDatapath) { d.fail = errors.New("netlink: no buffer space available") })
		s.assign(2, next, "next")
		s.deliver(next)
		s.datapath.set(func(d *fakeDatapath) { d.fail = nil })
		before := s.wants()
		advance(firstRetry + 2*time.Second)
		if s.wants() != before+1 {
			t.Fatalf("the node asked for the bundle %d times after the failure, want once", s.wants()-before)
		}
		s.deliver(next)
		s.wantEnforced("good", "next")
	})
}

// The datapath may fail on the way back: then the policy on probation is still the one in force, and says so.
func TestFailedReturnLeavesTheProbation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := committed(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		good, next := bundleNamed(t, "good"), bundleNamed(t, "next")
		s.assign(2, next, "next")
		s.deliver(next)
		s.datapath.set(func(d *fakeDatapath) { d.fail = errors.New("netlink: no buffer space available") })
		s.assign(3, good, "good")
		if st := s.status(); st.Revision != 2 || !st.Pending || st.Policy != "next" {
			t.Errorf("status %+v, want revision 2 in force on probation", st)
		}
		s.datapath.set(func(d *fakeDatapath) { d.fail = nil })
		advance(firstRetry + 2*time.Second)
		s.wantEnforced("good", "next", "good")
		if st := s.status(); st.Revision != 3 || st.Pending {
			t.Errorf("status %+v, want revision 3 in force", st)
		}
	})
}

// The committed policy needs no probation when it comes back: were it to fail one, there would be nothing to return to.
func TestReturnToTheCommittedPolicyIsNotOnProbation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := committed(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		good, next := bundleNamed(t, "good"), bundleNamed(t, "next")
		s.assign(2, next, "next")
		s.deliver(next)
		s.assign(3, good, "good")
		advance(40 * time.Second)
		s.wantEnforced("good", "next", "good")
		if st := s.status(); st.Revision != 3 || st.Pending || st.Problem != "" {
			t.Errorf("status %+v, want revision 3 committed without a problem", st)
		}
	})
}

func TestBundleOfAnOutdatedAssignmentIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := committed(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		good, next, third := bundleNamed(t, "good"), bundleNamed(t, "next"), bundleNamed(t, "third")
		s.assign(2, next, "next")
		s.deliver(next)
		s.assign(3, third, "third")
		s.assign(4, good, "good")
		s.deliver(third)
		s.wantEnforced("good", "next", "good")
	})
}

func TestLastGoodPolicyIsTriedUntilItIsInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		committed(t, dir).stop()
		s := prepare(t, dir)
		s.datapath.fail = errors.New("netlink: no buffer space available")
		s.start()
		defer s.stop()
		if st := s.status(); st.Digest != "" || !strings.Contains(st.Problem, "no buffer space") {
			t.Errorf("status %+v, want no policy in force and the reason", st)
		}
		s.datapath.set(func(d *fakeDatapath) { d.fail = nil })
		advance(2 * time.Second)
		s.wantEnforced("good")
		if st := s.status(); st.Revision != 1 || st.Problem != "" {
			t.Errorf("status %+v, want revision 1 in force", st)
		}
	})
}

// A last good policy that cannot be read is not the same as none: nothing may be taken back to clear.
func TestUnreadableLastGoodPolicyNeverEndsInNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		committed(t, dir).stop()
		if err := os.WriteFile(filepath.Join(dir, cacheFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := begin(t, dir)
		defer s.stop()
		next := bundleNamed(t, "next")
		s.assign(2, next, "next")
		s.deliver(next)
		advance(2 * time.Minute)
		s.wantEnforced("next")
		if st := s.status(); !st.Pending || !strings.Contains(st.Problem, "not confirmed") {
			t.Errorf("status %+v, want the policy on probation and a problem that says so", st)
		}
		s.confirm(2)
		if st := s.status(); st.Pending {
			t.Errorf("status %+v, want it committed", st)
		}
	})
}

func TestAcknowledgementThatNobodyTookIsSaidAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := committed(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		next := bundleNamed(t, "next")
		s.assign(2, next, "next")
		s.session.set(func(f *fakeSession) { f.full = true })
		s.deliver(next)
		before := len(s.session.acknowledgements())
		s.session.set(func(f *fakeSession) { f.full = false })
		advance(2 * time.Second)
		if got := len(s.session.acknowledgements()); got != before+1 {
			t.Errorf("%d acknowledgements after the session took messages again, want 1", got-before)
		}
	})
}

func TestReasonsFitAnAcknowledgement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := committed(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		next := bundleNamed(t, "next")
		s.datapath.set(func(d *fakeDatapath) { d.fail = errors.New(strings.Repeat("ä", 10_000)) })
		s.assign(2, next, "next")
		s.deliver(next)
		if got := last(s.session.acknowledgements()); got == "" || len(got) > 4096 || strings.ToValidUTF8(got, "?") != got {
			t.Errorf("reason of %d octets, want at most 4096, and whole characters", len(got))
		}
	})
}

// A disk that was full for a moment must not bring back an older policy at the next restart.
func TestPolicyIsStoredOnceTheDiskTakesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "state")
		s := committed(t, dir)
		defer s.stop()
		// The cache cannot replace a folder.
		path := filepath.Join(dir, cacheFile)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(path, "full"), 0o700); err != nil {
			t.Fatal(err)
		}
		next := bundleNamed(t, "next")
		s.assign(2, next, "next")
		s.deliver(next)
		s.confirm(2)
		if st := s.status(); !strings.Contains(st.Problem, cacheFile) {
			t.Errorf("status %+v, want a problem about %s", st, cacheFile)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		advance(35 * time.Second)
		if good, found, err := s.agent.cache.load(); err != nil || !found || good.Version.Revision != 2 {
			t.Errorf("the disk holds revision %d, found %t, error %v; want revision 2", good.Version.Revision, found, err)
		}
		if st := s.status(); st.Problem != "" {
			t.Errorf("problem %q, want none any more", st.Problem)
		}
	})
}
