package controllertest

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// waiting are the machines that the controller waits for.
func waiting(t testing.TB, f *Fleet) (names []string, r *adminv1.GetAuthoritiesResponse) {
	t.Helper()
	r, err := f.Authorities().GetAuthorities(f.Context(), &adminv1.GetAuthoritiesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.GetNodes() {
		if !n.GetCurrent() && n.GetExcused() == "" {
			names = append(names, n.GetMachine())
		}
	}
	return names, r
}

// authority is the ID of the first CA that is not retired.
func (f *Fleet) authority() string {
	f.t.Helper()
	_, r := waiting(f.t, f)
	return r.GetAuthorities()[0].GetId()
}

// replaceAuthority replaces the CA that issues as in an emergency. certify answers its request where the root is kept off line.
func (f *Fleet) replaceAuthority(certify func(request []byte) []byte) {
	f.t.Helper()
	old := f.authority()
	prepared, err := f.Authorities().PrepareAuthority(f.Context(), &adminv1.PrepareAuthorityRequest{})
	if err == nil && certify != nil {
		_, err = f.Authorities().CertifyAuthority(f.Context(), &adminv1.CertifyAuthorityRequest{Certificates: certify(prepared.GetAuthority().GetRequest())})
	}
	if err == nil {
		_, err = f.Authorities().ActivateAuthority(f.Context(), &adminv1.ActivateAuthorityRequest{Emergency: true})
	}
	if err == nil {
		_, err = f.Authorities().RetireAuthority(f.Context(), &adminv1.RetireAuthorityRequest{Id: old, Emergency: true})
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// The story of a root that is replaced: every node trusts the next one before it issues, keeps its session throughout, has
// another certificate afterwards, and the old root ends when nothing counts of it; the controller restarts between all steps.
func TestRootIsRotatedUnderSessions(t *testing.T) {
	f := New(t, Bank)
	f.Start()
	early := f.Token("ws2") // it pins the first root
	nodes := map[string]*Node{"sql1": f.Node("sql1"), "files1": f.Node("files1"), "ws1": f.Node("ws1")}
	sessions := map[string]*Session{}
	connect := func() {
		for name, n := range nodes {
			digest := n.Trust.Digest()
			sessions[name] = n.Connect(&nodev1.Hello{Version: "test", TrustDigest: digest[:]})
		}
	}
	connect()
	f.Eventually("all three are connected with the first bundle", func() bool {
		names, r := waiting(t, f)
		return len(names) == 0 && len(r.GetNodes()) == 3
	})
	if _, err := f.Authorities().PrepareAuthority(f.Context(), &adminv1.PrepareAuthorityRequest{Root: true}); err != nil {
		t.Fatal(err)
	}
	late := "ws1"
	for name, s := range sessions {
		nodes[name].Trust = s.AwaitTrust(f.TrustRevision())
		if name != late {
			s.AcknowledgeTrust(nodes[name].Trust)
		}
	}
	f.Eventually("one node is waited for", func() bool { names, _ := waiting(t, f); return len(names) == 1 })
	_, err := f.Authorities().ActivateAuthority(f.Context(), &adminv1.ActivateAuthorityRequest{})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "ws1.bank.example") {
		t.Fatalf("activating before ws1 has the bundle gave %v, want FailedPrecondition that names it", err)
	}
	// What was acknowledged outlives the controller.
	f.Eventually("acknowledgements are stored", func() bool { _, r := waiting(t, f); return len(r.GetNodes()) == 3 })
	f.Restart()
	if names, _ := waiting(t, f); len(names) != 1 || names[0] != "ws1.bank.example" {
		t.Fatalf("after the restart the controller waits for %q, want ws1 alone", names)
	}
	connect() // the hello says what ws1 holds
	f.Eventually("nobody is waited for", func() bool { names, _ := waiting(t, f); return len(names) == 0 })
	activated, err := f.Authorities().ActivateAuthority(f.Context(), &adminv1.ActivateAuthorityRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range sessions {
		issuer := s.AwaitIssuer()
		renewed, err := nodes[name].Renew(nodes[name].Identity)
		if err != nil {
			t.Fatalf("renewing %s: %v", name, err)
		}
		if !bytes.Equal(renewed.Certificate.Leaf.AuthorityKeyId, issuer) {
			t.Errorf("%s has a certificate by another CA than the one it was told of", name)
		}
		nodes[name] = renewed
	}
	// A token of before still leads to this controller.
	joined, err := f.Join(early).Try(f.Context())
	if err != nil {
		t.Fatalf("joining with a token that pins the first root: %v", err)
	}
	if want := f.TrustRevision(); joined.Trust.Revision() != want {
		t.Errorf("who joins during the overlap gets the bundle %d, want %d", joined.Trust.Revision(), want)
	}
	f.Restart()
	connect()
	_, r := waiting(t, f)
	var old string
	for _, a := range r.GetAuthorities() {
		if a.GetStatus() == "superseded" {
			old = a.GetId()
		} else if a.GetId() != activated.GetAuthority().GetId() {
			t.Errorf("after the restart the CA %s is %s", a.GetId(), a.GetStatus())
		}
	}
	if _, err := f.Authorities().RetireAuthority(f.Context(), &adminv1.RetireAuthorityRequest{Id: old}); status.Code(err) != codes.FailedPrecondition {
		t.Fatalf("retiring while certificates count gave %v, want FailedPrecondition", err)
	}
	for name, s := range sessions {
		s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_Report{Report: &nodev1.Report{}}})
		f.Eventually(name+" is connected by the new CA", func() bool {
			_, r := waiting(t, f)
			for _, n := range r.GetNodes() {
				if strings.HasPrefix(n.GetMachine(), name+".") {
					return n.GetConnected() && n.GetAuthority() == activated.GetAuthority().GetId()
				}
			}
			return false
		})
	}
	audit, err := f.Authorities().AuditJournal(f.Context(), &adminv1.AuditJournalRequest{})
	if err != nil || len(audit.GetProblems()) > 0 || audit.GetOpen() != 0 {
		t.Errorf("audit: %v, %v", audit, err)
	}
}

// In an emergency the key of a CA is known to others. With the trust in it end the sessions of whoever shows a certificate of
// it; who has another one comes back.
func TestRetiredAuthorityHasNoSessions(t *testing.T) {
	f := New(t, Bank)
	f.Start()
	renewed, left := f.Node("sql1"), f.Node("ws1")
	before, stays := renewed.Connect(&nodev1.Hello{}), left.Connect(&nodev1.Hello{})
	if _, err := f.Authorities().PrepareAuthority(f.Context(), &adminv1.PrepareAuthorityRequest{Root: true, Emergency: true}); err != nil {
		t.Fatal(err)
	}
	renewed.Trust, left.Trust = before.AwaitTrust(f.TrustRevision()), stays.AwaitTrust(f.TrustRevision())
	old := f.authority()
	if _, err := f.Authorities().ActivateAuthority(f.Context(), &adminv1.ActivateAuthorityRequest{Emergency: true}); err != nil {
		t.Fatal(err)
	}
	renewed, err := renewed.Renew(renewed.Identity)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authorities().RetireAuthority(f.Context(), &adminv1.RetireAuthorityRequest{Id: old, Emergency: true}); err != nil {
		t.Fatal(err)
	}
	// It learns first whom not to believe any more.
	if bundle := stays.AwaitTrust(f.TrustRevision()); len(bundle.Roots()) != 1 {
		t.Errorf("the last bundle has %d roots, want 1", len(bundle.Roots()))
	}
	for name, s := range map[string]*Session{"ws1": stays, "sql1": before} {
		if err := s.WantEnd(); status.Code(err) != codes.Unauthenticated {
			t.Errorf("the session of %s ended with %v, want Unauthenticated", name, err)
		}
	}
	renewed.Connect(&nodev1.Hello{}).AwaitTrust(f.TrustRevision())
}
