package distribute

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/resolver"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// denials are whom no node of the fleet must believe, encoded once for all sessions. It is immutable.
type denials struct {
	content  []byte
	digest   trust.Digest
	machines int
	// revocations are how many certificates and keys are revoked.
	revocations int
}

// workOutDenials finds out whom the directory does not admit, machines whose account is disabled, and those that were nodes and
// are gone from it beyond the grace time; and what is revoked. It reports whether that is another set than before.
func (s *Server) workOutDenials() (changed bool, err error) {
	s.denying.Lock()
	defer s.denying.Unlock()
	var machines []pki.UUID
	for _, u := range s.config.Assignments.Disabled() {
		machines = append(machines, pki.UUID(u))
	}
	s.table.Lock()
	var known []directory.UUID
	for u := range s.table.nodes {
		known = append(known, u)
	}
	s.table.Unlock()
	for _, u := range known {
		if s.config.Assignments.Assignment(u).Standing == resolver.Unknown {
			machines = append(machines, pki.UUID(u))
		}
	}
	var revoked trust.Revocations
	if s.config.Revoked != nil {
		revoked = s.config.Revoked()
	}
	set, err := trust.NewDenials(machines, revoked)
	if err != nil {
		return false, err
	}
	next := &denials{machines: len(machines), revocations: revoked.Len()}
	if next.content, err = set.Append(nil); err != nil {
		return false, err
	}
	if next.digest, err = set.Digest(); err != nil {
		return false, err
	}
	old := s.denied.Swap(next)
	return old == nil || old.digest != next.digest, nil
}

// sendDenials tells the node whom not to believe, unless this session has told it so.
func (s *session) sendDenials() error {
	d := s.server.denied.Load()
	if d == nil || s.toldDenials && d.digest == s.sentDenials {
		return nil
	}
	err := s.send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Denials{
		Denials: &nodev1.Denials{Content: d.content},
	}})
	if err != nil {
		return err
	}
	s.toldDenials, s.sentDenials = true, d.digest
	return nil
}

// NotifyRevoked tells every node what is revoked now, and ends the sessions of those whose own certificate is.
func (s *Server) NotifyRevoked() {
	changed, err := s.workOutDenials()
	if err != nil {
		s.config.Log.Error("it cannot be worked out what is revoked, nodes keep what they know", "error", err)
	}
	if changed {
		d := s.denied.Load()
		s.config.Log.Info("certificates that the fleet must not believe", "revocations", d.revocations, "machines", d.machines)
	}
	s.NotifyTrust()
}

// revoked refuses a session whose certificate, or the certificate of whose issuer, was revoked since it was verified.
func (s *session) revoked() error {
	if s.server.config.Revoked == nil {
		return nil
	}
	if err := s.server.config.Revoked().CheckPath(s.path); err != nil {
		return status.Errorf(codes.Unauthenticated, "the session of %s ends: %v; join the machine again with a token", s.name, err)
	}
	return nil
}
