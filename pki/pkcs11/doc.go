// Package pkcs11 makes and uses the issuing keys of CAs that are kept in a token (PKCS #11, OASIS 3.0): a smart card, a
// hardware security module, or a service that looks like one.
//
// Invariants: a key is made inside the token, sensitive and not extractable, and never leaves it; a key is named by a URI
// (RFC 7512) with the token's label and the key's id, and only a URI that names exactly one private key opens one.
//
// No call waits longer than ten seconds for the token, or five minutes for a new key, whatever that does; one that hangs holds
// back the others, and each of them fails in its time.
//
// A module is foreign code in C that is loaded into the process, which needs cgo. A binary that was built without cgo
// refuses with [ErrNoModule] and says so; nothing else depends on it.
//
// It leaves to others: certificates (pki/ca), and where the URI is remembered (controller/authority).
package pkcs11

import "errors"

var (
	// ErrNoModule is wrapped when there is no module, or it cannot be loaded.
	ErrNoModule = errors.New("PKCS #11 module cannot be used")
	// ErrToken is wrapped when the token is not there, refuses the PIN, or fails.
	ErrToken = errors.New("PKCS #11 token cannot be used")
	// ErrPIN is wrapped, beside ErrToken, when the token refused the PIN, or allows one more attempt alone. It is not shown
	// again by this process: tokens lock themselves after a few wrong ones.
	ErrPIN = errors.New("the PIN is not to be tried again")
	// ErrSilent is wrapped when the token did not answer in time.
	ErrSilent = errors.New("it does not answer")
	// ErrKey is wrapped when a URI does not name one key, or a key is of a kind that cannot be used.
	ErrKey = errors.New("key in the PKCS #11 token cannot be used")
)

// Config names a token.
type Config struct {
	// Module is the path of the module's library, Token the label of the token.
	Module, Token string
	// PIN is the user's. It does not print.
	PIN PIN
}

// PIN is a secret.
type PIN string

// String returns "[redacted]".
func (PIN) String() string { return "[redacted]" }

// GoString returns "[redacted]".
func (PIN) GoString() string { return "[redacted]" }
