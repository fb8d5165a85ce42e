package ike

// Fault names the side that a failure is blamed on.
type Fault uint8

// The sides.
const (
	FaultNone Fault = iota
	FaultLocal
	FaultPeer
	FaultNetwork
)

// String names the side.
func (f Fault) String() string {
	return [...]string{"none", "local", "peer", "network"}[min(int(f), 3)]
}

// Reason is the stable code of why something ended, was refused or was dropped. Codes are part of the interface: they
// appear in status, traces, metrics and scripts. ReasonTable explains each.
type Reason string

// The reasons.
const (
	ReasonNone Reason = ""

	// The peer cannot be reached.
	ReasonTimeout  Reason = "peer-silent"
	ReasonLiveness Reason = "peer-lost"
	ReasonHalfOpen Reason = "half-open-timeout"

	// The two policies do not fit.
	ReasonNoProposal     Reason = "no-proposal-chosen"
	ReasonNotOffered     Reason = "not-offered"
	ReasonTSUnacceptable Reason = "ts-unacceptable"
	ReasonModeDeclined   Reason = "mode-declined"
	ReasonInvalidKE      Reason = "invalid-key-exchange"
	ReasonNoPolicy       Reason = "no-policy"
	ReasonNoOffers       Reason = "no-offers"
	ReasonAuthNotAllowed Reason = "authentication-not-allowed"
	ReasonPeerRefused    Reason = "refused-by-peer"

	// Authentication.
	ReasonAuthFailed       Reason = "authentication-failed"
	ReasonAuthRefused      Reason = "authentication-refused"
	ReasonUnknownIssuer    Reason = "unknown-issuer"
	ReasonIssuerNotAllowed Reason = "issuer-not-allowed"
	ReasonPeerNotInGroup   Reason = "peer-not-in-group"
	ReasonCertExpired      Reason = "certificate-expired"
	ReasonCertNotYetValid  Reason = "certificate-not-yet-valid"
	ReasonCertRevoked      Reason = "certificate-revoked"
	ReasonCertInvalid      Reason = "certificate-invalid"
	ReasonIDMismatch       Reason = "id-mismatch"
	ReasonNoCredential     Reason = "no-credential"
	ReasonSignFailed       Reason = "signing-failed"
	ReasonPeerDenied       Reason = "peer-not-admitted"
	ReasonStandingUnknown  Reason = "revocation-unknown"
	ReasonNoPPK            Reason = "no-postquantum-key"
	ReasonReauthenticate   Reason = "authentication-expired"

	// Messages that cannot be used.
	ReasonSyntax      Reason = "invalid-syntax"
	ReasonPeerSyntax  Reason = "peer-reports-invalid-syntax"
	ReasonMalformed   Reason = "malformed-message"
	ReasonVersion     Reason = "unsupported-version"
	ReasonUnknownSPI  Reason = "unknown-spi"
	ReasonReflected   Reason = "reflected-message"
	ReasonUnprotected Reason = "unprotected-message"
	ReasonIntegrity   Reason = "integrity-check-failed"
	ReasonMessageID   Reason = "unexpected-message-id"
	ReasonUnexpected  Reason = "unexpected-message"
	ReasonBusy        Reason = "busy"

	// Limits.
	ReasonHalfOpenLimit    Reason = "half-open-limit"
	ReasonFlowLimit        Reason = "flow-limit"
	ReasonRateLimit        Reason = "rate-limit"
	ReasonBufferLimit      Reason = "buffer-limit"
	ReasonChildLimit       Reason = "child-sa-limit"
	ReasonPeerLimit        Reason = "no-additional-sas"
	ReasonMessageIDsUsed   Reason = "message-ids-used-up"
	ReasonTemporaryFailure Reason = "temporary-failure"

	// Ends in order.
	ReasonDeletedByPeer  Reason = "deleted-by-peer"
	ReasonDeleted        Reason = "deleted"
	ReasonRekeyed        Reason = "rekeyed"
	ReasonExpired        Reason = "expired"
	ReasonIdle           Reason = "idle"
	ReasonPolicyChanged  Reason = "policy-changed"
	ReasonRedundant      Reason = "redundant"
	ReasonInitialContact Reason = "initial-contact"
	ReasonShutdown       Reason = "shutdown"

	// This machine.
	ReasonInstallFailed Reason = "install-failed"
	ReasonJobTimeout    Reason = "job-timeout"
	ReasonInternal      Reason = "internal-error"
)
