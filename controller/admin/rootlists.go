package admin

import (
	"context"

	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// ImportRootList implements adminv1.AuthorityServiceServer.
func (s *Server) ImportRootList(ctx context.Context, r *adminv1.ImportRootListRequest) (*adminv1.ImportRootListResponse, error) {
	l, err := s.config.Revocations.HandIn(ctx, r.GetList(), actor(ctx).Name)
	if err != nil {
		return nil, refuse(err)
	}
	return &adminv1.ImportRootListResponse{List: describeRootList(l)}, nil
}

func describeRootList(l revocation.RootList) *adminv1.RootList {
	return &adminv1.RootList{
		RootSubject: l.Root.Subject.String(), Issuer: l.Issuer, Offline: l.Offline, Number: l.Number,
		ThisUpdate: stamp(l.ThisUpdate), NextUpdate: stamp(l.NextUpdate), Revoked: l.Revoked, Lacking: l.Lacking,
	}
}

// rootLists are the lists of roots that are kept off line, whose making nobody sees to but an administrator.
func (s *Server) rootLists() []analyze.RootList {
	var out []analyze.RootList
	for _, l := range s.config.Revocations.RootLists() {
		if l.Offline {
			out = append(out, analyze.RootList{
				Root: l.Root.Subject.String(), Named: l.Named, Number: l.Number, ThisUpdate: l.ThisUpdate, NextUpdate: l.NextUpdate, Lacking: l.Lacking,
			})
		}
	}
	return out
}
