package controllertest

import (
	"github.com/bailiwick-net/bailiwick/pki/trust"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// Authorities is the authority service over the admin socket.
func (f *Fleet) Authorities() adminv1.AuthorityServiceClient {
	f.t.Helper()
	return adminv1.NewAuthorityServiceClient(f.Conn())
}

// TrustRevision is the revision of the present trust bundle.
func (f *Fleet) TrustRevision() uint64 {
	f.t.Helper()
	r, err := f.Authorities().GetAuthorities(f.Context(), &adminv1.GetAuthoritiesRequest{})
	if err != nil {
		f.t.Fatal(err)
	}
	return r.GetTrustRevision()
}

// AwaitTrust waits for a trust bundle of the revision.
func (s *Session) AwaitTrust(revision uint64) trust.Bundle {
	s.t.Helper()
	for {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting for the trust bundle %d: %v", revision, err)
		}
		s.note(m)
		if m.GetTrustBundle() == nil {
			continue
		}
		bundle, err := trust.ParseBundle(m.GetTrustBundle().GetContent())
		if err != nil {
			s.t.Fatal(err)
		}
		if bundle.Revision() == revision {
			return bundle
		}
	}
}

// AcknowledgeTrust says that the node holds a trust bundle.
func (s *Session) AcknowledgeTrust(b trust.Bundle) {
	s.t.Helper()
	digest := b.Digest()
	s.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_TrustAcknowledgement{
		TrustAcknowledgement: &nodev1.TrustAcknowledgement{Digest: digest[:]},
	}})
}

// AwaitIssuer waits until the settings name another CA than the node's certificate is by.
func (s *Session) AwaitIssuer() []byte {
	s.t.Helper()
	for len(s.Settings.GetIssuer()) == 0 {
		m, err := s.next()
		if err != nil {
			s.t.Fatalf("waiting to be told of another CA: %v", err)
		}
		s.note(m)
	}
	return s.Settings.GetIssuer()
}
