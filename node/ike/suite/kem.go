package suite

import (
	"crypto/mlkem"
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// ML-KEM (FIPS 203) as a key exchange method: the initiator's KE payload holds its encapsulation key, the responder's the
// ciphertext. It serves as the first method and as an additional one (RFC 9370).

// decapsulator is a decapsulation key of any size.
type decapsulator interface {
	Decapsulate(ciphertext []byte) ([]byte, error)
}

func newKEM(group proposal.Group) (*PrivateValue, []byte, error) {
	failed := func(err error) (*PrivateValue, []byte, error) {
		return nil, nil, fmt.Errorf("make a key of group %d: %w", uint16(group), err)
	}
	switch group {
	case proposal.GroupMLKEM768:
		key, err := mlkem.GenerateKey768()
		if err != nil {
			return failed(err)
		}
		return &PrivateValue{group: group, kem: key}, key.EncapsulationKey().Bytes(), nil
	case proposal.GroupMLKEM1024:
		key, err := mlkem.GenerateKey1024()
		if err != nil {
			return failed(err)
		}
		return &PrivateValue{group: group, kem: key}, key.EncapsulationKey().Bytes(), nil
	default:
		return failed(ErrUnsupported)
	}
}

func kemFrom(group proposal.Group, seed sa.Secret) (*PrivateValue, []byte, error) {
	failed := fmt.Errorf("use a private value of %d octets in group %d: %w", seed.Len(), uint16(group), ErrPrivateValue)
	switch group {
	case proposal.GroupMLKEM768:
		key, err := mlkem.NewDecapsulationKey768(seed.Expose())
		if err != nil {
			return nil, nil, failed
		}
		return &PrivateValue{group: group, kem: key}, key.EncapsulationKey().Bytes(), nil
	case proposal.GroupMLKEM1024:
		key, err := mlkem.NewDecapsulationKey1024(seed.Expose())
		if err != nil {
			return nil, nil, failed
		}
		return &PrivateValue{group: group, kem: key}, key.EncapsulationKey().Bytes(), nil
	default:
		return nil, nil, fmt.Errorf("use group %d as a KEM: %w", uint16(group), ErrUnsupported)
	}
}

// CheckPublic refuses KE data that an initiator cannot have made with a KEM, by its length. Data of other groups is checked
// when the secret is computed, which can wait. The error is ErrPublicValue.
func CheckPublic(group proposal.Group, data []byte) error {
	want := map[proposal.Group]int{
		proposal.GroupMLKEM768: mlkem.EncapsulationKeySize768, proposal.GroupMLKEM1024: mlkem.EncapsulationKeySize1024,
	}[group]
	if want != 0 && len(data) != want {
		return fmt.Errorf("encapsulation key of %d octets in group %d, which has %d: %w", len(data), uint16(group), want, ErrPublicValue)
	}
	return nil
}

// Encapsulate answers the encapsulation key of an initiator: a fresh shared secret, and the ciphertext for the KE payload
// of the responder. It uses system randomness: call it in a job. The error is ErrPublicValue for a key of another length
// or with a coefficient that is not reduced (the checks of FIPS 203 7.2), ErrUnsupported for a group that is no KEM.
func Encapsulate(group proposal.Group, peer []byte) (ciphertext []byte, shared sa.Secret, err error) {
	refused := fmt.Errorf("encapsulate for a key of %d octets in group %d: %w", len(peer), uint16(group), ErrPublicValue)
	var secret []byte
	switch group {
	case proposal.GroupMLKEM768:
		key, err := mlkem.NewEncapsulationKey768(peer)
		if err != nil {
			return nil, sa.Secret{}, refused
		}
		secret, ciphertext = key.Encapsulate()
	case proposal.GroupMLKEM1024:
		key, err := mlkem.NewEncapsulationKey1024(peer)
		if err != nil {
			return nil, sa.Secret{}, refused
		}
		secret, ciphertext = key.Encapsulate()
	default:
		return nil, sa.Secret{}, fmt.Errorf("encapsulate in group %d: %w", uint16(group), ErrUnsupported)
	}
	return ciphertext, sa.NewSecret(secret), nil
}
