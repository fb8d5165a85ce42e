// Package impair names mistakes that tests switch on in our own IKE engine: bugs, which the simulation has to find, and
// violations of the protocol, which the other side has to answer as the RFCs say.
//
// Its invariant: without the build tag ikebug every fault is off and cannot be switched on; On is then a constant, and the
// compiler leaves out what stands behind it. It is for tests only: what a fault does stands where the code is right.
package impair

// Fault is the name of a mistake.
type Fault string

// The bugs. Each must be found by the simulation (node/ike/ikesim).
const (
	WrongTieBreak      Fault = "ikebug-wrong-tie-break"      // the highest nonce decides, on one side
	ForgetDeleting     Fault = "ikebug-forget-deleting"      // a Child SA is not marked as being deleted
	MessageIDStuck     Fault = "ikebug-message-id-stuck"     // the ID of the next request is not stepped
	AnswerDiffers      Fault = "ikebug-answer-differs"       // a repeated response has other octets
	OutboundFirst      Fault = "ikebug-outbound-first"       // a responder sends before the initiator can receive
	KeysReused         Fault = "ikebug-keys-reused"          // a rekey of a Child SA keeps the keys
	UnofferedGroup     Fault = "ikebug-unoffered-group"      // INVALID_KE_PAYLOAD is followed to any group
	SurvivorEmpty      Fault = "ikebug-survivor-empty"       // a new IKE SA does not inherit the Child SAs
	FallbackAnyway     Fault = "ikebug-fallback-anyway"      // silence grants clear traffic whatever the rule says
	HalfOpenUnlimited  Fault = "ikebug-half-open-unlimited"  // no bound, and no cookies
	LateResponse       Fault = "ikebug-late-response"        // a response makes what the peer has deleted
	WeakerProposal     Fault = "ikebug-weaker-proposal"      // the last offer that fits is chosen
	CookieUnbound      Fault = "ikebug-cookie-unbound"       // a cookie is good for any address
	VectorRepeats      Fault = "ikebug-vector-repeats"       // the initialisation vector does not count
	RefuseNothing      Fault = "ikebug-refuse-nothing"       // no TEMPORARY_FAILURE
	NeverSwitch        Fault = "ikebug-never-switch"         // the delete of the old Child SA is no sign
	ForgetAdoption     Fault = "ikebug-forget-adoption"      // the use of a new IKE SA by the peer decides nothing
	SpinRedundant      Fault = "ikebug-spin-redundant"       // a redundant IKE SA wants to be rekeyed
	ClockBack          Fault = "ikebug-clock-back"           // time goes back for the engine
	KeepDuplicates     Fault = "ikebug-keep-duplicates"      // both IKE SAs of a simultaneous initiation stay
	DeleteOldFirst     Fault = "ikebug-delete-old-first"     // the old Child SA is deleted before the redundant one
	IgnoreFirstContact Fault = "ikebug-ignore-first-contact" // INITIAL_CONTACT ends nothing
	OutboundHalfFirst  Fault = "ikebug-outbound-half-first"  // the outbound half is installed before the inbound one
	ForgetPeerRekey    Fault = "ikebug-forget-peer-rekey"    // a collision of Child SA rekeys is not noted
)

// The violations of the protocol in messages that an SA protects. The other side must answer each as the RFCs say.
const (
	ShortNonce Fault = "ikebug-send-short-nonce" // 8 octets (RFC 7296 2.10)
	TwoNonces  Fault = "ikebug-send-two-nonces"
	NoAuth     Fault = "ikebug-send-no-auth"
	BadAuth    Fault = "ikebug-send-bad-auth"
	OtherGroup Fault = "ikebug-send-other-group" // KE of a group that no proposal has
	DeleteAH   Fault = "ikebug-send-delete-ah"   // a Child SA is deleted with the protocol of another
	ZeroSPI    Fault = "ikebug-send-zero-spi"    // of a Child SA, which is reserved (RFC 4303 2.1)
	RekeyAH    Fault = "ikebug-send-rekey-ah"    // N(REKEY_SA) with the protocol of another
	RekeySPI   Fault = "ikebug-send-rekey-spi"   // N(REKEY_SA) with an SPI of eight octets
	OfferAH    Fault = "ikebug-send-offer-ah"    // a proposal with the protocol of another
	NoKeyBits  Fault = "ikebug-send-no-key-bits" // AES without the Key Length attribute (RFC 7296 3.3.5)
	ShortKE    Fault = "ikebug-send-short-ke"    // one octet is missing
	OtherAuth  Fault = "ikebug-send-other-auth"  // the AUTH method of a preshared key becomes that of RSA
	Unknown    Fault = "ikebug-send-unknown"     // a payload that nobody knows, not critical (RFC 7296 2.5)

	Critical        Fault = "ikebug-send-critical"          // a payload that nobody knows, critical (RFC 7296 2.5)
	Outside         Fault = "ikebug-send-outside"           // a payload that nobody knows, not critical, before SK (RFC 7296 3.14)
	OutsideCritical Fault = "ikebug-send-outside-critical"  // the same, critical
	OutsideDelete   Fault = "ikebug-send-outside-delete"    // the delete of the IKE SA, before SK
	RepeatNotifies  Fault = "ikebug-send-notifies-twice"    // each one
	OmitNotifies    Fault = "ikebug-send-no-notifies"       // none at all
	OmitTransport   Fault = "ikebug-send-no-transport-mode" // N(USE_TRANSPORT_MODE) is missing
	OmitTS          Fault = "ikebug-send-no-tsr"            // SA and TSi without TSr
	OmitChild       Fault = "ikebug-send-no-child"          // SA, TSi and TSr are missing
	WideTS          Fault = "ikebug-send-wide-ts"           // everything, in both selectors
	SmallTS         Fault = "ikebug-send-small-ts"          // one port of TCP, of both selectors
	ForeignTS       Fault = "ikebug-send-foreign-ts"        // another host in TSr
	TwoSA           Fault = "ikebug-send-two-sa"            // the SA payload twice
	ZeroKeyBits     Fault = "ikebug-send-zero-key-bits"     // a Key Length attribute of 0 (RFC 7296 3.3.5)
	TwoKeyBits      Fault = "ikebug-send-two-key-bits"      // two Key Length attributes
	ZeroKE          Fault = "ikebug-send-zero-ke"           // a public value of nothing but zeros (RFC 6989)
	EmptyKE         Fault = "ikebug-send-empty-ke"          // no public value at all
	TwoKE           Fault = "ikebug-send-two-ke"            // the KE payload twice
)
