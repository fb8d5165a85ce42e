package ikev2

import (
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
)

var timeZero time.Time

// reasonOf translates an error notify of the peer.
func reasonOf(n wire.NotifyType) ike.Reason {
	switch n {
	case wire.NotifyNoProposalChosen:
		return ike.ReasonNoProposal
	case wire.NotifyTSUnacceptable, wire.NotifyInvalidSelectors, wire.NotifySinglePairRequired:
		return ike.ReasonTSUnacceptable
	case wire.NotifyAuthenticationFailed:
		return ike.ReasonAuthRefused
	case wire.NotifyInvalidKEPayload:
		return ike.ReasonInvalidKE
	case wire.NotifyInvalidSyntax:
		return ike.ReasonPeerSyntax
	case wire.NotifyUnsupportedCriticalPayload, wire.NotifyInvalidMajorVersion:
		return ike.ReasonPeerSyntax
	case wire.NotifyNoAdditionalSAs:
		return ike.ReasonPeerLimit
	case wire.NotifyTemporaryFailure:
		return ike.ReasonTemporaryFailure
	}
	return ike.ReasonPeerRefused
}
