package controller

import (
	"context"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
)

// openRevocations reads what is revoked.
func (c *Controller) openRevocations(ctx context.Context, trustDomain string) error {
	v := c.config
	var err error
	c.revoked, err = revocation.Open(ctx, revocation.Config{
		Store: c.state.store, TrustDomain: trustDomain, Now: v.Now, Log: v.Log.Named("revocation"),
		View: func() *mirror.View {
			if c.mirror == nil {
				return nil
			}
			return c.mirror.View()
		},
		Issuers: c.issuers,
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

// revocationsChanged tells everybody who believes certificates.
func (c *Controller) revocationsChanged() {
	c.sessions.NotifyRevoked()
}
