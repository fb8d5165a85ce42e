package suite

import (
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// MixPPK mixes a postquantum preshared key into SK_d, SK_pi and SK_pr: each becomes prf+(PPK, itself) (RFC 8784 3). The
// other keys stay as they are and are shared with k. The error is ErrUnsupported or ErrEmptyKey.
func MixPPK(prf proposal.PRF, ppk sa.Secret, k Keys) (Keys, error) {
	h, err := prfHash(prf)
	if err != nil {
		return Keys{}, err
	}
	if ppk.Len() == 0 {
		return Keys{}, ErrEmptyKey
	}
	for _, key := range []*sa.Secret{&k.D, &k.PI, &k.PR} {
		mixed, err := prfPlus(h, ppk.Expose(), key.Expose(), key.Len())
		if err != nil {
			return Keys{}, err
		}
		*key = sa.NewSecret(mixed)
	}
	return k, nil
}
