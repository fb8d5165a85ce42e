package trust

import (
	"crypto/tls"
	"errors"
	"time"

	"github.com/bailiwick-net/bailiwick/pki"
)

// TLSVerifyConnection makes the function for tls.Config.VerifyConnection that holds the peer's certificate against the
// bundle and the options that current returns: read anew for each connection, so that a change of either counts at
// once. A current that fails, or gives no usage, refuses the connection.
//
// How to use it:
//
//   - A server sets ClientAuth: tls.RequireAnyClientCert and this function, and a client InsecureSkipVerify: true and
//     this function, so that one verifier decides and its reasons reach the log.
//   - A client sets Options.HostName to the name or address that it called. It is not taken from the ClientHello,
//     because TLS leaves the server name empty for addresses.
//   - VerifyConnection runs on resumed connections as well, VerifyPeerCertificate does not. A server still sets
//     SessionTicketsDisabled: true: a resumed session shows the certificate of the first handshake, and the peer does
//     not prove again that it has the key.
//   - In TLS 1.3 a server calls it before it has checked the client's proof of possession. It decides, and has no
//     effects: take the identity from the connection after the handshake, never from inside.
//   - A server that also serves machines without a certificate (joining) uses tls.RequestClientCert and calls this
//     function only where the peer sent one; here no certificate is a refusal.
func TLSVerifyConnection(current func() (Bundle, Options, error), now func() time.Time) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		bundle, options, err := current()
		if err != nil {
			return err
		}
		_, err = bundle.Verify(now(), cs.PeerCertificates, options)
		return err
	}
}

// TLSVerifyPinned makes the function for tls.Config.VerifyConnection of a machine that joins with a pin and has no
// bundle yet. The config sets InsecureSkipVerify: true as with TLSVerifyConnection.
func TLSVerifyPinned(pin pki.KeyID, now func() time.Time, o Options) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		_, _, err := PinnedVerify(now(), cs.PeerCertificates, pin, o)
		return err
	}
}

// IsTimeProblem reports whether err refuses a certificate for its validity: the cure is a clock or a renewal.
func IsTimeProblem(err error) bool {
	var e *Error
	return errors.As(err, &e) && (e.Reason == ReasonExpired || e.Reason == ReasonNotYetValid)
}
