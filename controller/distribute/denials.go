package distribute

import (
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
}

// workOutDenials finds out whom the directory does not admit: machines whose account is disabled, and those that were nodes and
// are gone from it beyond the grace time. It reports whether that is another set than before.
func (s *Server) workOutDenials() (changed bool, err error) {
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
	set, err := trust.NewDenials(machines, trust.Revocations{})
	if err != nil {
		return false, err
	}
	next := &denials{machines: len(machines)}
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
