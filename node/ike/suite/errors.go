package suite

import "errors"

var (
	// ErrUnsupported means an algorithm that this program does not implement.
	ErrUnsupported = errors.New("algorithm is not implemented")
	// ErrIntegrity means that an SK or SKF payload is not authentic. The message is dropped without an answer.
	ErrIntegrity = errors.New("integrity check of the encrypted payload failed")
	// ErrPublicValue means a public value of the peer that the group does not allow (RFC 6989, RFC 8031).
	ErrPublicValue = errors.New("public value of the peer is not valid")
	// ErrPrivateValue means a given private value that the group does not allow.
	ErrPrivateValue = errors.New("private value does not fit the group")
	// ErrSignature means an AUTH payload that does not verify.
	ErrSignature = errors.New("authentication data does not verify")
	// ErrAlgorithm means an AUTH payload whose algorithm is not allowed or was not announced.
	ErrAlgorithm = errors.New("signature algorithm is not allowed")
	// ErrNoCommonHash means that the peer announced no hash algorithm with which the own key can sign.
	ErrNoCommonHash = errors.New("no signature hash algorithm in common with the peer")
	// ErrExhausted means that a key has protected as many messages as it may.
	ErrExhausted = errors.New("encryption key is exhausted")
	// ErrTooLong means payloads that do not fit into one message.
	ErrTooLong = errors.New("payloads do not fit into one message")
	// ErrEmptyKey means a pre-shared key without octets, which would authenticate anybody.
	ErrEmptyKey = errors.New("pre-shared key is empty")
	// ErrNonce means a nonce whose length the PRF does not allow.
	ErrNonce = errors.New("nonce has a length that is not allowed")
)
