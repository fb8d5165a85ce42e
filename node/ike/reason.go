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

// Reason is the stable code of why something ended or was refused. Codes are part of the interface: they appear in
// status, metrics and scripts.
type Reason string

// The reasons.
const (
	ReasonNone             Reason = ""
	ReasonTimeout          Reason = "peer-silent"
	ReasonLiveness         Reason = "peer-lost"
	ReasonNoProposal       Reason = "no-proposal-chosen"
	ReasonTSUnacceptable   Reason = "ts-unacceptable"
	ReasonAuthFailed       Reason = "authentication-failed"
	ReasonUnknownIssuer    Reason = "unknown-issuer"
	ReasonCertExpired      Reason = "certificate-expired"
	ReasonCertNotYetValid  Reason = "certificate-not-yet-valid"
	ReasonCertRevoked      Reason = "certificate-revoked"
	ReasonIDMismatch       Reason = "id-mismatch"
	ReasonNoCredential     Reason = "no-credential"
	ReasonNoPolicy         Reason = "no-policy"
	ReasonInvalidKE        Reason = "invalid-key-exchange"
	ReasonSyntax           Reason = "invalid-syntax"
	ReasonIntegrity        Reason = "integrity-check-failed"
	ReasonLimit            Reason = "limit-reached"
	ReasonDeletedByPeer    Reason = "deleted-by-peer"
	ReasonDeleted          Reason = "deleted"
	ReasonRekeyed          Reason = "rekeyed"
	ReasonExpired          Reason = "expired"
	ReasonIdle             Reason = "idle"
	ReasonPolicyChanged    Reason = "policy-changed"
	ReasonRedundant        Reason = "redundant"
	ReasonInitialContact   Reason = "initial-contact"
	ReasonPeerRefused      Reason = "refused-by-peer"
	ReasonInstallFailed    Reason = "install-failed"
	ReasonInternal         Reason = "internal-error"
	ReasonShutdown         Reason = "shutdown"
	ReasonTemporaryFailure Reason = "temporary-failure"
)
