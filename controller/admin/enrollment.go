package admin

import (
	"context"
	"errors"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/controller/store"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

func (s *Server) describeRequest(ctx context.Context, r store.JoinRequest) (*adminv1.EnrollmentRequest, error) {
	out := &adminv1.EnrollmentRequest{
		Key: r.Key.String(), Machine: r.MachineName, MachineDn: r.MachineDN, DnsName: r.DNSName, MachineUuid: r.Machine.String(),
		From: r.From, Via: r.Via, Created: stamp(r.Created), NotAfter: stamp(r.NotAfter), State: string(r.State),
		Decided: stamp(r.Decided), DecidedBy: r.By, Reason: r.Reason,
	}
	held, err := s.config.Store.Holding(ctx, r.Machine)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return nil, refuse(err)
	case s.config.Now().Before(held.NotAfter):
		out.HeldSerial, out.HeldNotAfter, out.Collected = held.Serial, stamp(held.NotAfter), held.Key == r.Key
	}
	return out, nil
}

// ListEnrollmentRequests implements adminv1.EnrollmentRequestServiceServer.
func (s *Server) ListEnrollmentRequests(ctx context.Context, _ *adminv1.ListEnrollmentRequestsRequest) (*adminv1.ListEnrollmentRequestsResponse, error) {
	all, err := s.config.Desk.JoinRequests(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	response := &adminv1.ListEnrollmentRequestsResponse{}
	for _, r := range all {
		described, err := s.describeRequest(ctx, r)
		if err != nil {
			return nil, err
		}
		response.Requests = append(response.Requests, described)
	}
	return response, nil
}

// GetEnrollmentRequest implements adminv1.EnrollmentRequestServiceServer.
func (s *Server) GetEnrollmentRequest(ctx context.Context, r *adminv1.GetEnrollmentRequestRequest) (*adminv1.GetEnrollmentRequestResponse, error) {
	found, err := s.config.Desk.FindRequest(ctx, r.GetRequest())
	if err != nil {
		return nil, refuse(err)
	}
	described, err := s.describeRequest(ctx, found)
	return &adminv1.GetEnrollmentRequestResponse{Request: described}, err
}

// ApproveEnrollmentRequest implements adminv1.EnrollmentRequestServiceServer.
func (s *Server) ApproveEnrollmentRequest(ctx context.Context, r *adminv1.ApproveEnrollmentRequestRequest) (*adminv1.ApproveEnrollmentRequestResponse, error) {
	found, err := s.config.Desk.FindRequest(ctx, r.GetRequest())
	if err != nil {
		return nil, refuse(err)
	}
	if found, err = s.config.Desk.Approve(ctx, found.Key, actor(ctx).Name); err != nil {
		return nil, refuse(err)
	}
	described, err := s.describeRequest(ctx, found)
	return &adminv1.ApproveEnrollmentRequestResponse{Request: described}, err
}

// DenyEnrollmentRequest implements adminv1.EnrollmentRequestServiceServer.
func (s *Server) DenyEnrollmentRequest(ctx context.Context, r *adminv1.DenyEnrollmentRequestRequest) (*adminv1.DenyEnrollmentRequestResponse, error) {
	found, err := s.config.Desk.FindRequest(ctx, r.GetRequest())
	if err != nil {
		return nil, refuse(err)
	}
	if found, err = s.config.Desk.Deny(ctx, found.Key, actor(ctx).Name, r.GetReason()); err != nil {
		return nil, refuse(err)
	}
	described, err := s.describeRequest(ctx, found)
	return &adminv1.DenyEnrollmentRequestResponse{Request: described}, err
}

// GetEnrollmentAuthority implements adminv1.EnrollmentRequestServiceServer.
func (s *Server) GetEnrollmentAuthority(context.Context, *adminv1.GetEnrollmentAuthorityRequest) (*adminv1.GetEnrollmentAuthorityResponse, error) {
	return &adminv1.GetEnrollmentAuthorityResponse{Pin: s.config.Desk.Pin().String(), Ca: s.config.Trust().AppendPEM(nil)}, nil
}

// GetMachineNames implements adminv1.EnrollmentRequestServiceServer.
func (s *Server) GetMachineNames(_ context.Context, r *adminv1.GetMachineNamesRequest) (*adminv1.GetMachineNamesResponse, error) {
	m, err := find(s.config.Mirror.View(), r.GetMachine())
	if err != nil {
		return nil, err
	}
	id, err := enrollment.Identity(s.config.TrustDomain, m)
	if err != nil {
		return nil, refuse(err)
	}
	return &adminv1.GetMachineNamesResponse{DnsName: id.DNSName(), MachineUuid: id.UUID().String(), TrustDomain: id.TrustDomain()}, nil
}

// IssueMachineCertificate implements adminv1.EnrollmentRequestServiceServer.
func (s *Server) IssueMachineCertificate(ctx context.Context, r *adminv1.IssueMachineCertificateRequest) (*adminv1.IssueMachineCertificateResponse, error) {
	m, err := find(s.config.Mirror.View(), r.GetMachine())
	if err != nil {
		return nil, err
	}
	issued, err := s.config.Desk.IssueMachine(ctx, m, r.GetCsr(), actor(ctx).Name)
	if err != nil {
		return nil, refuse(err)
	}
	response := &adminv1.IssueMachineCertificateResponse{Chain: issued.Chain()}
	for _, root := range s.config.Trust().Roots() {
		response.Roots = append(response.Roots, root.Raw)
	}
	return response, nil
}
