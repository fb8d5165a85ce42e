package controller

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/bailiwick-net/bailiwick/controller/revocation"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// paged gives out two pages of certificates, or fails.
type paged struct {
	fails error
	asked int
}

func (p *paged) ListCertificates(_ context.Context, r *adminv1.ListCertificatesRequest) (*adminv1.ListCertificatesResponse, error) {
	p.asked++
	if r.GetAfter() != "" {
		return &adminv1.ListCertificatesResponse{Certificates: []*adminv1.Certificate{{Profile: "admin", Subject: "uri/anna", Status: "good", NotAfter: timestamppb.New(time.Unix(9, 0))}}}, p.fails
	}
	return &adminv1.ListCertificatesResponse{Certificates: []*adminv1.Certificate{{Profile: "machine", Machine: "ws1", Status: "good", NotAfter: timestamppb.New(time.Unix(7, 0))}}, Next: "1"}, nil
}

func (*paged) GetAuthorities(context.Context, *adminv1.GetAuthoritiesRequest) (*adminv1.GetAuthoritiesResponse, error) {
	return &adminv1.GetAuthoritiesResponse{}, nil
}

// The figures are of all pages, are worked out no more often than once a minute, and are missing, rather than old, when they
// cannot be.
func TestEndsOfCertificatesAreToldOrMissing(t *testing.T) {
	source, now := &paged{}, time.Unix(1000, 0)
	e := &certificateEnds{source: source, now: func() time.Time { return now }, log: hclog.NewNullLogger()}
	for range 3 {
		text := string(e.text(t.Context()))
		for _, want := range []string{`{profile="machine",whose="ws1"} 7`, `{profile="admin",whose="anna"} 9`} {
			if !strings.Contains(text, want+"\n") {
				t.Errorf("the figures lack %q:\n%s", want, text)
			}
		}
	}
	if source.asked != 2 {
		t.Errorf("the journal was read %d times, want 2 pages once", source.asked)
	}
	now, source.fails = now.Add(certificateEndsAge), errors.New("no leader")
	if text := e.text(t.Context()); len(text) != 0 {
		t.Errorf("although the store does not answer there are figures:\n%s", text)
	}
}

func TestFiguresOfRevocationLists(t *testing.T) {
	text := string(listFigures(revocation.Health{Failing: 2, Failures: 5, Ends: map[string]time.Time{"ab": time.Unix(77, 0)}}))
	for _, want := range []string{"bailiwick_revocation_lists_failing 2", "bailiwick_revocation_list_failures_total 5", `bailiwick_revocation_list_end_timestamp_seconds{issuer="ab"} 77`} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the figures lack %q:\n%s", want, text)
		}
	}
}
