package controller

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/bailiwick-net/bailiwick/controller/authority"
	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/pki"
	lists "github.com/bailiwick-net/bailiwick/pki/revocation"
	"github.com/bailiwick-net/bailiwick/pki/slots"
	"github.com/bailiwick-net/bailiwick/pki/trust"
)

// RevocationConfig says how machines without our daemon learn what is revoked.
type RevocationConfig struct {
	// Listen is host:port of the HTTP listener for revocation lists and OCSP; empty means that there is none.
	Listen string `yaml:"listen"`
	// URL is what leads there, as certificates issued from now on say: http://HOST[:PORT][/PATH]. Empty, and they say
	// nothing.
	URL string `yaml:"url"`
	// Parts is how many parts the list is split into, a power of two up to 256; default 1.
	Parts int `yaml:"parts"`
	// ListLifetime is how long a list is good for, 10 min to 30 days; default 24 h. It is made anew after half of that,
	// and with every revocation.
	ListLifetime time.Duration `yaml:"listLifetime"`
	// ResponseLifetime is how long an OCSP response is good for, 1 min to 7 days; default 1 h.
	ResponseLifetime time.Duration `yaml:"responseLifetime"`
}

func (v *validated) checkRevocation() error {
	r := &v.Revocation
	if r.Parts == 0 {
		r.Parts = 1
	}
	var err error
	if v.pointers, err = lists.NewPointers(r.URL, r.Parts); err != nil {
		return fmt.Errorf("revocation: %w", err)
	}
	if r.Listen != "" {
		if _, _, err := net.SplitHostPort(r.Listen); err != nil {
			return fmt.Errorf("revocation.listen %q is not host:port", r.Listen)
		}
	}
	if r.URL != "" && r.Listen == "" {
		return errors.New("revocation.url is set without revocation.listen: certificates would name a place where nobody answers")
	}
	if r.Parts > 1 && r.URL == "" {
		return errors.New("revocation.parts without revocation.url: a part of a list names the place where it is")
	}
	for _, d := range []struct {
		name                  string
		value, least, longest time.Duration
	}{
		{"listLifetime", r.ListLifetime, 10 * time.Minute, 30 * 24 * time.Hour},
		{"responseLifetime", r.ResponseLifetime, time.Minute, 7 * 24 * time.Hour},
	} {
		if d.value != 0 && (d.value < d.least || d.value > d.longest) {
			return fmt.Errorf("revocation.%s %v, wanted %v to %v", d.name, d.value, d.least, d.longest)
		}
	}
	return nil
}

// openRevocations reads what is revoked.
func (c *Controller) openRevocations(ctx context.Context, trustDomain string, subject pki.Controller) error {
	v := c.config
	sign := &responders{profile: v.responder, subject: subject, now: v.Now, log: v.Log.Named("revocation"), present: map[pki.KeyID]revocation.Responder{}, failed: map[pki.KeyID]failure{}}
	var err error
	c.revoked, err = revocation.Open(ctx, revocation.Config{
		Store: c.state.store, TrustDomain: trustDomain, Now: v.Now, Log: v.Log.Named("revocation"),
		View: func() *mirror.View {
			if c.mirror == nil {
				return nil
			}
			return c.mirror.View()
		},
		Issuers: c.issuers, Roots: c.roots, OfflineRoots: c.offlineRoots,
		Trusted: func() []*x509.Certificate { return c.authority.Trust().Intermediates() }, Responder: sign.get, Pointers: v.pointers,
		ListLifetime: v.Revocation.ListLifetime, ResponseLifetime: v.Revocation.ResponseLifetime,
	})
	return err
}

// issuers are the CAs that issued, or issue, certificates: each signs the lists of its own.
func (c *Controller) issuers() []revocation.Issuer {
	out := []revocation.Issuer{c.authority.Active()}
	for _, other := range c.authority.Others() {
		out = append(out, other)
	}
	return out
}

// roots are the roots whose keys the fleet has: each signs the list of the CAs below it.
func (c *Controller) roots() []revocation.Issuer {
	var out []revocation.Issuer
	for _, root := range c.authority.Roots() {
		out = append(out, root)
	}
	return out
}

// offlineRoots are the other ones.
func (c *Controller) offlineRoots() []*x509.Certificate {
	here := c.authority.Roots()
	return slices.DeleteFunc(slices.Clone(c.authority.Trust().Roots()), func(root *x509.Certificate) bool {
		return slices.ContainsFunc(here, func(r *authority.Root) bool {
			return bytes.Equal(r.Issuing().RawSubjectPublicKeyInfo, root.RawSubjectPublicKeyInfo)
		})
	})
}

// shutRetired revokes the CAs that are retired below roots that are not.
func (c *Controller) shutRetired(ctx context.Context) error {
	var retired []revocation.Retired
	trusted := c.authority.Trust().Roots()
	for _, slot := range c.authority.State().Slots {
		if slot.Status != slots.Retired || len(slot.Issuing) == 0 {
			continue
		}
		for _, der := range [][]byte{slot.Issuing, slot.Bridge} {
			if len(der) == 0 {
				continue
			}
			issuing, err := trust.ParseCertificate(der)
			if err != nil {
				return err
			}
			if i := slices.IndexFunc(trusted, func(root *x509.Certificate) bool { return issuing.CheckSignatureFrom(root) == nil }); i >= 0 {
				retired = append(retired, revocation.Retired{Issuing: issuing, Root: trusted[i]})
			}
		}
	}
	return c.revoked.ShutOut(ctx, retired)
}

// replaceWait is how long nodes are not told of a revocation so that the controller has another certificate before, where it
// is its own that was revoked. The key of the CA may hang.
const replaceWait = time.Second

// revocationsChanged tells everybody who believes certificates.
func (c *Controller) revocationsChanged() {
	replaced := make(chan struct{})
	go func() {
		defer close(replaced)
		c.replaceServer()
	}()
	if !doneWithin(replaced, replaceWait) {
		c.log.Warn("nodes hear of revocations before the controller has another certificate, because the CA does not sign one")
	}
	c.sessions.NotifyRevoked()
}

// replaceServer replaces the controller's own certificate when it is revoked, before any node hears of that: they would
// not believe the controller any more.
func (c *Controller) replaceServer() {
	present := c.server.current.Load()
	if present == nil {
		return
	}
	chain, err := trust.ParseChain(present.Certificate)
	if err == nil {
		err = c.revoked.Set().CheckPath(chain)
	}
	if err == nil {
		return
	}
	c.log.Warn("the controller's own certificate is replaced", "reason", err)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c.server.revoked.Store(true)
	if err := c.server.issue(ctx); err != nil {
		c.log.Error("the controller's own certificate is revoked and cannot be replaced, nodes refuse it until it is; that is tried every minute", "error", err)
	}
}

// The times that a stranger has for a request over HTTP.
const (
	httpHeaderTime = 5 * time.Second
	httpTime       = 15 * time.Second
	httpIdle       = 30 * time.Second
	// maxHTTPHeader bounds the headers and the line of a request, in octets: an OCSP request may be in the line.
	maxHTTPHeader = 16 << 10
)

// listenRevocations opens the listener for lists and OCSP, if there is to be one.
func (c *Controller) listenRevocations(ctx context.Context) error {
	if c.config.Revocation.Listen == "" {
		return nil
	}
	var open net.ListenConfig
	var err error
	if c.listsL, err = open.Listen(ctx, "tcp", c.config.Revocation.Listen); err != nil {
		return fmt.Errorf("listening for requests of revocation lists: %w", err)
	}
	c.listsL = c.connections.lists.over(c.listsL)
	return nil
}

// RevocationAddress is where lists and OCSP are; nil without such a listener.
func (c *Controller) RevocationAddress() net.Addr {
	if c.listsL == nil {
		return nil
	}
	return c.listsL.Addr()
}

// serveRevocations serves lists and OCSP until ctx ends.
func (c *Controller) serveRevocations(ctx context.Context) error {
	server := &http.Server{
		Handler: c.revoked.Handler(), ReadHeaderTimeout: httpHeaderTime, ReadTimeout: httpTime, WriteTimeout: httpTime, IdleTimeout: httpIdle,
		MaxHeaderBytes: maxHTTPHeader, ErrorLog: c.log.Named("revocation").StandardLogger(nil),
	}
	stopped := context.AfterFunc(ctx, func() { server.Close() })
	defer stopped()
	c.log.Info("revocation lists and OCSP are served", "address", c.listsL.Addr())
	if err := server.Serve(c.listsL); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
