package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/pki/expiry"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// certificateSource tells of certificates as administrators see them.
type certificateSource interface {
	ListCertificates(ctx context.Context, r *adminv1.ListCertificatesRequest) (*adminv1.ListCertificatesResponse, error)
	GetAuthorities(ctx context.Context, r *adminv1.GetAuthoritiesRequest) (*adminv1.GetAuthoritiesResponse, error)
}

// certificateEnds are the figures of when certificates end. They are worked out from the whole journal, so seldom.
type certificateEnds struct {
	source certificateSource
	now    func() time.Time
	log    hclog.Logger

	mu      sync.Mutex
	made    time.Time
	present []byte
}

// certificateEndsAge is how old the figures may be: certificates live for days.
const certificateEndsAge = time.Minute

// text returns the figures. When they cannot be worked out there are none and not those of before: that they are missing is
// an alarm, and that they stand still is none.
func (e *certificateEnds) text(ctx context.Context) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	if age := now.Sub(e.made); !e.made.IsZero() && age >= 0 && age < certificateEndsAge {
		return slices.Clip(e.present)
	}
	figures, err := e.read(ctx)
	if err != nil {
		e.log.Warn("it cannot be told when certificates end", "error", err)
		e.made, e.present = time.Time{}, nil
		return nil
	}
	e.made, e.present = now, figures.Append(nil)
	return slices.Clip(e.present)
}

func (e *certificateEnds) read(ctx context.Context) (*expiry.Figures, error) {
	var out expiry.Figures
	for r := (&adminv1.ListCertificatesRequest{}); ; {
		page, err := e.source.ListCertificates(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, x := range page.GetCertificates() {
			out.Add(expiry.Certificate{Profile: x.GetProfile(), Whose: expiry.Whose(x.GetMachine(), x.GetSubject()), Status: x.GetStatus(), NotAfter: x.GetNotAfter().AsTime()})
		}
		if r.After = page.GetNext(); r.After == "" {
			break
		}
	}
	cas, err := e.source.GetAuthorities(ctx, &adminv1.GetAuthoritiesRequest{})
	if err != nil {
		return nil, err
	}
	for _, x := range cas.GetAuthorities() {
		out.AddAuthority(x.GetStatus(), x.GetRootSubject(), x.GetRootNotAfter().AsTime(), x.GetIssuingSubject(), x.GetIssuingNotAfter().AsTime())
	}
	return &out, nil
}

// listFigures are the figures of the revocation lists.
func listFigures(h revocation.Health) []byte {
	out := fmt.Appendf(nil, "# HELP bailiwick_revocation_lists_failing How many revocation lists could not be signed when that was tried last.\n"+
		"# TYPE bailiwick_revocation_lists_failing gauge\nbailiwick_revocation_lists_failing %d\n"+
		"# HELP bailiwick_revocation_list_failures_total Signatures of revocation lists that failed or took too long.\n"+
		"# TYPE bailiwick_revocation_list_failures_total counter\nbailiwick_revocation_list_failures_total %d\n", h.Failing, h.Failures)
	if len(h.Ends) == 0 {
		return out
	}
	out = append(out, "# HELP bailiwick_revocation_list_end_timestamp_seconds When the list that is given out ends, as a Unix time.\n"+
		"# TYPE bailiwick_revocation_list_end_timestamp_seconds gauge\n"...)
	for _, issuer := range slices.Sorted(maps.Keys(h.Ends)) {
		out = fmt.Appendf(out, "bailiwick_revocation_list_end_timestamp_seconds{issuer=%s} %d\n", label(issuer), h.Ends[issuer].Unix())
	}
	return out
}
