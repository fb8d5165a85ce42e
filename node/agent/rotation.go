package agent

import (
	"bytes"

	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

// acknowledgeTrust tells the controller which trust bundle this node holds, and why it is not the one that came.
func (a *Agent) acknowledgeTrust(failure error) {
	digest := a.config.Identity.Credentials().Trust.Digest()
	ack := &nodev1.TrustAcknowledgement{Digest: digest[:]}
	if failure != nil {
		ack.Error = reason(failure)
	}
	a.config.Session.Send(&nodev1.ConnectRequest{Message: &nodev1.ConnectRequest_TrustAcknowledgement{TrustAcknowledgement: ack}})
}

// followIssuer renews a certificate that is by another CA than the one that issues now.
func (a *Agent) followIssuer(s *nodev1.Settings) {
	credentials := a.config.Identity.Credentials()
	if len(s.GetIssuer()) == 0 || len(credentials.Chain) == 0 || bytes.Equal(s.GetIssuer(), credentials.Leaf().AuthorityKeyId) {
		return
	}
	a.config.Logger.Info("another CA issues now, the certificate of this machine is renewed", "within", s.GetRenewWithin().AsDuration())
	a.config.Identity.RenewWithin(s.GetRenewWithin().AsDuration())
}
