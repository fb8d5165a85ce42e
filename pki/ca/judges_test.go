package ca

import (
	"context"
	"crypto"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/certlint"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// judged is one certificate that the judges look at.
type judged struct {
	name    string
	chain   []string // files: leaf first, root last
	subject pki.Subject
}

// everyKind issues one certificate of each profile, by CAs of each algorithm, with keys of several kinds.
func everyKind(t *testing.T) []judged {
	t.Helper()
	controller, err := pki.NewController("bank.example", []string{"c1.bank.example"}, []netip.Addr{netip.MustParseAddr("192.0.2.1")})
	if err != nil {
		t.Fatal(err)
	}
	alice, err := pki.NewAdministrator("bank.example", "alice")
	if err != nil {
		t.Fatal(err)
	}
	machine := identity(t, "sql1.bank.example")
	subjects := map[Kind]pki.Subject{Machine: machine, Server: controller, Admin: alice, Gateway: machine, Peer: machine, Responder: controller}
	leafKeys := map[Algorithm]crypto.Signer{}
	for _, a := range []Algorithm{ECDSAP256, ECDSAP384, Ed25519, RSA3072} {
		if leafKeys[a], err = a.GenerateKey(); err != nil {
			t.Fatal(err)
		}
	}
	var out []judged
	dir := t.TempDir()
	for _, algorithm := range []Algorithm{ECDSAP256, ECDSAP384, Ed25519, RSA3072} {
		config := Config{TrustDomain: "bank.example", RootAlgorithm: algorithm, Algorithm: algorithm, Domains: []string{"bank.example"}}
		var more ProfileConfig
		if algorithm == ECDSAP384 {
			config.Pointers = placesAt(t, "http://pki.bank.example:7480")
			more = ProfileConfig{Pointers: config.Pointers, Organization: "The Bank of Example"}
		}
		authority, err := Generate(time.Now(), config)
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(authority.Root, authority.Issuing, authority.IssuingKey, &MemoryJournal{})
		if err != nil {
			t.Fatal(err)
		}
		write := func(name string, der []byte) string {
			path := filepath.Join(dir, algorithm.String()+"-"+name+".pem")
			if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
				t.Fatal(err)
			}
			return path
		}
		root, issuing := write("root", authority.Root.Raw), write("issuing", authority.Issuing.Raw)
		out = append(out, judged{algorithm.String() + " root", []string{root}, nil}, judged{algorithm.String() + " issuing", []string{issuing, root}, nil})
		for kind, subject := range subjects {
			for keyAlgorithm, key := range leafKeys {
				if keyAlgorithm != algorithm && algorithm != ECDSAP256 {
					continue // one CA certifies keys of all kinds
				}
				der, err := enroll.NewRequest(key, subject)
				if err != nil {
					t.Fatal(err)
				}
				request, err := enroll.ParseRequest(der)
				if err != nil {
					t.Fatal(err)
				}
				prepared, err := c.Prepare(time.Now(), profile(t, kind, more), request, subject)
				if err != nil {
					t.Fatal(err)
				}
				issued, err := c.Issue(context.Background(), prepared)
				if err != nil {
					t.Fatal(err)
				}
				name := fmt.Sprintf("%v-%v", kind, keyAlgorithm)
				out = append(out, judged{algorithm.String() + " " + name, []string{write(name, issued.Leaf.Raw), issuing, root}, subject})
			}
		}
	}
	return out
}

// OpenSSL's strict verification accepts every certificate of every profile, by every kind of CA, within name constraints.
func TestOpenSSLAcceptsEveryProfile(t *testing.T) {
	for _, j := range everyKind(t) {
		args := []string{"verify", "-x509_strict", "-check_ss_sig", "-CAfile", j.chain[len(j.chain)-1]}
		if len(j.chain) == 3 {
			args = append(args, "-untrusted", j.chain[1])
		}
		if out, err := exec.CommandContext(t.Context(), "openssl", append(args, j.chain[0])...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", j.name, err, out)
		}
	}
}

// zlint finds nothing against RFC 5280 and its kin in any of them. Its lints of the CA/Browser Forum are about certificates for
// the public web, which these are not.
func TestZlintFindsNothing(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "zlint")
	build := exec.CommandContext(t.Context(), "go", "build", "-modfile=.ci/tools.mod", "-o", program, "github.com/zmap/zlint/v3/cmd/zlint")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building zlint: %v\n%s", err, out)
	}
	for _, j := range everyKind(t) {
		out, err := exec.CommandContext(t.Context(), program, "-includeSources", "RFC3279,RFC5280,RFC5480,RFC5891,RFC8813,Community", j.chain[0]).Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", j.name, err, out)
		}
		var results map[string]struct {
			Result  string `json:"result"`
			Details string `json:"details"`
		}
		if err := json.Unmarshal(out, &results); err != nil || len(results) < 50 {
			t.Fatalf("%s: %d results, %v", j.name, len(results), err)
		}
		passed := 0
		for lint, r := range results {
			switch r.Result {
			case "pass":
				passed++
			case "warn", "error", "fatal":
				t.Errorf("%s: %s: %s %s", j.name, lint, r.Result, r.Details)
			}
		}
		if passed < 10 {
			t.Errorf("%s: only %d lints apply", j.name, passed)
		}
	}
}

// What an issuing CA may not vouch for is refused before anything is signed, and by OpenSSL after it.
func TestNameConstraintsHold(t *testing.T) {
	authority, err := Generate(time.Now(), Config{TrustDomain: "bank.example", Domains: []string{"bank.example", "branch.example"}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(authority.Root, authority.Issuing, authority.IssuingKey, &MemoryJournal{})
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	for name, ok := range map[string]bool{
		"sql1.bank.example": true, "branch.example": true, "a.b.branch.example": true,
		"sql1.other.example": false, "evilbank.example": false, "example": false,
	} {
		id := identity(t, name)
		_, err := c.Prepare(time.Now(), profile(t, Machine, ProfileConfig{}), request(t, key, id), id)
		if ok && err != nil || !ok && (err == nil || !strings.Contains(err.Error(), "name constraints") || !strings.Contains(err.Error(), certlint.ErrFindings.Error())) {
			t.Errorf("%s: %v, want accepted: %v", name, err, ok)
		}
	}
}
