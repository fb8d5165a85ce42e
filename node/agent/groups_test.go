package agent

import (
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

func TestGroupsReachTheEngineAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		s.session.events <- control.Connected{Controller: "controller:7443"}
		set, err := trust.NewGroups(map[string][]pki.UUID{"CN=Auditors": {{1}}})
		if err != nil {
			t.Fatal(err)
		}
		der, err := set.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		say := func(content []byte) {
			s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Groups{Groups: &nodev1.Groups{Content: content}}})
		}
		say(der)
		say(der) // nothing new
		// What is no set of groups must not be taken for the empty one.
		say(der[:5])
		say(nil)
		if s.engine.rechecks != 1 || !s.identity.groups.Contains("CN=Auditors", pki.UUID{1}) {
			t.Errorf("%d rechecks, groups %q; want 1 and the member", s.engine.rechecks, s.identity.groups.Names())
		}
	})
}
