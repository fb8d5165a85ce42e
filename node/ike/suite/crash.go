package suite

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// CrashTokenLen is the length in octets of what CrashToken returns: the least that RFC 6290 4.1 allows, so that the answer
// that holds one is no longer than the question.
const CrashTokenLen = 16

// CrashToken is the quick crash detection token of an IKE SA (RFC 6290 5.1): a keyed hash over its SPIs, which its maker
// computes again after a restart that has lost everything but the secret.
func CrashToken(secret sa.Secret, spii, spir wire.SPI) []byte {
	m := hmac.New(sha256.New, secret.Expose())
	m.Write([]byte("quick crash detection"))
	m.Write(spir.Append(spii.Append(nil)))
	return m.Sum(nil)[:CrashTokenLen]
}
