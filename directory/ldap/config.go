package ldap

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/directory"
)

// A Bind says who we are to the server: Anonymous, Simple or External.
type Bind interface{ bind() }

// Anonymous does not bind.
type Anonymous struct{}

// Simple binds with a DN and a password that is read from a file at every connection, so that it can be rotated.
type Simple struct {
	DN           string // some servers take other names than DNs: it is sent as it stands
	PasswordFile string
}

// External is SASL EXTERNAL (RFC 4422 appendix A): the certificate of the TLS connection, or the user of the process
// over ldapi.
type External struct{}

func (Anonymous) bind() {}
func (Simple) bind()    {}
func (External) bind()  {}

// Config describes one directory. Zero values are defaults where one is named.
type Config struct {
	// URL is ldaps://host[:636], ldap://host[:389] or ldapi://%2Fpath%2Fto%2Fsocket.
	URL string
	// Base is the top of the tree. Required.
	Base directory.DN
	// Schema defaults to directory.OpenLDAP.
	Schema *directory.Schema
	// Bind defaults to Anonymous.
	Bind Bind

	// StartTLS protects an ldap:// connection (RFC 4511 4.14).
	StartTLS bool
	// CAFile holds the certificates that the server's chain has to end at, in PEM; "" means those of the system.
	CAFile string
	// ServerName is the name that the server's certificate has to carry; "" means the host of the URL.
	ServerName string
	// ClientCert and ClientKey, in PEM, are shown to a server that asks.
	ClientCert, ClientKey string
	// AllowClear permits ldap:// without StartTLS on a loopback address, and a simple bind over ldapi. Over a network
	// clear text is never permitted.
	AllowClear bool

	// SkipReferences leaves aside search references to other servers. With Active Directory they stand for other naming
	// contexts at the domain's root and are always skipped; elsewhere one means that the tree is incomplete here.
	SkipReferences bool

	// PollOnly does without content synchronization (RFC 4533) although the server may offer it.
	PollOnly bool
	// Interval between two polls, default 30 s, at least 100 ms; a tenth of it either way is chance.
	Interval time.Duration
	// FullInterval is after how long the tree is read again although the server says that nothing has changed; default
	// 10 min.
	FullInterval time.Duration
	// DoubtTime is for how long content that looks older than what was read before, or emptied, has to stay like that until it
	// is believed; default 5 min, negative for not at all.
	DoubtTime time.Duration
	// Timeout for connecting, for each handshake and for each answer; default 30 s.
	Timeout time.Duration
	// PageSize of paged results (RFC 2696), default and most 1000.
	PageSize uint32
}

// target is a validated Config.
type target struct {
	Config
	scheme  string
	address string // host:port, or the socket's path
	host    string
	// dial makes connections in another way than net.Dialer does; nil but in tests.
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Validate returns an error that wraps ErrConfig when Open would refuse c.
func (c Config) Validate() error {
	_, err := c.target()
	return err
}

func (c Config) target() (target, error) {
	t := target{Config: c}
	fail := func(format string, args ...any) (target, error) {
		return target{}, fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
	if t.Schema == nil {
		s := directory.OpenLDAP()
		t.Schema = &s
	}
	if t.Bind == nil {
		t.Bind = Anonymous{}
	}
	t.SkipReferences = t.SkipReferences || t.Schema.Identity == directory.ObjectGUID
	for d, normal := range map[*time.Duration]time.Duration{&t.Interval: 30 * time.Second, &t.FullInterval: 10 * time.Minute, &t.DoubtTime: 5 * time.Minute, &t.Timeout: 30 * time.Second} {
		if *d == 0 {
			*d = normal
		}
	}
	if t.PageSize == 0 {
		t.PageSize = 1000
	}
	switch {
	case t.Base.IsZero():
		return fail("a base DN is needed, such as dc=bank,dc=example")
	case t.Interval < 100*time.Millisecond || t.FullInterval < 0 || t.Timeout < 0:
		return fail("interval %v, full interval %v, timeout %v: the interval is at least 100ms, the others are positive", t.Interval, t.FullInterval, t.Timeout)
	case t.PageSize > 1000:
		return fail("page size %d is above 1000", t.PageSize)
	case t.Schema.DeriveIdentity:
		return fail("identities cannot be derived for a server's entries: a missing UUID means that it may not be read")
	case (t.ClientCert == "") != (t.ClientKey == ""):
		return fail("a client certificate needs its key and the other way round")
	}
	if err := t.parseURL(); err != nil {
		return fail("%v", err)
	}
	secure := t.scheme == "ldaps" || t.StartTLS
	switch b := t.Bind.(type) {
	case Simple:
		if b.DN == "" || b.PasswordFile == "" {
			return fail("a simple bind needs a DN and a password file")
		}
		if t.scheme == "ldapi" && !t.AllowClear {
			return fail("a simple bind over ldapi hands the password to whoever owns the socket: use SASL EXTERNAL, or allow clear text explicitly")
		}
	case External:
		if secure && t.ClientCert == "" {
			return fail("SASL EXTERNAL over TLS needs a client certificate")
		}
		if !secure && t.scheme != "ldapi" {
			return fail("SASL EXTERNAL needs ldapi or TLS with a client certificate")
		}
	}
	if t.scheme == "ldap" && !t.StartTLS && (!t.AllowClear || !loopback(t.host)) {
		return fail("%s would be read, and any password sent, in clear text: use ldaps:// or StartTLS (clear text can be allowed on loopback addresses only)", t.URL)
	}
	return t, nil
}

func (t *target) parseURL() error {
	// The socket's path stands percent-encoded in the host, which net/url refuses to hold.
	if path, ok := strings.CutPrefix(t.URL, "ldapi://"); ok {
		path, err := url.PathUnescape(strings.TrimSuffix(path, "/"))
		if err != nil || !strings.HasPrefix(path, "/") {
			return fmt.Errorf("URL %q: ldapi needs the percent-encoded absolute path of a socket, as in ldapi://%%2Frun%%2Fslapd%%2Fldapi", t.URL)
		}
		if t.StartTLS {
			return fmt.Errorf("URL %q: StartTLS is for ldap://", t.URL)
		}
		t.scheme, t.address = "ldapi", path
		return nil
	}
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		// The cause would repeat the URL, whatever stands in it.
		return fmt.Errorf("the URL cannot be parsed")
	case u.User != nil:
		return fmt.Errorf("URL %q: credentials do not belong in a URL", u.Redacted())
	case u.Scheme != "ldap" && u.Scheme != "ldaps":
		return fmt.Errorf("URL %q: the scheme is ldaps, ldap or ldapi", t.URL)
	case u.Hostname() == "":
		return fmt.Errorf("URL %q: a host is needed", t.URL)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("URL %q: it ends after the port; base DN and filter are configured beside it", t.URL)
	case u.Scheme == "ldaps" && t.StartTLS:
		return fmt.Errorf("URL %q: StartTLS is for ldap://", t.URL)
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
	}
	t.scheme, t.host = u.Scheme, u.Hostname()
	t.address = joinHostPort(t.host, port)
	return nil
}

func joinHostPort(host, port string) string {
	if strings.Contains(host, ":") {
		return "[" + host + "]:" + port
	}
	return host + ":" + port
}

// loopback takes addresses only: what a name means is up to a resolver.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// who names the bind identity for people.
func (t target) who() string {
	switch b := t.Bind.(type) {
	case Simple:
		return fmt.Sprintf("%q", b.DN)
	case External:
		return "SASL EXTERNAL"
	}
	return "anonymous"
}
