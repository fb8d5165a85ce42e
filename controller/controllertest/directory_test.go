package controllertest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// disabled disables the account of a machine of the Bank.
func disabled(ldif, machine string) string {
	return strings.ReplaceAll(ldif, "\ncn: "+machine+"\n", "\ncn: "+machine+"\nnsAccountLock: TRUE\n")
}

// removed takes the entry of a machine out.
func removed(ldif, machine string) string {
	var kept []string
	for _, entry := range strings.Split(strings.TrimSpace(ldif), "\n\n") {
		if !strings.HasPrefix(entry, "dn: cn="+machine+",") {
			kept = append(kept, entry)
		}
	}
	return strings.Join(kept, "\n\n") + "\n"
}

// large is the Bank with n more workstations.
func large(n int) string {
	var b strings.Builder
	b.WriteString(Bank)
	for i := range n {
		fmt.Fprintf(&b, "\ndn: cn=pc%d,ou=Workstations,dc=bank,dc=example\nobjectClass: device\ncn: pc%d\n", i, i)
	}
	return b.String()
}

func (f *Fleet) directoryStatus() *adminv1.GetDirectoryStatusResponse {
	f.t.Helper()
	r, err := f.Machines().GetDirectoryStatus(f.Context(), &adminv1.GetDirectoryStatusRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func (f *Fleet) directoryDigest() string {
	f.t.Helper()
	return f.directoryStatus().GetDigest()
}

func (f *Fleet) machine(name string) *adminv1.Machine {
	f.t.Helper()
	r, err := f.Machines().ExplainMachine(f.Context(), &adminv1.ExplainMachineRequest{Machine: name})
	if err != nil {
		f.t.Fatal(err)
	}
	return r.GetMachine()
}

func TestDisabledMachineIsCutOff(t *testing.T) {
	f := Start(t, Bank)
	n := f.Node("ws1")
	s := n.Connect(&nodev1.Hello{})
	s.Acknowledge(s.WantAssignment("none"))
	f.WriteDirectory(disabled(Bank, "ws1"))
	wantRefusal(t, s.WantEnd(), codes.PermissionDenied, "disabled")
	wantRefusal(t, n.Connect(&nodev1.Hello{}).WantEnd(), codes.PermissionDenied, "disabled")
	f.WriteDirectory(Bank)
	f.Eventually("an enabled machine may connect again", func() bool {
		s := n.Connect(&nodev1.Hello{})
		defer s.Close()
		_, err := s.next()
		return err == nil
	})
}

// denials waits for the next message about whom not to believe.
func (s *Session) denials() trust.Denials {
	s.t.Helper()
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for denials: %v", err)
		}
		d := m.GetDenials()
		if d == nil {
			s.note(m)
			continue
		}
		set, err := trust.ParseDenials(d.GetContent())
		if err != nil {
			s.t.Fatal(err)
		}
		return set
	}
}

// The other nodes hear of a disabled machine at once, and those that come later with their session, also after a restart
// of the controller.
func TestNodesHearOfDisabledMachines(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	ws1 := f.Node("ws1")
	ws1.Connect(&nodev1.Hello{}).AcceptAssignment()
	sql1 := f.Node("sql1")
	s := sql1.Connect(&nodev1.Hello{})
	if set := s.denials(); set.Len() != 0 {
		t.Fatalf("at first %v are denied", set.Machines())
	}
	f.WriteDirectory(disabled(Bank, "ws1"))
	want := ws1.Identity.UUID()
	heard := func(s *Session, when string) {
		t.Helper()
		set := s.denials()
		for set.Len() == 0 {
			set = s.denials() // what was on its way before may come first
		}
		if !slices.Equal(set.Machines(), []pki.UUID{want}) {
			t.Errorf("%s %v are denied, want %v", when, set.Machines(), want)
		}
	}
	heard(s, "in an open session")
	heard(sql1.Connect(&nodev1.Hello{}), "in a new session")
	f.Restart()
	heard(sql1.Connect(&nodev1.Hello{}), "after a restart")
	f.WriteDirectory(Bank)
	f.Eventually("the machine is enabled again", func() bool {
		set := sql1.Connect(&nodev1.Hello{}).denials()
		return set.Len() == 0
	})
}

func TestMachineOfAnotherDirectoryIsRefused(t *testing.T) {
	f := Start(t, large(20))
	n := f.Node("pc7")
	f.Config.Directory.Grace = 1 // every vanished machine is gone at once
	f.Restart()
	f.WriteDirectory(removed(large(20), "pc7"))
	f.Eventually("the machine is gone", func() bool {
		s := n.Connect(&nodev1.Hello{})
		defer s.Close()
		_, err := s.next()
		// At first it is refused by name, and a moment later its certificate is revoked.
		return status.Code(err) == codes.PermissionDenied && strings.Contains(err.Error(), "not in the directory") ||
			status.Code(err) == codes.Unauthenticated && strings.Contains(err.Error(), "revoked")
	})
}

func TestVanishedMachineKeepsItsPolicy(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	n := f.Node("sql1")
	s := n.Connect(&nodev1.Hello{})
	before := s.WantAssignment(predefined.SecureServer)
	s.Acknowledge(before)
	f.WriteDirectory(removed(Bank, "sql1"))
	f.Eventually("the machine is among the vanished", func() bool { return len(f.directoryStatus().GetVanished()) == 1 })
	f.Eventually("the assignments follow", func() bool { return f.machine("sql1").GetVanished() != nil })
	if m := f.machine("sql1"); m.GetPolicy() != predefined.SecureServer {
		t.Errorf("the vanished machine has policy %q", m.GetPolicy())
	}
	f.Eventually("the record of the acknowledgement is stored", func() bool { return f.machine("sql1").GetNode() == adminv1.NodeState_NODE_STATE_CURRENT })
	// Also after a restart, from the record alone.
	f.Restart()
	s = n.Connect(&nodev1.Hello{Revision: before.GetRevision(), Digest: before.GetDigest()})
	after := s.WantAssignment(predefined.SecureServer)
	if after.GetRevision() != before.GetRevision() || !bytes.Equal(after.GetDigest(), before.GetDigest()) {
		t.Errorf("the vanished machine got revision %d, wanted %d", after.GetRevision(), before.GetRevision())
	}
	// It comes back as the same machine.
	f.WriteDirectory(Bank)
	f.Eventually("nobody is among the vanished", func() bool { return len(f.directoryStatus().GetVanished()) == 0 })
	if m := f.machine("sql1"); m.GetRevision() != before.GetRevision() {
		t.Errorf("revision is %d after it came back, wanted %d", m.GetRevision(), before.GetRevision())
	}
}

func TestUnreadableDirectoryChangesNothing(t *testing.T) {
	f := Start(t, Bank)
	f.Apply(BankLinks)
	s := f.Node("sql1").Connect(&nodev1.Hello{})
	s.Acknowledge(s.WantAssignment(predefined.SecureServer))
	before := f.directoryDigest()
	f.WriteDirectory("dn: dc=bank,dc=example\nobjectClass: domain\ndc: bank\n\nthis is no LDIF\n")
	f.Eventually("the error shows", func() bool { return f.directoryStatus().GetLastError() != "" })
	st := f.directoryStatus()
	if st.GetDigest() != before || st.GetMachines() != 4 || st.GetFailures() == 0 {
		t.Errorf("after an error the directory is %s with %d machines", st.GetDigest(), st.GetMachines())
	}
	if !strings.Contains(st.GetLastError(), ":5") {
		t.Errorf("the error does not say where: %s", st.GetLastError())
	}
	if m := f.machine("sql1"); m.GetPolicy() != predefined.SecureServer || m.GetNode() != adminv1.NodeState_NODE_STATE_CURRENT {
		t.Errorf("after an error sql1 has %q and its node is %v", m.GetPolicy(), m.GetNode())
	}
	// Not even a restart makes it worse: the last accepted state is stored.
	f.Restart()
	if m := f.machine("sql1"); m.GetPolicy() != predefined.SecureServer {
		t.Errorf("after a restart without a directory sql1 has %q", m.GetPolicy())
	}
	if !f.directoryStatus().GetRestored() {
		t.Error("the status does not say that the directory was not read since the start")
	}
	f.WriteDirectory(move(Bank, "sql1", "SecureServers", "Servers"))
	f.Eventually("the directory counts again", func() bool { return f.machine("sql1").GetPolicy() == predefined.Server })
	if st := f.directoryStatus(); st.GetRestored() || st.GetLastError() != "" {
		t.Errorf("status still says restored %v, error %q", st.GetRestored(), st.GetLastError())
	}
}

func TestMassChangeIsHeldUntilReleased(t *testing.T) {
	f := Start(t, large(40))
	f.Apply(BankLinks)
	before := f.directoryDigest()
	f.WriteDirectory(Bank)
	f.Eventually("the change is held", func() bool { return f.directoryStatus().GetHeld() != nil })
	held := f.directoryStatus().GetHeld()
	if held.GetTotal() != 40 || !strings.Contains(held.GetReason(), "40 of 44") {
		t.Errorf("held are %d changes: %s", held.GetTotal(), held.GetReason())
	}
	if f.directoryDigest() != before || f.machine("pc3").GetPolicy() != predefined.Client {
		t.Error("the held change had an effect")
	}
	// The guard remembers over a restart: the directory is not taken for the first one.
	f.Restart()
	f.Eventually("the change is held again", func() bool { return f.directoryStatus().GetHeld() != nil })
	if again := f.directoryStatus().GetHeld(); again.GetId() != held.GetId() {
		t.Errorf("after the restart the held change is %s, wanted %s", again.GetId(), held.GetId())
	}
	_, err := f.Machines().ReleaseChange(f.Context(), &adminv1.ReleaseChangeRequest{Id: strings.Repeat("0", 32)})
	wantRefusal(t, err, codes.FailedPrecondition, "another directory change")
	_, err = f.Machines().ReleaseChange(f.Context(), &adminv1.ReleaseChangeRequest{Id: "x"})
	wantRefusal(t, err, codes.InvalidArgument, "32 hex digits")
	if _, err := f.Machines().DiscardChange(f.Context(), &adminv1.DiscardChangeRequest{Id: held.GetId()}); err != nil {
		t.Fatal(err)
	}
	if st := f.directoryStatus(); st.GetHeld().GetDiscarded() == nil || st.GetDigest() != before {
		t.Errorf("discarded, the held change is %v", st.GetHeld())
	}
	if _, err := f.Machines().ReleaseChange(f.Context(), &adminv1.ReleaseChangeRequest{Id: held.GetId()}); err != nil {
		t.Fatal(err)
	}
	if st := f.directoryStatus(); st.GetHeld() != nil || st.GetMachines() != 4 || len(st.GetVanished()) != 40 {
		t.Errorf("released: held %v, %d machines, %d vanished", st.GetHeld(), st.GetMachines(), len(st.GetVanished()))
	}
	_, err = f.Machines().ReleaseChange(f.Context(), &adminv1.ReleaseChangeRequest{Id: held.GetId()})
	wantRefusal(t, err, codes.NotFound, "no directory change is held")
}

func TestReleasedChangeOutlivesARestart(t *testing.T) {
	f := Start(t, large(40))
	f.WriteDirectory(Bank)
	f.Eventually("the change is held", func() bool { return f.directoryStatus().GetHeld() != nil })
	if _, err := f.Machines().ReleaseChange(f.Context(), &adminv1.ReleaseChangeRequest{Id: f.directoryStatus().GetHeld().GetId()}); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.LDIF()); err != nil {
		t.Fatal(err)
	}
	f.Restart()
	if st := f.directoryStatus(); st.GetMachines() != 4 || len(st.GetVanished()) != 40 {
		t.Errorf("restored are %d machines and %d vanished, wanted 4 and 40", st.GetMachines(), len(st.GetVanished()))
	}
}

func TestWithoutDirectoryNobodyIsServedAndTheReasonShows(t *testing.T) {
	f := New(t, "no LDIF at all\n")
	f.Config.TrustDomain = "bank.example"
	f.Launch()
	f.Eventually("the error shows", func() bool { return f.directoryStatus().GetLastError() != "" })
	_, err := f.Machines().ListMachines(f.Context(), &adminv1.ListMachinesRequest{})
	wantRefusal(t, err, codes.Unavailable, "directory status")
	select {
	case <-f.running.controller.Ready():
		t.Error("nodes are served without a directory")
	default:
	}
	f.WriteDirectory(Bank)
	<-f.running.controller.Ready()
	if m := f.machine("sql1"); m.GetPolicy() != "none" {
		t.Errorf("sql1 has %q", m.GetPolicy())
	}
}
