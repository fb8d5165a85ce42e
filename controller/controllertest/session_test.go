package controllertest

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/policies/predefined"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// move puts a machine of the Bank into another OU.
func move(ldif, machine, from, to string) string {
	return strings.ReplaceAll(ldif, "cn="+machine+",ou="+from+",", "cn="+machine+",ou="+to+",")
}

func TestNodeJoinsAndGetsItsPolicy(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	for machine, policy := range map[string]string{"sql1": predefined.SecureServer, "files1": predefined.Server, "ws1": predefined.Client} {
		n := f.Node(machine)
		if want := machine + ".bank.example"; n.Identity.DNSName() != want {
			t.Errorf("%s: certificate names %q, wanted %q", machine, n.Identity.DNSName(), want)
		}
		s := n.Connect(&nodev1.Hello{Version: "test"})
		a := s.WantAssignment(policy)
		if got := s.WantBundle(a); got.Name != policy {
			t.Errorf("%s: bundle holds policy %q, wanted %q", machine, got.Name, policy)
		}
		s.Acknowledge(a)
	}
	nodes, err := f.Machines().ListNodes(f.Context(), &adminv1.ListNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes.GetNodes() {
		if n.GetState() != adminv1.NodeState_NODE_STATE_CURRENT {
			t.Errorf("node %s is %v after its acknowledgement", n.GetName(), n.GetState())
		}
	}
}

func TestMoveInTheDirectoryChangesThePolicy(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	s := f.Node("ws2").Connect(&nodev1.Hello{})
	first := s.WantAssignment(predefined.Client)
	s.Acknowledge(first)
	f.WriteDirectory(move(Bank, "ws2", "Workstations", "SecureServers"))
	second := s.WantAssignment(predefined.SecureServer)
	if second.GetRevision() <= first.GetRevision() {
		t.Errorf("revision went from %d to %d", first.GetRevision(), second.GetRevision())
	}
	if second.GetContainer() != "ou=SecureServers,dc=bank,dc=example" {
		t.Errorf("container is %q", second.GetContainer())
	}
	s.WantBundle(second)
	s.Acknowledge(second)
}

func TestRestartKeepsAssignments(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	n := f.Node("sql1")
	s := n.Connect(&nodev1.Hello{})
	before := s.WantAssignment(predefined.SecureServer)
	s.WantBundle(before)
	s.Acknowledge(before)
	address := f.Address()
	f.Config.Listen = []string{address}
	f.Stop()
	err := s.WantEnd()
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the session ended with %v when the controller stopped, wanted Unavailable", err)
	}
	if s.Settings.GetReconnectAfter().AsDuration() <= 0 {
		t.Error("the controller did not say when to come back")
	}
	f.Start()
	s = n.Connect(&nodev1.Hello{Revision: before.GetRevision(), Digest: before.GetDigest()})
	after := s.WantAssignment(predefined.SecureServer)
	if !bytes.Equal(after.GetDigest(), before.GetDigest()) || after.GetRevision() != before.GetRevision() {
		t.Errorf("after the restart the assignment is revision %d, digest %x; wanted revision %d, digest %x",
			after.GetRevision(), after.GetDigest(), before.GetRevision(), before.GetDigest())
	}
	s.Acknowledge(after)
}
