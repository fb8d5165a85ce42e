package ikesim

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"math/rand/v2"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// toyKey signs for everybody.
var toyKey = []byte("toy signature key")

// toy does the work of a job without any security: the public value is the private one, the shared secret a hash of
// both. Nodes whose name begins with "bad" have signatures that nobody accepts.
func toy(r *rand.ChaCha8, name string, work ike.Work) ike.Result {
	switch w := work.(type) {
	case ike.Generate:
		private := make([]byte, 32)
		_, _ = r.Read(private)
		return ike.Generated{Public: bytes.Clone(private), Private: private}
	case ike.Agree:
		own := w.Private.([]byte)
		if len(w.Peer) != len(own) {
			return ike.Agreed{Err: errors.New("public value of another length")}
		}
		a, b := own, w.Peer
		if bytes.Compare(b, a) < 0 {
			a, b = b, a
		}
		sum := sha256.Sum256(append(bytes.Clone(a), b...))
		return ike.Agreed{Shared: sa.NewSecret(sum[:])}
	case ike.Sign:
		return ike.Signed{Method: byte(wire.AuthDigitalSignature), Data: toyMAC(name, w.Octets)}
	case ike.Verify:
		if !bytes.Equal(w.Data, toyMAC(string(w.ID), w.Octets)) || bytes.HasPrefix(w.ID, []byte("bad")) {
			return ike.Verified{Reason: ike.ReasonAuthFailed, Detail: "toy signature does not verify"}
		}
		return ike.Verified{Peer: string(w.ID)}
	}
	panic("ikesim: unknown work")
}

func toyMAC(name string, octets []byte) []byte {
	m := hmac.New(sha256.New, append(bytes.Clone(toyKey), name...))
	_, _ = m.Write(octets)
	return m.Sum(nil)
}
