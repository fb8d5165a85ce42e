package distribute

import (
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// groups are who is in the groups that policies name, encoded once for all sessions. It is immutable.
type groups struct {
	content []byte
	digest  trust.Digest
	names   int
}

// workOutGroups finds out who is in the groups that the policies in force name. It reports whether that is something else
// than before.
func (s *Server) workOutGroups() (changed bool, err error) {
	members := map[string][]pki.UUID{}
	for name, machines := range s.config.Assignments.Members() {
		list := make([]pki.UUID, len(machines))
		for i, u := range machines {
			list[i] = pki.UUID(u)
		}
		members[name] = list
	}
	set, err := trust.NewGroups(members)
	if err != nil {
		return false, err
	}
	next := &groups{names: len(members)}
	if next.content, err = set.Append(nil); err != nil {
		return false, err
	}
	if next.digest, err = set.Digest(); err != nil {
		return false, err
	}
	old := s.grouped.Swap(next)
	if old == nil {
		return next.names > 0, nil
	}
	return old.digest != next.digest, nil
}

// sendGroups tells the node who is in the groups that policies name, unless this session has told it so. Where none names
// any, a node that was told of some before its session ended learns that as well.
func (s *session) sendGroups() error {
	g := s.server.grouped.Load()
	if g == nil || s.toldGroups && g.digest == s.sentGroups {
		return nil
	}
	err := s.send(&nodev1.ConnectResponse{Message: &nodev1.ConnectResponse_Groups{Groups: &nodev1.Groups{Content: g.content}}})
	if err != nil {
		return err
	}
	s.toldGroups, s.sentGroups = true, g.digest
	return nil
}
