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

func TestSecondSessionEndsTheFirst(t *testing.T) {
	f := Start(t, Bank)
	n := f.Node("ws1")
	first := n.Connect(&nodev1.Hello{Instance: "a"})
	first.WantAssignment("none")
	second := n.Connect(&nodev1.Hello{Instance: "b"})
	second.Acknowledge(second.WantAssignment("none"))
	wantRefusal(t, first.WantEnd(), codes.Aborted, "another session")
	if m := f.machine("ws1"); m.GetNode() != adminv1.NodeState_NODE_STATE_CURRENT {
		t.Errorf("node is %v while its second session is open", m.GetNode())
	}
}

func TestNodeGetsNoBundleButItsOwn(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	sql1 := f.Node("sql1").Connect(&nodev1.Hello{})
	secret := sql1.WantAssignment(predefined.SecureServer)
	ws1 := f.Node("ws1").Connect(&nodev1.Hello{})
	own := ws1.WantAssignment(predefined.Client)
	ws1.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Want{Want: &nodev1.Want{Digest: secret.GetDigest()}}})
	// The answer to what was asked next is the first that comes.
	if p := ws1.WantBundle(own); p.Name != predefined.Client {
		t.Errorf("got the bundle of %q", p.Name)
	}
}

func TestAcknowledgementsThatLie(t *testing.T) {
	f := Start(t, Bank)
	n := f.Node("ws1")
	for name, acknowledgement := range map[string]func(a *nodev1.Assignment) *nodev1.Acknowledgement{
		"never sent": func(a *nodev1.Assignment) *nodev1.Acknowledgement {
			return &nodev1.Acknowledgement{Revision: a.GetRevision() + 1, Digest: a.GetDigest()}
		},
		"with the digest": func(a *nodev1.Assignment) *nodev1.Acknowledgement {
			return &nodev1.Acknowledgement{Revision: a.GetRevision(), Digest: make([]byte, 32)}
		},
	} {
		s := n.Connect(&nodev1.Hello{})
		a := s.WantAssignment("none")
		s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{Acknowledgement: acknowledgement(a)}})
		wantRefusal(t, s.WantEnd(), codes.InvalidArgument, name)
	}
	if m := f.machine("ws1"); m.GetNode() == adminv1.NodeState_NODE_STATE_CURRENT {
		t.Error("a false acknowledgement counts")
	}
}

func TestRefusedPolicyShows(t *testing.T) {
	f := Start(t, Bank)
	s := f.Node("ws1").Connect(&nodev1.Hello{})
	a := s.WantAssignment("none")
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Acknowledgement{
		Acknowledgement: &nodev1.Acknowledgement{Revision: a.GetRevision(), Digest: a.GetDigest(), Error: "no room for 9000 filters"},
	}})
	f.Eventually("the refusal shows", func() bool { return f.machine("ws1").GetNode() == adminv1.NodeState_NODE_STATE_FAILED })
	// The next policy that it takes heals it.
	f.Apply(BankLinks)
	s.Acknowledge(s.WantAssignment(predefined.Client))
	f.Eventually("the node is current", func() bool { return f.machine("ws1").GetNode() == adminv1.NodeState_NODE_STATE_CURRENT })
}

func TestSessionBeginsWithHello(t *testing.T) {
	f := Start(t, Bank)
	s := f.Node("ws1").Open(f.Node("ws1").Certificate)
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Want{Want: &nodev1.Want{}}})
	wantRefusal(t, s.WantEnd(), codes.InvalidArgument, "begins with a hello")
}

func TestNodeAheadOfTheController(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	n := f.Node("ws1")
	s := n.Connect(&nodev1.Hello{Revision: 40, Digest: make([]byte, 32)})
	a := s.WantAssignment(predefined.Client)
	if a.GetRevision() != 41 {
		t.Errorf("a node at revision 40 with another policy is assigned revision %d, wanted 41", a.GetRevision())
	}
	s.Acknowledge(a)
	s = n.Connect(&nodev1.Hello{Revision: 50, Digest: a.GetDigest()})
	if a := s.WantAssignment(predefined.Client); a.GetRevision() != 50 {
		t.Errorf("a node at revision 50 with this policy is assigned revision %d, wanted 50", a.GetRevision())
	}
}

func TestReportsShow(t *testing.T) {
	f := Start(t, Bank)
	s := f.Node("ws1").Connect(&nodev1.Hello{Version: "9.9"})
	s.WantAssignment("none")
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Report{Report: &nodev1.Report{
		Associations: []*nodev1.Association{{Kind: nodev1.Association_KIND_CHILD, Peer: "sql1.bank.example", RemoteAddress: "192.0.2.1"}},
		Failures:     []*nodev1.Failure{{Reason: "no-proposal-chosen", Count: 3}},
		Notes:        []string{"clock is off"},
	}}})
	f.Eventually("the association shows", func() bool {
		r, err := f.Machines().ListAssociations(f.Context(), &adminv1.ListAssociationsRequest{Machine: "ws1"})
		return err == nil && len(r.GetAssociations()) == 1 && r.GetAssociations()[0].GetMachine() == "ws1" && len(r.GetFailures()) == 1
	})
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Report{Report: &nodev1.Report{Notes: make([]string, 1000)}}})
	wantRefusal(t, s.WantEnd(), codes.InvalidArgument, "1000 notes")
}

// A node learns that it was admitted before it says anything: the settings come first.
func TestControllerSpeaksFirst(t *testing.T) {
	f := Start(t, Bank)
	n := f.Node("ws1")
	s := n.Open(n.Certificate)
	m, err := s.next()
	if err != nil || m.GetSettings().GetReportInterval().AsDuration() <= 0 {
		t.Errorf("the first message is %v, %v; want the settings", m, err)
	}
	f.WriteDirectory(disabled(Bank, "ws1"))
	f.Eventually("a session of a disabled machine ends without a message", func() bool {
		_, err := n.Open(n.Certificate).next()
		return status.Code(err) == codes.PermissionDenied
	})
}
