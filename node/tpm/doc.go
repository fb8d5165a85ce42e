// Package tpm keeps private keys in the machine's TPM 2.0: it has them made there, keeps what the TPM gives out of them in
// a form that can be stored, and has digests signed.
//
// Its invariant: no private key is ever outside the TPM, except wrapped under a key that never leaves it; one command is
// under way at a time, and whoever waits for it waits within a bound. A failure says what to do and is never answered
// with another key. Where a key is stored, when another one is made and whose it is, it leaves to node/identity.
package tpm

import "errors"

var (
	// ErrUnavailable says that there is no TPM, or that it does not answer.
	ErrUnavailable = errors.New("the TPM cannot be used")
	// ErrOtherTPM says that a key was made by another TPM, or by this one before it was cleared.
	ErrOtherTPM = errors.New("the key was made by another TPM, or this one was cleared since")
	// ErrDamaged says that the TPM does not accept a key that it made: what is stored of it was changed.
	ErrDamaged = errors.New("what is stored of the key was changed")
	// ErrPassword says that the TPM's owner has set a password, and left no storage key that can be used without it.
	ErrPassword = errors.New("the TPM's owner has set a password")
	// ErrLockout says that the TPM refuses authorizations after too many wrong ones.
	ErrLockout = errors.New("the TPM is locked after too many wrong authorizations")
	// ErrFormat says that something is no stored key.
	ErrFormat = errors.New("no key of a TPM")
)
