package ikesim

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"slices"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// toyKey signs for everybody.
var toyKey = []byte("toy signature key")

// toy does the work of a job without any security: the public value is the private one, the shared secret a hash of
// both, in the order of the roles with a KEM. Nodes whose name begins with "bad" have signatures that nobody accepts.
func (n *Node) toy(work ike.Work) ike.Result {
	switch w := work.(type) {
	case ike.Generate:
		private := make([]byte, toyLen(w.Group, false))
		_, _ = n.source.Read(private)
		return ike.Generated{Public: bytes.Clone(private), Private: private}
	case ike.Agree:
		own := w.Private.([]byte)
		if len(w.Peer) != toyLen(w.Group, true) || bytes.Count(w.Peer, []byte{0}) == len(w.Peer) { // RFC 6989
			return ike.Agreed{Err: errors.New("public value of another length")}
		}
		a, b := own, w.Peer
		if !w.Group.KEM() && bytes.Compare(b, a) < 0 {
			a, b = b, a
		}
		sum := sha256.Sum256(append(bytes.Clone(a), b...))
		return ike.Agreed{Shared: sa.NewSecret(sum[:])}
	case ike.Encapsulate:
		if len(w.Peer) != toyLen(w.Group, false) {
			return ike.Encapsulated{Err: errors.New("public value of another length")}
		}
		public := make([]byte, toyLen(w.Group, true))
		_, _ = n.source.Read(public)
		sum := sha256.Sum256(slices.Concat(w.Peer, public))
		return ike.Encapsulated{Public: public, Shared: sa.NewSecret(sum[:])}
	case ike.Sign:
		return ike.Signed{Method: byte(wire.AuthDigitalSignature), Data: toyMAC(string(n.Config.Local.Data), w.Octets)}
	case ike.Verify:
		if !bytes.Equal(w.Data, toyMAC(string(w.ID), w.Octets)) || bytes.HasPrefix(w.ID, []byte("bad")) {
			return ike.Verified{Reason: ike.ReasonAuthFailed, Detail: "toy signature does not verify"}
		}
		return n.standing(w.ID, w.Groups)
	case ike.Rejudge:
		return n.standing(w.ID, w.Groups)
	}
	panic("ikesim: unknown work")
}

// standing is the verdict about a peer whose signature is good.
func (n *Node) standing(id []byte, groups []string) ike.Verified {
	name, expiry := string(id), n.Expiry[string(id)]
	switch {
	case n.Denied[name]:
		return ike.Verified{Reason: ike.ReasonPeerDenied, Detail: name + " is denied"}
	case !expiry.IsZero() && !n.world.Now.Before(expiry):
		return ike.Verified{Reason: ike.ReasonCertExpired, Detail: "the certificate of " + name + " has expired"}
	}
	v := ike.Verified{Peer: name, NotAfter: expiry}
	for _, g := range groups {
		if slices.Contains(n.Groups[name], g) {
			v.Groups = append(v.Groups, g)
		}
	}
	return v
}

// toyLen is the length of a public value: that of a KEM matters to the engine and to the path.
func toyLen(g proposal.Group, responder bool) int {
	switch {
	case g == proposal.GroupMLKEM768 && responder:
		return 1088
	case g == proposal.GroupMLKEM768:
		return 1184
	case g == proposal.GroupMLKEM1024:
		return 1568
	default:
		return 32
	}
}

func toyMAC(name string, octets []byte) []byte {
	m := hmac.New(sha256.New, append(bytes.Clone(toyKey), name...))
	_, _ = m.Write(octets)
	return m.Sum(nil)
}
