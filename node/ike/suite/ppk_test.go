package suite_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/ike/suite"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The keys of a conversation of two strongSwan 5.9.8, recorded.
func TestMixPPKAsStrongSwan(t *testing.T) {
	const prf = proposal.PRFHMACSHA256
	secret := func(s string) sa.Secret { return sa.NewSecret(unhex(t, s)) }
	keys := suite.Keys{
		D:  secret("fe7c459a83c03674c6805554f84a0ad954e3d80af33586bf1e0aafd69a6b5b7b"),
		PI: secret("e98abb823b166c5c1bd742ad70315f1453e4f7f4b52332e42af2f987260bf776"),
		PR: secret("44c7f2d584727768f2a5068a559dd5deb34b3241f23916e9603ed4798cd2489a"),
		EI: secret("00"),
	}
	mixed, err := suite.MixPPK(prf, sa.NewSecret([]byte("0123456789abcdef0123456789abcdef")), keys)
	if err != nil {
		t.Fatal(err)
	}
	if want := unhex(t, "879c5b6d1e6d76fb367030a877a856bd39b563923815d57d76c156185662350b"); !bytes.Equal(mixed.D.Expose(), want) {
		t.Errorf("SK_d is %x, want %x", mixed.D.Expose(), want)
	}
	if mixed.PI.Equal(keys.PI) || mixed.PR.Equal(keys.PR) || mixed.PI.Len() != 32 || !mixed.EI.Equal(keys.EI) {
		t.Error("SK_pi and SK_pr must change, SK_ei must not")
	}
	if _, err := suite.MixPPK(prf, sa.Secret{}, keys); !errors.Is(err, suite.ErrEmptyKey) {
		t.Errorf("an empty key gives %v, want ErrEmptyKey", err)
	}
}
