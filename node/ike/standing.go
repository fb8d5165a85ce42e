package ike

import "github.com/bailiwick-net/bailiwick/policies/spd"

// Recheck says that what this node knows of its peers has changed: the trust bundle, revocations, accounts in the
// directory. Every peer that a certificate authenticated is judged again, and who does not pass is cut off.
type Recheck struct{}

func (Recheck) event() {}

// Rejudge decides whether a peer that was authenticated by a certificate would be accepted now. The signature of IKE_AUTH
// is not looked at again: it cannot change. Its result is a Verified.
type Rejudge struct {
	IDType     byte
	ID         []byte
	Chain      [][]byte
	Auth       spd.Auth
	Revocation spd.Revocation
	Groups     []string
}

func (Rejudge) work() {}
