package admin

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/journal"
	"github.com/bailiwick-net/bailiwick/pki/slots"
	"github.com/bailiwick-net/bailiwick/pki/trust"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// GetAuthorities implements adminv1.AuthorityServiceServer.
func (s *Server) GetAuthorities(ctx context.Context, _ *adminv1.GetAuthoritiesRequest) (*adminv1.GetAuthoritiesResponse, error) {
	keeper := s.config.Authority
	head, err := s.config.Store.JournalHead(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	uses, err := keeper.Uses(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	state, bundle := keeper.State(), keeper.Trust()
	response := &adminv1.GetAuthoritiesResponse{TrustRevision: bundle.Revision(), TrustDigest: bundle.Digest().String(), JournalHead: head.String()}
	for _, slot := range state.Slots {
		described, err := describeSlot(slot, uses[slot.ID])
		if err != nil {
			return nil, refuse(err)
		}
		response.Authorities = append(response.Authorities, described)
	}
	for _, l := range s.config.Revocations.RootLists() {
		response.RootLists = append(response.RootLists, describeRootList(l))
	}
	response.Nodes = s.nodeTrust(state, bundle.Digest())
	for _, n := range response.GetNodes() {
		if waits(n) {
			response.Waiting++
		}
	}
	return response, nil
}

func waits(n *adminv1.NodeTrust) bool { return !n.GetCurrent() && n.GetExcused() == "" }

// waiting names the nodes that do not have the present trust bundle and must have it before another CA issues.
func (s *Server) waiting() []string {
	var names []string
	for _, n := range s.nodeTrust(s.config.Authority.State(), s.config.Authority.Trust().Digest()) {
		if waits(n) {
			names = append(names, n.GetMachine())
		}
	}
	return names
}

// nodeTrust tells how far every node is that ever connected, by name.
func (s *Server) nodeTrust(state slots.State, digest trust.Digest) []*adminv1.NodeTrust {
	// A slot is named in certificates by its issuing CA's key identifier.
	issuers := map[string]string{}
	for _, slot := range state.Slots {
		if issuing, err := trust.ParseCertificate(slot.Issuing); err == nil {
			issuers[hex.EncodeToString(issuing.SubjectKeyId)] = slot.ID
		}
	}
	now := s.config.Now()
	var out []*adminv1.NodeTrust
	for _, n := range s.config.Sessions.Nodes() {
		r := n.Record
		t := &adminv1.NodeTrust{
			Machine: r.Name, Current: r.Trust == digest.String(), Authority: issuers[r.Issuer], CertificateNotAfter: stamp(r.CertificateEnds),
			Connected: n.Connected, LastSeen: stamp(r.LastSeen),
		}
		switch {
		case !s.config.Resolver.Assignment(r.Machine).Standing.Admitted():
			t.Excused = "not admitted by the directory"
		case !r.CertificateEnds.IsZero() && !now.Before(r.CertificateEnds) && !n.Connected:
			t.Excused = "its certificate ended " + r.CertificateEnds.UTC().Format(time.RFC3339)
		}
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b *adminv1.NodeTrust) int { return strings.Compare(a.GetMachine(), b.GetMachine()) })
	return out
}

func describeSlot(slot slots.Slot, use authority.Use) (*adminv1.Authority, error) {
	a := &adminv1.Authority{
		Id: slot.ID, Status: string(slot.Status), Root: slot.Root, Issuing: slot.Issuing, RootOffline: slot.RootKey == "" && slot.Status != slots.Retired,
		Made: stamp(slot.Made), Activated: stamp(slot.Activated), Superseded: stamp(slot.Superseded), Retired: stamp(slot.Retired),
		Certificates: uint32(use.Certificates), CertificatesUntil: stamp(use.Until),
	}
	switch {
	case slot.Key == "":
	case strings.HasPrefix(slot.Key, "pkcs11:"):
		a.Key = "token"
	default:
		a.Key = "store"
	}
	if len(slot.Request) > 0 {
		a.Request = authority.RequestPEM(slot.Request)
	}
	for _, c := range []struct {
		der  []byte
		take func(*x509.Certificate)
	}{
		{slot.Root, func(c *x509.Certificate) { a.RootSubject, a.RootNotAfter = c.Subject.String(), stamp(c.NotAfter) }},
		{slot.Issuing, func(c *x509.Certificate) { a.IssuingSubject, a.IssuingNotAfter = c.Subject.String(), stamp(c.NotAfter) }},
	} {
		if len(c.der) == 0 {
			continue
		}
		parsed, err := trust.ParseCertificate(c.der)
		if err != nil {
			return nil, fmt.Errorf("certificate of the CA %s: %w", slot.ID, err)
		}
		c.take(parsed)
	}
	return a, nil
}

// stepped describes a slot after a step.
func (s *Server) stepped(ctx context.Context, slot slots.Slot, err error) (*adminv1.Authority, error) {
	if err != nil {
		return nil, refuseStep(err)
	}
	uses, err := s.config.Authority.Uses(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	described, err := describeSlot(slot, uses[slot.ID])
	if err != nil {
		return nil, refuse(err)
	}
	return described, nil
}

// refuseStep maps the errors of a rotation to a status.
func refuseStep(err error) error {
	for _, is := range []error{slots.ErrStep, authority.ErrNotReady, authority.ErrKey, ca.ErrAuthority} {
		if errors.Is(err, is) {
			return withHint(codes.FailedPrecondition, err, "look at: bailiwick ca status")
		}
	}
	return refuse(err)
}

// PrepareAuthority implements adminv1.AuthorityServiceServer.
func (s *Server) PrepareAuthority(ctx context.Context, r *adminv1.PrepareAuthorityRequest) (*adminv1.PrepareAuthorityResponse, error) {
	slot, err := s.config.Authority.PrepareNext(ctx, authority.Preparation{Root: r.GetRoot(), Emergency: r.GetEmergency(), By: actor(ctx).Name})
	described, err := s.stepped(ctx, slot, err)
	if err != nil {
		return nil, err
	}
	return &adminv1.PrepareAuthorityResponse{Authority: described}, nil
}

// CertifyAuthority implements adminv1.AuthorityServiceServer.
func (s *Server) CertifyAuthority(ctx context.Context, r *adminv1.CertifyAuthorityRequest) (*adminv1.CertifyAuthorityResponse, error) {
	slot, err := s.config.Authority.Certify(ctx, r.GetCertificates(), actor(ctx).Name)
	described, err := s.stepped(ctx, slot, err)
	if err != nil {
		return nil, err
	}
	return &adminv1.CertifyAuthorityResponse{Authority: described}, nil
}

// ActivateAuthority implements adminv1.AuthorityServiceServer.
func (s *Server) ActivateAuthority(ctx context.Context, r *adminv1.ActivateAuthorityRequest) (*adminv1.ActivateAuthorityResponse, error) {
	waiting := s.waiting()
	slot, err := s.config.Authority.Activate(ctx, waiting, r.GetEmergency(), actor(ctx).Name)
	described, err := s.stepped(ctx, slot, err)
	if err != nil {
		return nil, err
	}
	return &adminv1.ActivateAuthorityResponse{Authority: described, Waiting: waiting}, nil
}

// RetireAuthority implements adminv1.AuthorityServiceServer.
func (s *Server) RetireAuthority(ctx context.Context, r *adminv1.RetireAuthorityRequest) (*adminv1.RetireAuthorityResponse, error) {
	slot, err := s.config.Authority.Retire(ctx, r.GetId(), r.GetEmergency(), actor(ctx).Name)
	described, err := s.stepped(ctx, slot, err)
	if err != nil {
		return nil, err
	}
	return &adminv1.RetireAuthorityResponse{Authority: described}, nil
}

// maxJournalLines bounds one answer: of the largest lines they fit a message.
const maxJournalLines = 2000

var errPageFull = errors.New("page is full")

// ReadJournal implements adminv1.AuthorityServiceServer.
func (s *Server) ReadJournal(ctx context.Context, r *adminv1.ReadJournalRequest) (*adminv1.ReadJournalResponse, error) {
	response := &adminv1.ReadJournalResponse{}
	_, err := s.config.Store.ReadJournal(ctx, r.GetFrom(), func(line []byte) error {
		if len(response.GetLines()) == maxJournalLines {
			return errPageFull
		}
		response.Lines = append(response.Lines, line)
		return nil
	})
	if err != nil && !errors.Is(err, errPageFull) {
		return nil, refuse(err)
	}
	head, err := s.config.Store.JournalHead(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	response.Head = head.String()
	return response, nil
}

// AuditJournal implements adminv1.AuthorityServiceServer.
func (s *Server) AuditJournal(ctx context.Context, r *adminv1.AuditJournalRequest) (*adminv1.AuditJournalResponse, error) {
	var remembered []journal.Head
	for _, text := range r.GetRemembered() {
		h, err := journal.ParseHead(text)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		remembered = append(remembered, h)
	}
	report, err := s.config.Authority.Audit(ctx, remembered)
	if err != nil {
		return nil, refuse(err)
	}
	if len(report.Problems) > 0 {
		s.config.Log.Error("the issuing journal does not hold together", "problems", len(report.Problems), "first", report.Problems[0])
	}
	return &adminv1.AuditJournalResponse{
		Head: report.Head.String(), Certificates: uint32(report.Certificates), Open: uint32(report.Open), Problems: report.Problems,
	}, nil
}
