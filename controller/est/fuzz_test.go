package est

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// reader is a desk that reads what it is asked and refuses it.
type reader struct{ t *testing.T }

// read wants a request that is not too long, and no other channel binding in it than that of the connection.
func (r reader) read(csr []byte) error {
	if password, present, err := enroll.ChallengePassword(csr); err != nil || present && password != base64.StdEncoding.EncodeToString([]byte(unique)) {
		r.t.Errorf("a request with the challenge password %q was let through: %v", password, err)
	}
	if _, err := enroll.ParseRequest(csr); err != nil {
		return err
	}
	return enroll.ErrTokenUnknown
}

func (r reader) Enroll(_ context.Context, _ string, csr []byte) (ca.Issued, error) {
	return ca.Issued{}, r.read(csr)
}

func (r reader) Renew(context.Context, *x509.Certificate, []byte) (ca.Issued, error) {
	r.t.Error("renewed without a certificate")
	return ca.Issued{}, enroll.ErrRequest
}

func (r reader) Submit(_ context.Context, csr []byte, _ enrollment.Submitter) (enrollment.Submission, error) {
	return enrollment.Submission{}, r.read(csr)
}

func (r reader) MachineOf(leaf *x509.Certificate) (pki.Identity, error) {
	return pki.IdentityFromCertificate(leaf)
}

// unique is the tls-unique of the connection, which testdata/challenge-password.pem of pki/enroll states.
const unique = "tls-unique"

// FuzzRequest sends any body with any header to every operation that takes one: it is refused with a status of ours, and never
// as a failure of the controller.
func FuzzRequest(f *testing.F) {
	for _, name := range []string{"challenge-password.pem", "join-ec.pem"} {
		text, err := os.ReadFile("../../pki/enroll/testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		// The lines between those of PEM are the body.
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		body := bytes.Join(lines[1:len(lines)-1], []byte("\r\n"))
		f.Add(body, "application/pkcs10", "Basic YTpi", false)
		f.Add(body[:len(body)/2], "application/pkcs10; charset=us-ascii", "", false)
		f.Add(body, "application/pkcs7-mime", "Basic", true)
	}
	f.Fuzz(func(t *testing.T, body []byte, contentType, authorization string, again bool) {
		h := New(Config{Desk: reader{t}, Requests: true, Log: hclog.NewNullLogger()})
		operation := "simpleenroll"
		if again {
			operation = "simplereenroll"
		}
		r := httptest.NewRequest(http.MethodPost, Prefix+operation, bytes.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		r.Header.Set("Authorization", authorization)
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS12, TLSUnique: []byte(unique)}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusBadRequest, http.StatusUnauthorized, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType:
		default:
			t.Errorf("status %d: %q", w.Code, w.Body)
		}
	})
}
