package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	ber "github.com/go-asn1-ber/asn1-ber"
	goldap "github.com/go-ldap/ldap/v3"
)

// The steps of a read, as errors name them.
const (
	duringConnect  = "connect"
	duringStartTLS = "start TLS"
	duringBind     = "bind"
	duringSearch   = "search"
	duringBuild    = "build the tree"
	duringSync     = "content synchronization"
)

// wrap makes the Error of a step; nil stays nil.
func (t target) wrap(during string, err error) error {
	if err == nil {
		return nil
	}
	return t.wrapAs(classify(during, err), during, err)
}

func (t target) wrapAs(kind error, during string, err error) error {
	var already *Error
	if errors.As(err, &already) {
		return err
	}
	return &Error{Kind: kind, URL: t.URL, Bind: t.who(), Base: t.Base.String(), During: during, Err: err}
}

// connect dials, protects the connection and binds. The connection closes when ctx ends.
func (t target) connect(ctx context.Context) (*goldap.Conn, *tap, error) {
	tlsConfig, err := t.tlsConfig()
	if err != nil {
		return nil, nil, t.wrapAs(ErrConfig, duringConnect, err)
	}
	step, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	network := "tcp"
	if t.scheme == "ldapi" {
		network = "unix"
	}
	dial := t.dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	raw, err := dial(step, network, t.address)
	if err != nil {
		return nil, nil, t.wrap(duringConnect, err)
	}
	secured, during, err := t.protect(step, raw, tlsConfig)
	if err != nil {
		raw.Close()
		return nil, nil, t.wrap(during, err)
	}
	below := newTap(secured)
	conn := goldap.NewConn(below, secured != raw)
	conn.SetTimeout(t.Timeout)
	conn.Start()
	if err := t.authenticate(conn); err != nil {
		conn.Close()
		return nil, nil, t.wrap(duringBind, err)
	}
	return conn, below, nil
}

// protect runs the TLS handshake where there is one. It is done here and not in the LDAP client because only so does
// the verification error keep its type.
func (t target) protect(ctx context.Context, raw net.Conn, config *tls.Config) (net.Conn, string, error) {
	switch {
	case t.scheme == "ldaps":
	case t.StartTLS:
		if err := requestStartTLS(ctx, raw); err != nil {
			return nil, duringStartTLS, err
		}
	default:
		return raw, "", nil
	}
	c := tls.Client(raw, config)
	if err := c.HandshakeContext(ctx); err != nil {
		if t.StartTLS {
			return nil, duringStartTLS, err
		}
		return nil, duringConnect, err
	}
	return c, "", nil
}

// maxStartTLSAnswer is how many octets an answer to StartTLS may have.
const maxStartTLSAnswer = 64 << 10

// requestStartTLS sends the extended request of RFC 4511 4.14.1 and reads its answer, and not a byte more: what follows
// it belongs to TLS.
func requestStartTLS(ctx context.Context, raw net.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := raw.SetDeadline(deadline); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() {
		_ = raw.SetDeadline(time.Unix(1, 0)) // fails only on a closed connection, which ends the reading too
	})
	defer stop()
	message := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "LDAPMessage")
	message.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, 1, "messageID"))
	request := ber.Encode(ber.ClassApplication, ber.TypeConstructed, goldap.ApplicationExtendedRequest, nil, "ExtendedRequest")
	request.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "1.3.6.1.4.1.1466.20037", "requestName"))
	message.AppendChild(request)
	if _, err := raw.Write(message.Bytes()); err != nil {
		return err
	}
	// Nobody has shown yet who they are: what they send is not taken in at any length.
	answer, err := ber.ReadPacket(io.LimitReader(raw, maxStartTLSAnswer))
	if err != nil {
		return err
	}
	if err := goldap.GetLDAPError(answer); err != nil {
		return fmt.Errorf("the server refuses StartTLS: %w", err)
	}
	return raw.SetDeadline(time.Time{})
}

func (t target) tlsConfig() (*tls.Config, error) {
	name := t.ServerName
	if name == "" {
		name = t.host
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("CA file %s holds no certificate in PEM", t.CAFile)
		}
	}
	if t.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(t.ClientCert, t.ClientKey)
		if err != nil {
			return nil, fmt.Errorf("load client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func (t target) authenticate(conn *goldap.Conn) error {
	switch b := t.Bind.(type) {
	case Simple:
		password, err := readSecret(b.PasswordFile)
		if err != nil {
			return t.wrapAs(ErrCredentials, duringBind, err)
		}
		defer password.wipe()
		return conn.Bind(b.DN, string(password.text))
	case External:
		return conn.ExternalBind()
	}
	return nil
}
