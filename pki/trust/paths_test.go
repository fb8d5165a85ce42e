package trust_test

import (
	"crypto/x509"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

func raw(chain []*x509.Certificate) [][]byte {
	var out [][]byte
	for _, c := range chain {
		out = append(out, c.Raw)
	}
	return out
}

// What is remembered changes no verdict: whatever was asked before, at whatever time and under whatever bundle.
func TestPathsAgreeWithVerify(t *testing.T) {
	root, other := issue(t, nil, "root", asCA), issue(t, nil, "other root", asCA)
	issuing := issue(t, root, "issuing", asCA)
	short := issueFor(t, root, "issuing", issuing.key, func(c *x509.Certificate) { asCA(c); c.NotAfter = start.Add(5 * day) })
	sql1 := issue(t, issuing, "sql1.bank.example", nil)
	brief := issue(t, issuing, "brief.bank.example", func(c *x509.Certificate) { c.NotAfter = start.Add(3 * day) })
	strange := issue(t, other, "sql1.bank.example", nil)
	later, err := trust.NewBundle(8, chainOf(root), chainOf(issuing))
	if err != nil {
		t.Fatal(err)
	}
	bundles := []trust.Bundle{bundleOf(t, root), bundleOf(t, other), bundleOf(t, root, issuing), later, {}}
	chains := [][]*x509.Certificate{
		chainOf(sql1, issuing), chainOf(sql1, short), chainOf(sql1, issuing, short), chainOf(brief, issuing), chainOf(strange), chainOf(sql1), nil,
	}
	id := func(name string) pki.IKEID { return pki.IKEID{Type: pki.IDFQDN, Data: []byte(name)} }
	options := []trust.Options{
		usages(trust.IPsecIKE), usages(trust.ServerAuth), {},
		revoked(t, []trust.Serial{serialOf(t, issuing, sql1)}), revoked(t, nil, keyID(t, issuing)),
		revoked(t, []trust.Serial{serialOf(t, root, issuing)}),
		{Usages: []trust.Usage{trust.IPsecIKE}, IKEID: id("sql1.bank.example")},
		{Usages: []trust.Usage{trust.IPsecIKE}, IKEID: id("sql2.bank.example")},
	}
	rapid.Check(t, func(t *rapid.T) {
		paths := trust.NewPaths(rapid.IntRange(0, 3).Draw(t, "limit"))
		accepted := 0
		for range 30 {
			b := bundles[rapid.IntRange(0, len(bundles)-1).Draw(t, "bundle")]
			chain := chains[rapid.IntRange(0, len(chains)-1).Draw(t, "chain")]
			o := options[rapid.IntRange(0, len(options)-1).Draw(t, "options")]
			now := start.Add(time.Duration(rapid.IntRange(-1, 31*24).Draw(t, "hours")) * time.Hour)
			want, wantErr := (*trust.Paths)(nil).Verify(b, now, raw(chain), o)
			got, err := paths.Verify(b, now, raw(chain), o)
			wantReason, _ := trust.ReasonOf(wantErr)
			reason, _ := trust.ReasonOf(err)
			if (err == nil) != (wantErr == nil) || reason != wantReason {
				t.Fatalf("at %s: got %v, want %v", now, err, wantErr)
			}
			if err != nil {
				continue
			}
			accepted++
			if !got.Leaf.Equal(want.Leaf) || !got.NotAfter.Equal(want.NotAfter) && len(chain) < 3 {
				t.Fatalf("at %s: %q until %s, want %q until %s", now, got.Leaf.Subject, got.NotAfter, want.Leaf.Subject, want.NotAfter)
			}
		}
	})
}

func TestPathsRememberNothingOfAnotherBundle(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	sql1 := issue(t, root, "sql1.bank.example", nil)
	paths := trust.NewPaths(8)
	if _, err := paths.Verify(bundleOf(t, root), noon, raw(chainOf(sql1)), usages(trust.IPsecIKE)); err != nil {
		t.Fatal(err)
	}
	// The root was replaced by one of the same name: what it signed counts no more.
	replaced := bundleOf(t, issue(t, nil, "root", asCA))
	_, err := paths.Verify(replaced, noon, raw(chainOf(sql1)), usages(trust.IPsecIKE))
	if reason, _ := trust.ReasonOf(err); reason != trust.ReasonUnknownIssuer {
		t.Errorf("under another root: got %v, want %v", err, trust.ReasonUnknownIssuer)
	}
}

func TestPathsByManyGoroutines(t *testing.T) {
	root := issue(t, nil, "root", asCA)
	paths, bundle := trust.NewPaths(4), bundleOf(t, root)
	var wait sync.WaitGroup
	for range 8 {
		chain := raw(chainOf(issue(t, root, "sql1.bank.example", nil)))
		wait.Go(func() {
			for range 50 {
				if _, err := paths.Verify(bundle, noon, chain, usages(trust.IPsecIKE)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}

func BenchmarkVerifyKnownChain(b *testing.B) {
	root := issue(b, nil, "root", asCA)
	chain := raw(chainOf(issue(b, root, "sql1.bank.example", nil)))
	bundle := bundleOf(b, root)
	for name, paths := range map[string]*trust.Paths{"anew": nil, "known": trust.NewPaths(1)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := paths.Verify(bundle, noon, chain, usages(trust.IPsecIKE)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
