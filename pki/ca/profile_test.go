package ca

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestCertificateNeverOutlivesItsIssuer(t *testing.T) {
	b := newBench(t, Config{IssuerLifetime: 100 * day})
	end := b.Issuing().NotAfter
	p := profile(t, Machine, ProfileConfig{})
	id := identity(t, "sql1.bank.example")
	for _, c := range []struct {
		name     string
		now      time.Time
		notAfter time.Time // zero: refused
		says     string
	}{
		{"issuer with a long life", start, start.Add(30 * day), ""},
		{"issuer that ends before the certificate would", end.Add(-10 * day), end, ""},
		{"issuer with the shortest life that will do", end.Add(-day), end, ""},
		{"issuer that ends too soon", end.Add(-day + time.Second), time.Time{}, "renew the issuing CA"},
		{"issuer at its end", end, time.Time{}, "expired at 2027-02-27T23:55:00Z, this clock says 2027-02-27T23:55:00Z"},
		{"clock a year late", start.AddDate(1, 0, 0), time.Time{}, "this clock says 2027-11-20T00:00:00Z; renew the issuing CA, or set the clock"},
		{"clock a year early", start.AddDate(-1, 0, 0), time.Time{}, "valid from 2026-11-19T23:55:00Z, this clock says 2025-11-20T00:00:00Z; set the clock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			prepared, err := b.Prepare(c.now, p, request(t, newKey(t), id), id)
			if c.notAfter.IsZero() {
				var refusal *IssuerValidityError
				if !errors.As(err, &refusal) || !errors.Is(err, ErrIssuerValidity) || !strings.Contains(err.Error(), c.says) {
					t.Fatalf("error %v, want *IssuerValidityError that says %q", err, c.says)
				}
				if b.CheckIssuing(c.now, p) == nil {
					t.Error("CheckIssuing sees no problem")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			issued, err := b.Issue(context.Background(), prepared)
			if err != nil {
				t.Fatal(err)
			}
			if !issued.Leaf.NotAfter.Equal(c.notAfter) || issued.Leaf.NotBefore.Before(b.Issuing().NotBefore) {
				t.Errorf("valid from %v to %v, want until %v and not before the issuer", issued.Leaf.NotBefore, issued.Leaf.NotAfter, c.notAfter)
			}
		})
	}
	if got := b.Remaining(end.Add(-time.Hour)); got != time.Hour {
		t.Errorf("remaining %v, want 1h", got)
	}
}

func TestNewProfile(t *testing.T) {
	for _, c := range []struct {
		kind   Kind
		config ProfileConfig
		ok     bool
	}{
		{Machine, ProfileConfig{}, true},
		{Machine, ProfileConfig{Lifetime: day}, true},
		{Machine, ProfileConfig{Lifetime: 90 * day, Backdate: time.Hour}, true},
		{Machine, ProfileConfig{Lifetime: day - 1}, false},
		{Machine, ProfileConfig{Lifetime: 90*day + 1}, false},
		{Machine, ProfileConfig{Lifetime: -day}, false},
		{Server, ProfileConfig{Lifetime: time.Hour}, false},
		{Admin, ProfileConfig{Lifetime: time.Hour}, true},
		{Admin, ProfileConfig{Lifetime: time.Minute}, false},
		{Machine, ProfileConfig{Backdate: -1}, false},
		{Machine, ProfileConfig{Backdate: time.Hour + 1}, false},
		{Machine, ProfileConfig{Organization: "Bank"}, true},
		{Machine, ProfileConfig{Organization: " Bank"}, false},
		{Machine, ProfileConfig{Organization: "Ba\nnk"}, false},
		{Machine, ProfileConfig{Organization: strings.Repeat("x", 65)}, false},
		{0, ProfileConfig{}, false},
		{99, ProfileConfig{}, false},
	} {
		_, err := NewProfile(c.kind, c.config)
		if c.ok && err != nil || !c.ok && !errors.Is(err, ErrProfile) {
			t.Errorf("%v %+v gives %v, want accepted: %v", c.kind, c.config, err, c.ok)
		}
	}
}
