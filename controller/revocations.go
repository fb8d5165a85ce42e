package controller

import (
	"context"

	"github.com/bailiwick-net/bailiwick/controller/mirror"
	"github.com/bailiwick-net/bailiwick/controller/revocation"
	"github.com/bailiwick-net/bailiwick/pki/ca"
)

// openRevocations reads what is revoked.
func (c *Controller) openRevocations(ctx context.Context, authority *ca.CA, trustDomain string) error {
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
		Issuers: func() []revocation.Issuer { return []revocation.Issuer{authority} },
	})
	return err
}

// revocationsChanged tells everybody who believes certificates.
func (c *Controller) revocationsChanged() {
	c.sessions.NotifyRevoked()
}
