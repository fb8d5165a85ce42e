package analyze_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/analyze"
	"github.com/bailiwick-net/bailiwick/policies/predefined"
)

const head = "apiVersion: bailiwick.net/v1alpha1\nkind: "

const keyed = head + "FilterList\nname: All\nfilters: [{source: me, destination: any}]\n---\n" +
	head + "FilterAction\nname: Protect\naction: negotiate\noffers: [\"ESP[AES-GCM-256]\"]\n---\n" +
	head + "Policy\nname: Keyed\nrules:\n  - {name: all, filterList: All, filterAction: Protect, authentication: [{method: psk, secretRef: shared}, {method: certificate}]}\n---\n" +
	head + "Link\npolicy: Keyed\ncontainer: dc=bank,dc=example\norder: 1\n"

// bank is a directory of three machines, the first of which runs the controller.
func bank(t *testing.T) *directory.Snapshot {
	t.Helper()
	base := directory.MustParseDN("dc=bank,dc=example")
	b := directory.NewBuilder(base)
	id := func(n int) directory.UUID {
		u, err := directory.ParseUUID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	b.Add(directory.Container{UUID: id(1), DN: base, Kind: directory.KindOf(base)})
	for i, name := range []string{"control1", "ws1", "ws2"} {
		dn := directory.MustParseDN("cn=" + name + ",dc=bank,dc=example")
		b.Add(directory.Machine{UUID: id(10 + i), DN: dn, Name: name, DNSName: name + ".bank.example"})
	}
	s, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What takes the directory and the CAs to be seen.
func TestVerifyLooksAtTheFleet(t *testing.T) {
	docs, err := policies.Decode("keyed.yaml", []byte(keyed))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name     string
		services []analyze.Service
		ends     time.Duration
		want     string // severity, code and the beginning of the sentence
	}{
		{"the controller's own policy shuts the fleet out", []analyze.Service{{Name: "controller", Protocol: 6, Port: 7443, Host: "CONTROL1.bank.example", Exempt: true}}, 0,
			`error lockout: control1 runs the controller, and rule "all" wants what the fleet sends to it protected`},
		{"a service elsewhere", []analyze.Service{{Name: "controller", Protocol: 6, Port: 7443, Address: netip.MustParseAddr("192.0.2.9"), Exempt: true}}, 0, ""},
		{"a key of three machines", nil, 0, `warning preshared-key-shared: preshared key "shared" is shared by 3 machines (policy "Keyed")`},
		{"a CA that has ended", nil, -time.Hour, `error authority: CA "CN=Fleet", which peers must be of, has expired, on 2026-06-30`},
		{"a CA that ends this month", nil, 20 * 24 * time.Hour, `warning authority: CA "CN=Fleet", which peers must be of, expires in 20 days`},
		{"a CA that ends this quarter", nil, 80 * 24 * time.Hour, `info authority: CA "CN=Fleet", which peers must be of, expires in 80 days`},
		{"a CA that lasts", nil, 400 * 24 * time.Hour, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := analyze.Situation{Documents: docs, Directory: bank(t), Services: test.services, Now: now}
			if test.ends != 0 {
				s.Authorities = []analyze.Authority{{Subject: "CN=Fleet", NotAfter: now.Add(test.ends)}}
			}
			var got []string
			for _, f := range analyze.Verify(s) {
				got = append(got, fmt.Sprintf("%s %s: %s", f.Severity, f.Code, f.Message))
			}
			found := slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, test.want) })
			if test.want == "" {
				found = !slices.ContainsFunc(got, func(g string) bool { return strings.Contains(g, "lockout") || strings.Contains(g, "authority") })
			}
			if !found {
				t.Errorf("want %q, found\n%s", test.want, strings.Join(got, "\n"))
			}
		})
	}
}

// TestVerifySaysNothingOfStandardOffers: what stands in the documents that everybody has, for a level or for no offers at all,
// was meant for peers of all kinds; of a list that somebody wrote there is one finding with all that is in vain.
func TestVerifySaysNothingOfStandardOffers(t *testing.T) {
	written := head + "FilterAction\nname: Mine\naction: negotiate\noffers: [\"ESP[CHACHA20-POLY1305]\", \"ESP[AES-192,SHA384]\", \"ESP[AES-256,SHA512]\"]\n---\n" +
		head + "FilterAction\nname: Levelled\naction: negotiate\nlevel: low\n---\n" +
		head + "Policy\nname: Plain\nkeyExchange: {offers: [AES-GCM-256-SHA384-x25519, AES256-SHA256-modp4096]}\n"
	docs, err := policies.Decode("predefined.yaml", slices.Concat(predefined.Text(), []byte("\n---\n"+written)))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range analyze.Verify(analyze.Situation{Documents: docs, Now: time.Unix(0, 0)}) {
		if f.Code == analyze.FindingOffer {
			got = append(got, f.Object+": "+f.Message)
		}
	}
	want := []string{
		`FilterAction "Mine": ESP[AES-192,SHA384], ESP[AES-256,SHA512], offered for negotiations, are never chosen between machines of the fleet: what stands before always is`,
		`Policy "Plain": AES256-SHA256-modp4096, offered for IKE SAs, is never chosen between machines of the fleet: what stands before always is`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
