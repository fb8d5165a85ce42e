package admin

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// CreateToken implements adminv1.CredentialServiceServer.
func (s *Server) CreateToken(ctx context.Context, r *adminv1.CreateTokenRequest) (*adminv1.CreateTokenResponse, error) {
	m, err := find(s.config.Mirror.View(), r.GetMachine())
	if err != nil {
		return nil, err
	}
	if r.GetTtlSeconds() > math.MaxInt64/uint64(time.Second) {
		return nil, status.Errorf(codes.InvalidArgument, "token lifetime of %d s is too long", r.GetTtlSeconds())
	}
	token, record, err := s.config.Desk.CreateToken(ctx, m, time.Duration(r.GetTtlSeconds())*time.Second, actor(ctx).Name)
	if err != nil {
		return nil, refuse(err)
	}
	return &adminv1.CreateTokenResponse{Text: token.Text(), Token: describeToken(record)}, nil
}

func describeToken(t store.Token) *adminv1.Token {
	return &adminv1.Token{
		Id: t.ID.String(), Machine: t.MachineName, MachineDn: t.MachineDN, MachineUuid: t.Machine.String(),
		Created: stamp(t.Created), NotAfter: stamp(t.NotAfter), Used: stamp(t.Used), CreatedBy: t.By,
	}
}

// ListTokens implements adminv1.CredentialServiceServer.
func (s *Server) ListTokens(ctx context.Context, _ *adminv1.ListTokensRequest) (*adminv1.ListTokensResponse, error) {
	tokens, err := s.config.Store.Tokens(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	slices.SortFunc(tokens, func(a, b store.Token) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID.String(), b.ID.String()))
	})
	response := &adminv1.ListTokensResponse{}
	for _, t := range tokens {
		response.Tokens = append(response.Tokens, describeToken(t))
	}
	return response, nil
}

// RevokeToken implements adminv1.CredentialServiceServer.
func (s *Server) RevokeToken(ctx context.Context, r *adminv1.RevokeTokenRequest) (*adminv1.RevokeTokenResponse, error) {
	id, err := enroll.ParseTokenID(r.GetId())
	if err != nil {
		// Who pastes the whole token means the token.
		token, tokenErr := enroll.ParseToken(r.GetId())
		if tokenErr != nil {
			return nil, status.Errorf(codes.InvalidArgument, "%v; look at: bailiwick token list", err)
		}
		id = token.ID
	}
	if err := s.config.Store.DeleteToken(ctx, id); err != nil {
		return nil, refuse(err)
	}
	s.config.Log.Info("join token revoked", "token", id, "by", actor(ctx).Name)
	return &adminv1.RevokeTokenResponse{}, nil
}

// IssueAdministrator implements adminv1.CredentialServiceServer.
func (s *Server) IssueAdministrator(ctx context.Context, r *adminv1.IssueAdministratorRequest) (*adminv1.IssueAdministratorResponse, error) {
	if !actor(ctx).Local {
		return nil, status.Error(codes.PermissionDenied, "administrators' certificates are issued over the controller's unix socket only")
	}
	issued, err := s.config.Desk.IssueAdministrator(ctx, r.GetAccount(), r.GetCsr())
	if err != nil {
		return nil, refuse(err)
	}
	return &adminv1.IssueAdministratorResponse{Chain: issued.Chain(), Ca: s.config.Trust().AppendPEM(nil)}, nil
}
