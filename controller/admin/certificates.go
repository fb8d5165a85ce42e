package admin

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/controller/store"
	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	reasons "github.com/bailiwick-net/bailiwick/pki/revocation"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// The statuses of certificates.
const (
	statusGood       = "good"
	statusRevoked    = "revoked"
	statusHold       = "on-hold"
	statusExpired    = "expired"
	statusUnfinished = "unfinished"
)

// The pages of a list.
const (
	usualCertificates = 1000
	mostCertificates  = 5000
)

// order reads what certificates are selected.
func (s *Server) order(selector *adminv1.CertificateSelector) (revocation.Order, error) {
	switch by := selector.GetBy().(type) {
	case *adminv1.CertificateSelector_Serial:
		serial, err := revocation.ParseSerial(by.Serial)
		if err != nil {
			return revocation.Order{}, status.Error(codes.InvalidArgument, err.Error())
		}
		return revocation.Order{Serial: serial}, nil
	case *adminv1.CertificateSelector_Key:
		key, err := pki.ParseKeyID(strings.ToLower(strings.ReplaceAll(by.Key, ":", "")))
		if err != nil {
			return revocation.Order{}, status.Error(codes.InvalidArgument, err.Error())
		}
		return revocation.Order{Key: key}, nil
	case *adminv1.CertificateSelector_Machine:
		m, err := find(s.config.Mirror.View(), by.Machine)
		if err == nil {
			return revocation.Order{Subject: pki.MachineURI(s.config.TrustDomain, pki.UUID(m.UUID))}, nil
		}
		// Certificates outlive the entries of their machines.
		if u, parseErr := pki.ParseUUID(by.Machine); parseErr == nil {
			return revocation.Order{Subject: pki.MachineURI(s.config.TrustDomain, u)}, nil
		}
		return revocation.Order{}, err
	}
	return revocation.Order{}, status.Error(codes.InvalidArgument, "which certificates? name a serial number, a machine or a key")
}

// ListCertificates implements adminv1.CertificateServiceServer.
func (s *Server) ListCertificates(ctx context.Context, r *adminv1.ListCertificatesRequest) (*adminv1.ListCertificatesResponse, error) {
	wanted := []string{"", statusGood, statusRevoked, statusHold, statusExpired, statusUnfinished}
	if !slices.Contains(wanted, r.GetStatus()) {
		return nil, status.Errorf(codes.InvalidArgument, "status %q, wanted %s", r.GetStatus(), strings.Join(wanted[1:], ", "))
	}
	limit := int(min(cmp.Or(r.GetLimit(), usualCertificates), mostCertificates))
	response := &adminv1.ListCertificatesResponse{}
	view := s.config.Mirror.View()
	take := func(e ca.Entry) (full bool) {
		c := s.certificate(view, e)
		if r.GetStatus() != "" && c.GetStatus() != r.GetStatus() || r.GetProfile() != "" && c.GetProfile() != r.GetProfile() ||
			r.GetEndsBefore() != nil && !e.Intention.NotAfter.Before(r.GetEndsBefore().AsTime()) {
			return false
		}
		if len(response.GetCertificates()) == limit {
			response.Next = response.Certificates[limit-1].GetSerial()
			return true
		}
		response.Certificates = append(response.Certificates, c)
		return false
	}
	var after string
	var err error
	if r.GetAfter() != "" {
		if after, err = revocation.ParseSerial(r.GetAfter()); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	if r.GetSelector().GetBy() != nil {
		entries, err := s.selected(ctx, r.GetSelector())
		if err != nil {
			return nil, refuse(err)
		}
		for _, e := range entries {
			if e.Intention.Serial > after && take(e) {
				break
			}
		}
		return response, nil
	}
	for more := true; more; {
		var entries []ca.Entry
		if entries, more, err = s.config.Store.IssuancePage(ctx, after, usualCertificates); err != nil {
			return nil, refuse(err)
		}
		for _, e := range entries {
			if take(e) {
				return response, nil
			}
			after = e.Intention.Serial
		}
	}
	return response, nil
}

// selected reads the entries that a selector names; no entry is no error.
func (s *Server) selected(ctx context.Context, selector *adminv1.CertificateSelector) ([]ca.Entry, error) {
	o, err := s.order(selector)
	switch {
	case err != nil:
		return nil, err
	case o.Serial != "":
		e, err := s.config.Store.Issuance(ctx, o.Serial)
		if errors.Is(err, store.ErrNotFound) {
			return nil, nil
		}
		return []ca.Entry{e}, err
	case o.Subject != "":
		return s.config.Store.IssuancesTo(ctx, o.Subject)
	}
	return s.config.Store.IssuancesOf(ctx, o.Key)
}

// certificate describes an entry of the journal.
func (s *Server) certificate(view *mirror.View, e ca.Entry) *adminv1.Certificate {
	i := e.Intention
	c := &adminv1.Certificate{
		Serial: i.Serial, Issuer: i.Issuer.String(), Key: i.Key.String(), Profile: i.Profile, Subject: i.Subject,
		NotBefore: stamp(i.NotBefore), NotAfter: stamp(i.NotAfter), Issued: stamp(i.Prepared), Status: statusGood,
	}
	if _, u, ok := pki.ParseMachineURI(i.Subject); ok && view != nil {
		if m, _, known := view.Machine(directory.UUID(u)); known {
			c.Machine = m.Name
		}
	}
	r, revoked := s.config.Revocations.Record(i.Serial)
	switch {
	case revoked:
		c.Revocation, c.Status = describeRevocation(r), statusRevoked
		if r.Reason == reasons.CertificateHold.String() {
			c.Status = statusHold
		}
	case !s.config.Now().Before(i.NotAfter):
		c.Status = statusExpired
	case e.Certificate == nil:
		c.Status = statusUnfinished
	}
	return c
}

func describeRevocation(r store.Revocation) *adminv1.Revocation {
	return &adminv1.Revocation{
		Serial: r.Serial, Key: r.Key.String(), Reason: r.Reason, At: stamp(r.At), By: r.By, Automatic: r.Automatic, BlocksKey: r.Block, Subject: r.Subject,
	}
}

func describeRevocations(all []store.Revocation) []*adminv1.Revocation {
	var out []*adminv1.Revocation
	for _, r := range all {
		out = append(out, describeRevocation(r))
	}
	return out
}

// GetCertificate implements adminv1.CertificateServiceServer.
func (s *Server) GetCertificate(ctx context.Context, r *adminv1.GetCertificateRequest) (*adminv1.GetCertificateResponse, error) {
	serial, err := revocation.ParseSerial(r.GetSerial())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	e, err := s.config.Store.Issuance(ctx, serial)
	if err != nil {
		return nil, refuse(err)
	}
	return &adminv1.GetCertificateResponse{Certificate: s.certificate(s.config.Mirror.View(), e), Content: e.Certificate}, nil
}

// ListCertificateEvents implements adminv1.CertificateServiceServer.
func (s *Server) ListCertificateEvents(ctx context.Context, r *adminv1.ListCertificateEventsRequest) (*adminv1.ListCertificateEventsResponse, error) {
	var entries []ca.Entry
	var err error
	fits := func(store.Revocation) bool { return true }
	if r.GetSelector().GetBy() == nil {
		entries, err = s.config.Store.Issuances(ctx)
	} else {
		var o revocation.Order
		if o, err = s.order(r.GetSelector()); err != nil {
			return nil, refuse(err)
		}
		fits = func(r store.Revocation) bool {
			return o.Serial != "" && r.Serial == o.Serial || o.Subject != "" && r.Subject == o.Subject || !o.Key.IsZero() && r.Key == o.Key
		}
		entries, err = s.selected(ctx, r.GetSelector())
	}
	if err != nil {
		return nil, refuse(err)
	}
	history, err := s.config.Store.RevocationEvents(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	response := &adminv1.ListCertificateEventsResponse{}
	for _, e := range entries {
		i := e.Intention
		response.Events = append(response.Events, &adminv1.CertificateEvent{
			At: stamp(i.Prepared), Kind: "issued", Serial: i.Serial, Key: i.Key.String(), Subject: i.Subject,
		})
	}
	for _, e := range history {
		if v := e.Revocation; fits(v) {
			kind := statusRevoked
			switch {
			case e.Released:
				kind = "released"
			case v.Reason == reasons.CertificateHold.String():
				kind = statusHold
			}
			response.Events = append(response.Events, &adminv1.CertificateEvent{
				At: stamp(e.At), Kind: kind, Serial: v.Serial, Key: v.Key.String(), Subject: v.Subject, Reason: v.Reason, By: e.By,
			})
		}
	}
	slices.SortStableFunc(response.Events, func(a, b *adminv1.CertificateEvent) int {
		return a.GetAt().AsTime().Truncate(time.Millisecond).Compare(b.GetAt().AsTime().Truncate(time.Millisecond))
	})
	return response, nil
}

// RevokeCertificates implements adminv1.CertificateServiceServer.
func (s *Server) RevokeCertificates(ctx context.Context, r *adminv1.RevokeCertificatesRequest) (*adminv1.RevokeCertificatesResponse, error) {
	reason, err := reasons.ParseReason(cmp.Or(r.GetReason(), reasons.Unspecified.String()))
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	o, err := s.order(r.GetSelector())
	if err != nil {
		return nil, refuse(err)
	}
	// Before, because a machine that is revoked loses its session at once.
	connected := uint32(0)
	for _, n := range s.config.Sessions.Nodes() {
		if n.Connected {
			connected++
		}
	}
	by := actor(ctx).Name
	out, err := s.config.Revocations.Revoke(ctx, o, reason, by)
	if err != nil {
		return nil, refuse(err)
	}
	for _, v := range out.Changed {
		s.config.Log.Warn("certificate revoked", "id", v.ID(), "subject", v.Subject, "key", v.Key, "reason", v.Reason, "by", by)
	}
	return &adminv1.RevokeCertificatesResponse{Revoked: describeRevocations(out.Changed), Before: describeRevocations(out.Before), ConnectedNodes: connected}, nil
}

// ReleaseCertificates implements adminv1.CertificateServiceServer.
func (s *Server) ReleaseCertificates(ctx context.Context, r *adminv1.ReleaseCertificatesRequest) (*adminv1.ReleaseCertificatesResponse, error) {
	o, err := s.order(r.GetSelector())
	if err != nil {
		return nil, refuse(err)
	}
	by := actor(ctx).Name
	out, err := s.config.Revocations.Release(ctx, o, by)
	if err != nil {
		return nil, refuse(err)
	}
	for _, v := range out.Changed {
		s.config.Log.Warn("certificate released", "id", v.ID(), "subject", v.Subject, "by", by)
	}
	return &adminv1.ReleaseCertificatesResponse{Released: describeRevocations(out.Changed), Kept: describeRevocations(out.Before)}, nil
}

// latest are the latest certificates of the machines that may have one, of controllers and of administrators.
func (s *Server) latest(ctx context.Context) ([]analyze.Certificate, error) {
	holdings, err := s.config.Store.Holdings(ctx)
	if err != nil {
		return nil, refuse(err)
	}
	view := s.config.Mirror.View()
	if view == nil {
		return nil, nil
	}
	var out []analyze.Certificate
	for _, h := range holdings {
		m, vanished, ok := view.Machine(directory.UUID(h.Machine))
		_, revoked := s.config.Revocations.Record(h.Serial)
		if ok && !vanished && !m.Disabled && !revoked {
			out = append(out, analyze.Certificate{Whose: m.Name, NotBefore: h.Issued, NotAfter: h.NotAfter})
		}
	}
	for beginning, holder := range map[string]analyze.Holder{
		pki.ControllersURI(s.config.TrustDomain): analyze.HolderController, pki.AdministratorsURI(s.config.TrustDomain): analyze.HolderAdministrator,
	} {
		subjects, err := s.config.Store.IssuedSubjects(ctx, beginning)
		if err != nil {
			return nil, refuse(err)
		}
		for _, subject := range subjects {
			entries, err := s.config.Store.IssuancesTo(ctx, subject)
			if err != nil {
				return nil, refuse(err)
			}
			if i, ok := s.latestOf(entries); ok {
				out = append(out, analyze.Certificate{Holder: holder, Whose: strings.TrimPrefix(subject, beginning), NotBefore: i.NotBefore, NotAfter: i.NotAfter})
			}
		}
	}
	return out, nil
}

// latestOf is the certificate of a subject that ends last, of those that were signed and count.
func (s *Server) latestOf(entries []ca.Entry) (latest ca.Intention, ok bool) {
	for _, e := range entries {
		if _, revoked := s.config.Revocations.Record(e.Intention.Serial); e.Certificate != nil && !revoked && e.Intention.NotAfter.After(latest.NotAfter) {
			latest, ok = e.Intention, true
		}
	}
	return latest, ok
}
