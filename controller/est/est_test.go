package est

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/catest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// clerk refuses everything with one error, and counts by which way it was asked.
type clerk struct {
	err                        error
	enrolled, renewed, waiting int
}

func (c *clerk) Enroll(context.Context, string, []byte) (ca.Issued, error) {
	c.enrolled++
	return ca.Issued{}, c.err
}

func (c *clerk) Renew(context.Context, *x509.Certificate, []byte) (ca.Issued, error) {
	c.renewed++
	return ca.Issued{}, c.err
}

func (c *clerk) Submit(context.Context, []byte, enrollment.Submitter) (enrollment.Submission, error) {
	c.waiting++
	return enrollment.Submission{}, c.err
}

func (c *clerk) MachineOf(leaf *x509.Certificate) (pki.Identity, error) {
	return pki.IdentityFromCertificate(leaf)
}

// request is one that parses.
func request(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := enroll.NewJoinRequest(key, "sql1.bank.example")
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// What the desk says becomes a status of RFC 7030 4.2.3 and RFC 9110, and the reason reaches the client as text; what is
// nobody's business but ours does not.
func TestRefusalsBecomeStatuses(t *testing.T) {
	text := base64.StdEncoding.EncodeToString(request(t))
	for _, c := range []struct {
		err    error
		status int
		says   string
		after  string
	}{
		{enroll.ErrTokenUnknown, 401, "not known", ""},
		{enroll.ErrTokenUsed, 403, "used before", ""},
		{enroll.ErrNameMismatch, 403, "another name", ""},
		{enroll.ErrRequest, 400, "invalid certificate request", ""},
		{enrollment.ErrMachineDisabled, 403, "disabled", ""},
		{enrollment.ErrSuperseded, 403, "enrolled anew", ""},
		{enrollment.ErrGraceOver, 403, "too long ago", ""},
		{enrollment.ErrTooOften, 429, "too often", "60"},
		{enrollment.ErrQueueFull, 429, "waiting", "60"},
		{enrollment.ErrNotReady, 503, "not been read", "30"},
		{context.DeadlineExceeded, 503, "deadline", "30"},
		{errors.New("the disk of 192.0.2.1 is full"), 500, "its log has the reason", ""},
	} {
		desk := &clerk{err: c.err}
		h := New(Config{Desk: desk, Log: hclog.NewNullLogger()})
		r := httptest.NewRequest(http.MethodPost, Prefix+"simpleenroll", strings.NewReader(text))
		r.Header.Set("Content-Type", "application/pkcs10")
		r.SetBasicAuth("anybody", "token")
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.says) || w.Header().Get("Retry-After") != c.after || desk.enrolled != 1 {
			t.Errorf("%v became %d %q, asked %d times, after %q; want %d with %q after %q", c.err, w.Code, w.Body, desk.enrolled, w.Header().Get("Retry-After"), c.status, c.says, c.after)
		}
		if strings.Contains(w.Body.String(), "192.0.2.1") {
			t.Errorf("the client learnt %q", w.Body)
		}
		if got := w.Header().Get("WWW-Authenticate") != ""; got != (c.status == 401) {
			t.Errorf("%v: it is asked to authenticate: %v", c.err, got)
		}
	}
}

// Whoever shows a certificate that is not believed gets no further, whatever the queue of requests would take.
func TestCertificateThatIsNotBelieved(t *testing.T) {
	authority := catest.New(t)
	machine := authority.Machine(t, catest.Identity(t, "sql1.bank.example")).Leaf
	administrator := authority.Administrator(t, "alice").Leaf
	text := base64.StdEncoding.EncodeToString(request(t))
	refused := errors.New("revoked")
	for name, c := range map[string]struct {
		leaf      *x509.Certificate
		verify    error
		operation string
		status    int
		renewed   int
		late      bool
	}{
		"refused, enrolling":         {machine, refused, "simpleenroll", 401, 0, false},
		"refused, reenrolling":       {machine, refused, "simplereenroll", 401, 0, true},
		"an administrator's":         {administrator, nil, "simplereenroll", 403, 0, true},
		"believed, enrolling":        {machine, nil, "simpleenroll", 400, 1, false},
		"believed, reenrolling":      {machine, nil, "simplereenroll", 400, 1, true},
		"none to reenrol":            {nil, nil, "simplereenroll", 401, 0, false},
		"none, and the queue serves": {nil, nil, "simpleenroll", 400, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			desk := &clerk{err: enroll.ErrRequest}
			h := New(Config{Desk: desk, Requests: true, Log: hclog.NewNullLogger(), Verify: func(ctx context.Context, _ []*x509.Certificate, late bool) (context.Context, error) {
				if late != c.late {
					t.Errorf("a certificate that ended is accepted: %v, want %v", late, c.late)
				}
				return ctx, c.verify
			}})
			r := httptest.NewRequest(http.MethodPost, Prefix+c.operation, strings.NewReader(text))
			r.Header.Set("Content-Type", "application/pkcs10; charset=us-ascii")
			r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13}
			if c.leaf != nil {
				r.TLS.PeerCertificates = []*x509.Certificate{c.leaf}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status || desk.renewed != c.renewed || (desk.waiting > 0) != (c.leaf == nil && c.operation == "simpleenroll") {
				t.Errorf("got %d %q, renewed %d, waiting %d; want %d", w.Code, w.Body, desk.renewed, desk.waiting, c.status)
			}
		})
	}
}

func TestESTIsSpokenOverTLSAlone(t *testing.T) {
	h := New(Config{Trust: func() trust.Bundle { return catest.New(t).Bundle() }, Log: hclog.NewNullLogger()})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, Prefix+"cacerts", nil))
	if w.Code != http.StatusForbidden {
		t.Errorf("in clear it gave %d", w.Code)
	}
}

func TestAttributesAreASN1(t *testing.T) {
	der, err := csrAttributes()
	if err != nil {
		t.Fatal(err)
	}
	var all []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &all); err != nil || len(rest) != 0 || len(all) != 2 {
		t.Errorf("%d values, %d octets left, error %v", len(all), len(rest), err)
	}
}
