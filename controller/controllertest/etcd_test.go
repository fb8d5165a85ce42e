package controllertest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/e2e/lab/etcd"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// external prepares a fleet over the Bank whose state is in an etcd server of its own, over TLS.
func external(t *testing.T) (*Fleet, *etcd.Server) {
	t.Helper()
	server, err := etcd.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	f := New(t, Bank)
	f.Config.Store = on(server)
	return f, server
}

func on(server *etcd.Server) controller.StoreConfig {
	return controller.StoreConfig{
		Endpoints: []string{server.Endpoint}, CAFile: server.CAFile, CertFile: server.ClientCert, KeyFile: server.ClientKey,
		ClaimTTL: 2 * time.Second,
	}
}

// The story of a fleet whose controller keeps its state elsewhere: join, policy, a restart of the controller, and the
// loss of etcd under both.
func TestFleetOnAnExternalEtcd(t *testing.T) {
	f, server := external(t)
	f.Start()
	f.Apply(BankLinks)
	token := f.Token("sql1")
	n, err := f.Join(token).Try(f.Context())
	if err != nil {
		t.Fatal(err)
	}
	s := n.Connect(&nodev1.Hello{Version: "test"})
	before := s.WantAssignment(predefined.SecureServer)
	s.WantBundle(before)
	s.Acknowledge(before)

	f.Restart()
	if _, err := f.Join(token).Try(f.Context()); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("after the restart the used token gave %v, want FailedPrecondition", err)
	}
	s = n.Connect(&nodev1.Hello{Revision: before.GetRevision(), Digest: before.GetDigest()})
	after := s.WantAssignment(predefined.SecureServer)
	if after.GetRevision() != before.GetRevision() || !bytes.Equal(after.GetDigest(), before.GetDigest()) {
		t.Errorf("the restart changed the assignment from revision %d to %d", before.GetRevision(), after.GetRevision())
	}

	// Without etcd the directory is still followed, from what the controller holds; what changed is stored afterwards.
	server.Kill()
	f.WriteDirectory(move(Bank, "sql1", "SecureServers", "Workstations"))
	moved := s.WantAssignment(predefined.Client)
	s.WantBundle(moved)
	s.Acknowledge(moved)
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := f.Node("files1").Connect(&nodev1.Hello{})
	other.Acknowledge(other.WantAssignment(predefined.Server))

	f.Restart()
	s = n.Connect(&nodev1.Hello{Revision: moved.GetRevision(), Digest: moved.GetDigest()})
	if last := s.WantAssignment(predefined.Client); last.GetRevision() != moved.GetRevision() {
		t.Errorf("after etcd came back and the controller restarted the revision is %d, want %d", last.GetRevision(), moved.GetRevision())
	}
}

func TestSecondControllerOnTheSameEtcdIsRefused(t *testing.T) {
	f, server := external(t)
	f.Start()
	second := New(t, Bank)
	second.Config.Store = on(server)
	c, err := controller.Load(t.Context(), second.Config)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, store.ErrHeld) || !strings.Contains(err.Error(), "stop it, or give each controller its own prefix") {
		t.Fatalf("the second controller gave %v, want ErrHeld and what to do", err)
	}
	// The first one is not disturbed, and when it stops its successor need not wait.
	f.Apply(BankLinks)
	f.Node("ws1").Connect(&nodev1.Hello{}).WantAssignment(predefined.Client)
	f.Stop()
	f.Start()
}
