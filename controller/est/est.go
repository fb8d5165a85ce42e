package est

import (
	"bytes"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/smallstep/pkcs7"
	"google.golang.org/grpc/codes"

	"github.com/bailiwick-net/bailiwick/controller/enrollment"
	"github.com/bailiwick-net/bailiwick/pki"
	"github.com/bailiwick-net/bailiwick/pki/ca"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// Prefix is the path of every operation (RFC 7030 3.2.2).
const Prefix = "/.well-known/est/"

// Desk is what decides about certificates: an enrollment.Desk.
type Desk interface {
	Enroll(ctx context.Context, token string, csr []byte) (ca.Issued, error)
	Renew(ctx context.Context, leaf *x509.Certificate, csr []byte) (ca.Issued, error)
	Submit(ctx context.Context, csr []byte, from enrollment.Submitter) (enrollment.Submission, error)
	MachineOf(leaf *x509.Certificate) (pki.Identity, error)
}

// Config is what a Handler works with.
type Config struct {
	Desk Desk
	// Verify holds the chain of a client against the trust bundle; late accepts one that ended within the grace of renewals.
	// The context that it returns says whose it is, so that a revocation is seen up to the signature.
	Verify func(ctx context.Context, chain []*x509.Certificate, late bool) (context.Context, error)
	// Trust returns the trust bundle of the fleet.
	Trust func() trust.Bundle
	// Requests says that who shows nothing is put into the queue of requests.
	Requests bool
	Log      hclog.Logger
}

// A Handler answers the operations below Prefix.
type Handler struct {
	config Config
	mux    *http.ServeMux
}

// New makes a Handler.
func New(c Config) *Handler {
	h := &Handler{config: c, mux: http.NewServeMux()}
	h.mux.HandleFunc("GET "+Prefix+"cacerts", h.caCertificates)
	h.mux.HandleFunc("GET "+Prefix+"csrattrs", h.attributes)
	h.mux.HandleFunc("POST "+Prefix+"simpleenroll", func(w http.ResponseWriter, r *http.Request) { h.certify(w, r, h.enroll) })
	h.mux.HandleFunc("POST "+Prefix+"simplereenroll", func(w http.ResponseWriter, r *http.Request) { h.certify(w, r, h.reenroll) })
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.TLS == nil {
		http.Error(w, "EST is spoken over TLS alone (RFC 7030 3.3)", http.StatusForbidden)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	h.mux.ServeHTTP(w, r)
}

// caCertificates answers /cacerts (RFC 7030 4.1): the roots and the issuing CAs.
func (h *Handler) caCertificates(w http.ResponseWriter, _ *http.Request) {
	bundle := h.config.Trust()
	var all []*x509.Certificate
	all = append(append(all, bundle.Roots()...), bundle.Intermediates()...)
	h.certificates(w, "application/pkcs7-mime", all)
}

// certificates writes a certs-only CMS message (RFC 5652 5.1, RFC 7030 4.1.3).
func (h *Handler) certificates(w http.ResponseWriter, contentType string, all []*x509.Certificate) {
	var ders []byte
	for _, c := range all {
		ders = append(ders, c.Raw...)
	}
	message, err := pkcs7.DegenerateCertificate(ders)
	if err != nil {
		h.config.Log.Error("cannot encode certificates for an EST client", "error", err)
		http.Error(w, "the certificates cannot be encoded; the controller's log has the reason", http.StatusInternalServerError)
		return
	}
	answer(w, contentType, message)
}

// answer writes a body in base64 without line breaks, which all of EST uses (RFC 8951 3.1, RFC 4648 4). Older clients want
// the header to say so.
func answer(w http.ResponseWriter, contentType string, der []byte) {
	text := base64.StdEncoding.EncodeToString(der)
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Transfer-Encoding", "base64")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, text) // a client that went away hears nothing
}

// A refusal is an answer that is no certificate.
type refusal struct {
	status int
	text   string
	// after, where not 0, is when to ask again.
	after time.Duration
}

func (r *refusal) Error() string { return r.text }

func refusef(status int, format string, args ...any) error {
	return &refusal{status: status, text: fmt.Sprintf(format, args...)}
}

// certify reads a request, has it decided, and answers it.
func (h *Handler) certify(w http.ResponseWriter, r *http.Request, decide func(*http.Request, []byte) (ca.Issued, error)) {
	issued, err := h.decide(r, decide)
	if err == nil {
		h.certificates(w, "application/pkcs7-mime; smime-type=certs-only", []*x509.Certificate{issued.Leaf})
		return
	}
	said := asRefusal(err)
	if said.status != http.StatusAccepted {
		h.config.Log.Warn("EST request refused", "operation", r.URL.Path[len(Prefix):], "status", said.status, "error", err)
	}
	if said.after > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(said.after/time.Second)))
	}
	if said.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="join token", charset="UTF-8"`)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8") // RFC 7030 4.2.3
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(said.status)
	_, _ = io.WriteString(w, said.text+"\n")
}

func (h *Handler) decide(r *http.Request, decide func(*http.Request, []byte) (ca.Issued, error)) (ca.Issued, error) {
	csr, err := readRequest(r)
	if err != nil {
		return ca.Issued{}, err
	}
	if err := checkBinding(r.TLS, csr); err != nil {
		return ca.Issued{}, err
	}
	return decide(r, csr)
}

// enroll answers /simpleenroll (RFC 7030 4.2.1).
func (h *Handler) enroll(r *http.Request, csr []byte) (ca.Issued, error) {
	// The user name is not looked at: the token says which machine it is for.
	if _, token, ok := r.BasicAuth(); ok {
		return h.config.Desk.Enroll(r.Context(), token, csr)
	}
	if len(r.TLS.PeerCertificates) > 0 {
		// A machine that has a certificate may have another (RFC 7030 3.3.2); one that has ended is for reenrolling.
		return h.renew(r, csr, false)
	}
	if !h.config.Requests {
		return ca.Issued{}, refusef(http.StatusUnauthorized, "show a join token as the password of HTTP Basic authentication, or a machine certificate")
	}
	submission, err := h.config.Desk.Submit(r.Context(), csr, enrollment.Submitter{Address: r.RemoteAddr, Via: "est"})
	if err != nil {
		return ca.Issued{}, err
	}
	if submission.Issued == nil {
		// RFC 7030 4.2.3: the client asks again, with the same request.
		return ca.Issued{}, &refusal{
			status: http.StatusAccepted, after: enrollment.AskAgainAfter,
			text: "request " + submission.Request.Key.String()[:16] + " waits for an administrator: bailiwick enrollment approve " + submission.Request.Key.String()[:16],
		}
	}
	return *submission.Issued, nil
}

// reenroll answers /simplereenroll (RFC 7030 4.2.2).
func (h *Handler) reenroll(r *http.Request, csr []byte) (ca.Issued, error) {
	if len(r.TLS.PeerCertificates) == 0 {
		return ca.Issued{}, refusef(http.StatusUnauthorized, "show the certificate that is to be renewed in the TLS handshake")
	}
	return h.renew(r, csr, true)
}

// renew verifies the certificate that the client showed, and has it renewed.
func (h *Handler) renew(r *http.Request, csr []byte, late bool) (ca.Issued, error) {
	chain := r.TLS.PeerCertificates
	ctx, err := h.config.Verify(r.Context(), chain, late)
	if err != nil {
		return ca.Issued{}, refusef(http.StatusUnauthorized, "%v", err)
	}
	if _, err := h.config.Desk.MachineOf(chain[0]); err != nil {
		return ca.Issued{}, refusef(http.StatusForbidden, "%v", err)
	}
	return h.config.Desk.Renew(ctx, chain[0], csr)
}

// readRequest reads the body: PKCS #10 in base64 (RFC 7030 4.2.1).
func readRequest(r *http.Request) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/pkcs10" {
		return nil, refusef(http.StatusUnsupportedMediaType, "content type %.60q, wanted application/pkcs10 (RFC 7030 4.2.1)", r.Header.Get("Content-Type"))
	}
	// White space between the lines, and base64 being a third longer.
	const most = enroll.MaxRequestSize * 3 / 2
	text, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	if err != nil {
		return nil, refusef(http.StatusBadRequest, "reading the request: %v", err)
	}
	if len(text) > most {
		return nil, refusef(http.StatusRequestEntityTooLarge, "more than %d octets", most)
	}
	text = bytes.Join(bytes.Fields(text), nil)
	der, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil || len(der) == 0 {
		return nil, refusef(http.StatusBadRequest, "the body is not a certificate request in base64 (RFC 8951 3.1)")
	}
	return der, nil
}

// checkBinding holds the channel binding in a request, where it has one, against the connection: "the EST server MUST verify
// the tls-unique information" (RFC 7030 3.5). With TLS 1.3, which has no tls-unique, it is tls-exporter (RFC 9266).
func checkBinding(connection *tls.ConnectionState, csr []byte) error {
	stated, present, err := enroll.ChallengePassword(csr)
	if err != nil || !present {
		return err
	}
	binding, err := channelBinding(connection)
	if err != nil {
		return refusef(http.StatusBadRequest, "the request carries a challenge password, but this connection has no channel binding to hold it against: %v", err)
	}
	want := base64.StdEncoding.EncodeToString(binding)
	if subtle.ConstantTimeCompare([]byte(want), []byte(stated)) != 1 {
		return refusef(http.StatusBadRequest, "the challenge password of the request is not the channel binding of this connection (RFC 7030 3.5); leave it away, or set it to the base64 of tls-unique (TLS 1.2) or tls-exporter (TLS 1.3)")
	}
	return nil
}

func channelBinding(c *tls.ConnectionState) ([]byte, error) {
	if c.Version >= tls.VersionTLS13 {
		return enroll.TLSExporter(c)
	}
	if len(c.TLSUnique) == 0 {
		return nil, errors.New("TLS gave no tls-unique")
	}
	return c.TLSUnique, nil
}

// asRefusal is the one mapping from errors to HTTP statuses.
func asRefusal(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	code, hint := enrollment.Code(err)
	text := err.Error()
	if hint != "" {
		text += "; " + hint
	}
	switch code {
	case codes.InvalidArgument:
		return &refusal{status: http.StatusBadRequest, text: text}
	case codes.Unauthenticated:
		return &refusal{status: http.StatusUnauthorized, text: text}
	case codes.PermissionDenied, codes.FailedPrecondition:
		return &refusal{status: http.StatusForbidden, text: text}
	case codes.ResourceExhausted:
		return &refusal{status: http.StatusTooManyRequests, text: text, after: time.Minute}
	case codes.Unavailable, codes.DeadlineExceeded:
		return &refusal{status: http.StatusServiceUnavailable, text: text, after: 30 * time.Second}
	}
	return &refusal{status: http.StatusInternalServerError, text: "the controller failed; its log has the reason"}
}
