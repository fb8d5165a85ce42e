package agent

import (
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bailiwick-net/bailiwick/node/control"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

func TestDenialsReachTheEngineAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := begin(t, filepath.Join(t.TempDir(), "state"))
		defer s.stop()
		s.session.events <- control.Connected{Controller: "controller:7443"}
		set, err := trust.NewDenials([]pki.UUID{{1}}, trust.Revocations{})
		if err != nil {
			t.Fatal(err)
		}
		der, err := set.Append(nil)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Denials{Denials: &nodev1.Denials{Content: der}}})
		if s.engine.rechecks != 1 || s.identity.denied.Len() != 1 || !s.identity.heard.Equal(start) {
			t.Fatalf("%d rechecks and %d denials as of %v, want 1 and 1 as of %v", s.engine.rechecks, s.identity.denied.Len(), s.identity.heard, start)
		}
		// What is no set of denials must not be taken for the empty one.
		s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Denials{Denials: &nodev1.Denials{Content: der[:5]}}})
		s.say(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Denials{Denials: &nodev1.Denials{}}})
		if s.engine.rechecks != 1 || s.identity.denied.Len() != 1 {
			t.Errorf("damaged denials were taken: %d are left", s.identity.denied.Len())
		}
		// The set is current as long as the session that told it is open, and no longer.
		<-time.After(time.Minute)
		synctest.Wait()
		if age := time.Since(*s.identity.heard); age > time.Second {
			t.Errorf("with an open session the denials are %v old", age)
		}
		s.session.events <- control.Disconnected{}
		s.session.events <- control.Connected{Controller: "controller:7443"}
		<-time.After(time.Minute)
		synctest.Wait()
		if age := time.Since(*s.identity.heard); age < 59*time.Second {
			t.Errorf("a session that has told nothing makes the denials %v old", age)
		}
	})
}
