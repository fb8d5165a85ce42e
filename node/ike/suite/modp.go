package suite

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"sync"

	"filippo.io/bigmod"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// modp is a group of RFC 3526. The generator is 2 and the primes are safe, so that a short exponent loses nothing.
type modp struct {
	prime   []byte
	modulus *bigmod.Modulus
	// exponentLen is the length of a fresh exponent in octets: more than twice the strength of the group, the upper
	// estimate of RFC 3526 8.
	exponentLen int
}

// The primes of RFC 3526 3, 4 and 5, which follow from the digits of pi.
const (
	prime2048 = "" +
		"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74" +
		"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED" +
		"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB" +
		"9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718" +
		"3995497CEA956AE515D2261898FA051015728E5A8AACAA68FFFFFFFFFFFFFFFF"
	prime3072 = "" +
		"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74" +
		"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED" +
		"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB" +
		"9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718" +
		"3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33" +
		"A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7" +
		"ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864" +
		"D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2" +
		"08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF"
	prime4096 = "" +
		"FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74" +
		"020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F1437" +
		"4FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7ED" +
		"EE386BFB5A899FA5AE9F24117C4B1FE649286651ECE45B3DC2007CB8A163BF05" +
		"98DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB" +
		"9ED529077096966D670C354E4ABC9804F1746C08CA18217C32905E462E36CE3B" +
		"E39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718" +
		"3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33" +
		"A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7DB3970F85A6E1E4C7" +
		"ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864" +
		"D87602733EC86A64521F2B18177B200CBBE117577A615D6C770988C0BAD946E2" +
		"08E24FA074E5AB3143DB5BFCE0FD108E4B82D120A92108011A723C12A787E6D7" +
		"88719A10BDBA5B2699C327186AF4E23C1A946834B6150BDA2583E9CA2AD44CE8" +
		"DBBBC2DB04DE8EF92E8EFC141FBECAA6287C59474E6BC05D99B2964FA090C3A2" +
		"233BA186515BE7ED1F612970CEE2D7AFB81BDD762170481CD0069127D5B05AA9" +
		"93B4EA988D8FDDC186FFB7DC90A6C08F4DF435C934063199FFFFFFFFFFFFFFFF"
)

// The moduli are constants; they are computed when first needed.
var (
	modp2048 = sync.OnceValue(func() *modp { return newMODP(prime2048, 40) })
	modp3072 = sync.OnceValue(func() *modp { return newMODP(prime3072, 53) })
	modp4096 = sync.OnceValue(func() *modp { return newMODP(prime4096, 60) })
)

// newMODP panics when a constant of this file is not a number, which the tests would show.
func newMODP(prime string, exponentLen int) *modp {
	b, err := hex.DecodeString(prime)
	if err != nil {
		panic(err)
	}
	modulus, err := bigmod.NewModulus(b)
	if err != nil {
		panic(err)
	}
	return &modp{prime: b, modulus: modulus, exponentLen: exponentLen}
}

func modpOf(group proposal.Group) (*modp, error) {
	switch group {
	case proposal.GroupMODP2048:
		return modp2048(), nil
	case proposal.GroupMODP3072:
		return modp3072(), nil
	case proposal.GroupMODP4096:
		return modp4096(), nil
	default:
		return nil, fmt.Errorf("use group %d: %w", uint16(group), ErrUnsupported)
	}
}

// size is the length of public values and shared secrets in octets.
func (m *modp) size() int { return len(m.prime) }

// valid reports whether a public value has the length of the prime (RFC 7296 3.4) and lies in 1 < y < p-1 (RFC 6989
// 2.1). With a safe prime no further test is needed.
func (m *modp) valid(y []byte) bool {
	if len(y) != m.size() {
		return false
	}
	one := make([]byte, m.size())
	one[len(one)-1] = 1
	last := bytes.Clone(m.prime)
	last[len(last)-1]-- // the prime is odd
	return bytes.Compare(y, one) > 0 && bytes.Compare(y, last) < 0
}

// power is y^exponent mod p in the length of the prime, in time that depends on the lengths only. y is less than p.
func (m *modp) power(y, exponent []byte) []byte {
	base := make([]byte, m.size())
	copy(base[len(base)-len(y):], y)
	n, err := bigmod.NewNat().SetBytes(base, m.modulus)
	if err != nil {
		panic(err) // valid has refused everything that is not less than the prime
	}
	return bigmod.NewNat().Exp(n, exponent, m.modulus).Bytes(m.modulus)
}
