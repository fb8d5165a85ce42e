package ldap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	goldap "github.com/go-ldap/ldap/v3"

	"github.com/bailiwick-net/bailiwick/directory"
)

// Outcome is what a test of a configuration came to.
type Outcome uint8

// The outcomes, the worst last.
const (
	OK      Outcome = iota + 1
	Note            // worth knowing
	Skipped         // not tested, because something before it failed
	Warning         // it works, but less well than it should, or not for everything
	Failure         // the directory cannot be used like that
)

func (o Outcome) String() string {
	switch o {
	case OK:
		return "ok"
	case Note:
		return "note"
	case Skipped:
		return "skipped"
	case Warning:
		return "warning"
	case Failure:
		return "failed"
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// A Finding is one thing that was tested.
type Finding struct {
	// Subject is a word or two: "certificate", "limits".
	Subject string
	Outcome Outcome
	Detail  string
	// Hint says what to do, "" when there is nothing to do.
	Hint string
}

// Worst is the outcome of a check: OK, Warning or Failure.
func Worst(findings []Finding) Outcome {
	worst := OK
	for _, f := range findings {
		if f.Outcome >= Warning {
			worst = max(worst, f.Outcome)
		}
	}
	return worst
}

// The steps of a check, in their order; what comes after a step that fails is skipped.
const (
	subjectConfig      = "configuration"
	subjectConnection  = "connection"
	subjectCertificate = "certificate"
	subjectBind        = "bind"
	subjectServer      = "server"
	subjectBase        = "base"
	subjectClock       = "clock"
	subjectPaging      = "paging"
	subjectRead        = "read"
	subjectMachines    = "machines"
	subjectGroups      = "groups"
	subjectIdentity    = "identity"
	subjectAccounts    = "account state"
	subjectMembers     = "membership"
	subjectTree        = "tree"
	subjectChanges     = "changes"
)

// expiryNotice is how long before its end a certificate is worth a warning.
const expiryNotice = 30 * 24 * time.Hour

// maxClockSkew is what certificates and Kerberos bear.
const maxClockSkew = 5 * time.Minute

// checker carries a check. A step appends findings and returns false when nothing after it makes sense.
type checker struct {
	target
	now      func() time.Time
	findings []Finding
	conn     *goldap.Conn
	session  *session
	family   family
	root     *goldap.Entry // the root DSE
	snapshot *directory.Snapshot
	who      string // as the server knows us, else as we bind
}

func (c *checker) add(subject string, o Outcome, hint, detail string, args ...any) {
	c.findings = append(c.findings, Finding{subject, o, fmt.Sprintf(detail, args...), hint})
}

// Check tests a configuration against the live server and tells what works, what does not and how to mend it. It reads the
// whole tree once and changes nothing. now is the clock that certificates and the server's time are held against.
func Check(ctx context.Context, config Config, now func() time.Time) []Finding {
	findings, _ := CheckTree(ctx, config, now)
	return findings
}

// CheckTree is Check, and returns the tree that was read; nil when there is none.
func CheckTree(ctx context.Context, config Config, now func() time.Time) ([]Finding, *directory.Snapshot) {
	t, err := config.target()
	if err != nil {
		return []Finding{{subjectConfig, Failure, err.Error(), hints[ErrConfig]}}, nil
	}
	c := &checker{target: t, now: now, who: t.who()}
	c.run(ctx)
	return c.findings, c.snapshot
}

func (c *checker) run(ctx context.Context) {
	defer func() {
		if c.conn != nil {
			c.conn.Close()
		}
	}()
	steps := []struct {
		subject string
		run     func(context.Context) bool
	}{
		{subjectConnection, c.connection}, {subjectBind, c.bind}, {subjectServer, c.server}, {subjectBase, c.base}, {subjectRead, c.content},
	}
	for i, step := range steps {
		if step.run(ctx) {
			continue
		}
		for _, left := range steps[i+1:] {
			c.add(left.subject, Skipped, "", "not tested")
		}
		return
	}
}

// connection dials and protects. It ends with the client that all that follows uses.
func (c *checker) connection(ctx context.Context) bool {
	config, err := c.tlsConfig()
	if err != nil {
		c.add(subjectCertificate, Failure, "check caFile, clientCert and clientKey", "%v", err)
		return false
	}
	step, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	raw, err := c.dial(step)
	if err != nil {
		c.add(subjectConnection, Failure, "check the URL, the network and firewalls between, and that the server runs", "%s: %v", c.address, err)
		return false
	}
	secured, during, err := c.protect(step, raw, config)
	if err != nil {
		raw.Close()
		return c.unprotected(ctx, during, err, config)
	}
	c.add(subjectConnection, OK, "", "%s answers", c.address)
	below := newTap(secured)
	c.conn = goldap.NewConn(below, secured != raw)
	c.conn.SetTimeout(c.Timeout)
	c.conn.Start()
	c.session = &session{c.target, c.conn, below}
	if tlsConn, ok := secured.(*tls.Conn); ok {
		c.certificate(tlsConn.ConnectionState())
	} else if c.scheme == "ldap" {
		c.add(subjectCertificate, Note, "", "none: the connection stays on this machine and is in clear, as allowClear says")
	}
	return true
}

func (c *checker) dial(ctx context.Context) (net.Conn, error) {
	network := "tcp"
	if c.scheme == "ldapi" {
		network = "unix"
	}
	var d net.Dialer
	return d.DialContext(ctx, network, c.address)
}

// certificate tells of one that was accepted.
func (c *checker) certificate(state tls.ConnectionState) {
	leaf := state.PeerCertificates[0]
	left := leaf.NotAfter.Sub(c.now())
	detail := fmt.Sprintf("%s, for %s, of %q, ends %s", tls.VersionName(state.Version), certificateNames(leaf), leaf.Issuer, leaf.NotAfter.UTC().Format(time.RFC3339))
	if left < expiryNotice {
		c.add(subjectCertificate, Warning, "renew the server's certificate before it ends: from then on nothing can be read", "%s, in %d days", detail, int(left.Hours()/24))
		return
	}
	c.add(subjectCertificate, OK, "", "%s", detail)
}

func certificateNames(leaf *x509.Certificate) string {
	names := slices.Clone(leaf.DNSNames)
	for _, a := range leaf.IPAddresses {
		names = append(names, a.String())
	}
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, ", ")
}

// unprotected explains why there is no TLS. The certificate is looked at over a connection of its own, over which nothing
// is sent.
func (c *checker) unprotected(ctx context.Context, during string, err error, config *tls.Config) bool {
	kind := classify(during, err)
	if !errors.Is(kind, ErrUntrusted) {
		hint := "check that the server speaks TLS there: ldaps:// has a port of its own, usually 636, and StartTLS is for ldap://"
		if errors.Is(kind, ErrTimeout) {
			hint = hints[ErrTimeout]
		}
		c.add(subjectCertificate, Failure, hint, "%s: %v", during, err)
		return false
	}
	leaf := c.shownCertificate(ctx, config)
	if leaf == nil {
		c.add(subjectCertificate, Failure, hints[ErrUntrusted], "%v", err)
		return false
	}
	about := fmt.Sprintf("it is for %s, of %q, valid from %s to %s", certificateNames(leaf), leaf.Issuer,
		leaf.NotBefore.UTC().Format(time.RFC3339), leaf.NotAfter.UTC().Format(time.RFC3339))
	var hostname x509.HostnameError
	var authority x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired && c.now().Before(leaf.NotBefore):
		c.add(subjectCertificate, Failure, "check the clocks of the server and of this machine", "the certificate is not valid yet: %s", about)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		c.add(subjectCertificate, Failure, "renew the server's certificate; if it is newer than it looks, check the clock of this machine", "the certificate, or one that it comes from, has expired: %s", about)
	case errors.As(err, &hostname):
		c.add(subjectCertificate, Failure, fmt.Sprintf("use one of its names in the URL, or set serverName to one: %s", certificateNames(leaf)),
			"the certificate is not for %q: %s", config.ServerName, about)
	case errors.As(err, &authority):
		c.add(subjectCertificate, Failure, "set caFile to the certificate of the authority that issued it; ask whoever runs the server for that file", "no authority that is trusted vouches for the certificate: %s", about)
	default:
		c.add(subjectCertificate, Failure, hints[ErrUntrusted], "%v; %s", err, about)
	}
	return false
}

// shownCertificate fetches the server's certificate without believing it.
func (c *checker) shownCertificate(ctx context.Context, config *tls.Config) *x509.Certificate {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	raw, err := c.dial(ctx)
	if err != nil {
		return nil
	}
	defer raw.Close()
	var leaf *x509.Certificate
	look := config.Clone()
	look.Certificates = nil // who we are is not for a stranger
	look.InsecureSkipVerify = true
	look.VerifyConnection = func(state tls.ConnectionState) error {
		leaf = state.PeerCertificates[0]
		return errors.New("the certificate was only looked at")
	}
	if secured, _, err := c.protect(ctx, raw, look); err == nil {
		secured.Close()
	}
	return leaf
}

func (c *checker) bind(context.Context) bool {
	if b, ok := c.Bind.(Simple); ok {
		if info, err := os.Stat(b.PasswordFile); err == nil && info.Mode().Perm()&0o044 != 0 {
			c.add(subjectBind, Warning, fmt.Sprintf("chmod 600 %s", b.PasswordFile), "others can read the password file %s", b.PasswordFile)
		}
	}
	if err := c.authenticate(c.conn); err != nil {
		hint := "check bindDN and the password in the file; the DN is the whole name of an entry, as cn=bailiwick,dc=bank,dc=example"
		var coded *goldap.Error
		switch {
		case errors.As(err, &coded) && coded.ResultCode == goldap.LDAPResultConfidentialityRequired, errors.As(err, &coded) && coded.ResultCode == goldap.LDAPResultStrongAuthRequired:
			hint = "the server wants TLS before a password: use ldaps:// or startTLS"
		case errors.As(err, &coded) && coded.ResultCode == goldap.LDAPResultAuthMethodNotSupported:
			hint = "the server does not offer this way of binding: use bindDN with passwordFile"
		case !errors.As(err, &coded):
			hint = "check the password file"
		}
		if _, ok := c.Bind.(External); ok {
			hint = "map the client's certificate, or the user over ldapi, to an entry of the directory: authz-regexp in OpenLDAP, certmap.conf in 389 Directory Server"
		}
		c.add(subjectBind, Failure, hint, "as %s: %v", c.who, err)
		return false
	}
	if _, ok := c.Bind.(Anonymous); ok {
		c.add(subjectBind, Note, "", "none: what anybody may see is read; most servers show more to an account of one's own (bindDN, passwordFile)")
		return true
	}
	// RFC 4532; a server that does not know it says nothing wrong.
	if r, err := c.conn.WhoAmI(nil); err == nil && r.AuthzID != "" {
		if dn, ok := strings.CutPrefix(r.AuthzID, "dn:"); ok && dn != "" {
			c.who = fmt.Sprintf("%q", dn)
		}
	} else if err == nil {
		c.add(subjectBind, Warning, "the bind succeeded, but counts for nobody: check how the server maps it", "the server takes us for anonymous")
		return true
	}
	c.add(subjectBind, OK, "", "as %s", c.who)
	return true
}

// server looks at the root DSE (RFC 4512 5.1).
func (c *checker) server(context.Context) bool {
	result, err := c.session.search("", goldap.ScopeBaseObject, "(objectClass=*)", []string{"*", "+"})
	if err != nil || len(result.Entries) != 1 {
		c.add(subjectServer, Failure, "allow the bind identity to read the root DSE, which servers do by default", "the server does not describe itself (root DSE): %v", errors.Join(err))
		return false
	}
	c.root = result.Entries[0]
	c.family = familyOf(c.root)
	detail := c.family.String()
	for _, a := range []string{"vendorName", "vendorVersion"} {
		if v := c.root.GetEqualFoldAttributeValue(a); v != "" {
			detail += ", " + v
		}
	}
	if want, ok := c.family.identity(); ok && want != c.Schema.Identity {
		c.add(subjectServer, Warning, "set schema to "+c.family.preset()+", or mapping.identity, unless the server was extended for it",
			"%s, but the schema in use knows entries by %s", detail, c.Schema.IdentityAttribute())
	} else {
		c.add(subjectServer, OK, "", "%s", detail)
	}
	c.clock()
	return true
}

func (c *checker) clock() {
	text := c.root.GetEqualFoldAttributeValue("currentTime")
	at, err := time.Parse("20060102150405.0Z", text)
	if text == "" || err != nil {
		return // most servers do not tell
	}
	skew := c.now().Sub(at)
	if time.Duration(math.Abs(float64(skew))) > maxClockSkew {
		c.add(subjectClock, Warning, "set both clocks by NTP: certificates and Kerberos need it", "the server's clock differs by %v from this machine's", skew.Round(time.Second))
		return
	}
	c.add(subjectClock, OK, "", "within %v of the server's", time.Duration(math.Abs(float64(skew))).Round(time.Second)+time.Second)
}

func (c *checker) base(context.Context) bool {
	contexts := c.root.GetEqualFoldAttributeValues("namingContexts")
	result, err := c.session.search(c.Base.String(), goldap.ScopeBaseObject, "(objectClass=*)", c.Schema.Attributes())
	switch {
	case errors.Is(err, ErrNoBase), err == nil && len(result.Entries) == 0:
		hint := "correct base, or allow " + c.who + " to see it"
		if len(contexts) > 0 {
			hint += "; the server holds " + strings.Join(contexts, ", ")
		}
		var coded *goldap.Error
		if errors.As(err, &coded) && coded.MatchedDN != "" {
			hint += "; of the name, " + coded.MatchedDN + " exists"
		}
		c.add(subjectBase, Failure, hint, "there is no entry %q, or it is hidden from us", c.Base)
		return false
	case err != nil:
		c.add(subjectBase, Failure, c.hintFor(err), "%q: %v", c.Base, cause(err))
		return false
	}
	classes := result.Entries[0].GetEqualFoldAttributeValues("objectClass")
	if len(classes) == 0 {
		c.add(subjectBase, Failure, c.grant("objectClass"), "%q is there, but its objectClass is hidden from us: nothing can be told apart", c.Base)
		return false
	}
	isContainer := slices.ContainsFunc(classes, func(have string) bool {
		return slices.ContainsFunc(c.Schema.ContainerClasses, func(want string) bool { return strings.EqualFold(have, want) })
	})
	if !isContainer {
		c.add(subjectBase, Failure, "add one of its classes to mapping.containerClasses", "%q has the object classes %s, none of which is a container's (%s)",
			c.Base, strings.Join(classes, ", "), strings.Join(c.Schema.ContainerClasses, ", "))
		return false
	}
	c.add(subjectBase, OK, "", "%q is there", c.Base)
	return true
}

// cause is what the server said, without what this package adds for logs.
func cause(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e.Err
	}
	return err
}
