package suite

import (
	"bytes"
	"errors"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// CVE-2014-9221 (strongSwan): a number that the implementation used for itself, 1025, came in as a group and crashed it.
// No number that policies cannot name is a group.
func TestCVE_2014_9221_NoGroupOfPrivateNumbers(t *testing.T) {
	for _, group := range []proposal.Group{0, 1, 2, 5, 22, 1024, 1025, 1040, 32768, 65535} {
		if _, _, err := NewKeyExchange(group); !errors.Is(err, ErrUnsupported) {
			t.Errorf("group %d gives %v", group, err)
		}
		if group.KEM() {
			t.Errorf("group %d is taken for a key encapsulation", group)
		}
	}
}

// CVE-2015-3240 (libreswan): a public value of 0 crashed. What makes the secret known to everybody, or is no element of the
// group, is refused (RFC 6989 2).
func TestCVE_2015_3240_PublicValuesAtTheEdges(t *testing.T) {
	for _, group := range []proposal.Group{proposal.GroupMODP2048, proposal.GroupMODP3072, proposal.GroupMODP4096} {
		m, err := modpOf(group)
		if err != nil {
			t.Fatal(err)
		}
		own, _, err := NewKeyExchange(group)
		if err != nil {
			t.Fatal(err)
		}
		zero, one, last := make([]byte, m.size()), make([]byte, m.size()), bytes.Clone(m.prime)
		one[len(one)-1], last[len(last)-1] = 1, last[len(last)-1]-1
		for name, y := range map[string][]byte{
			"0": zero, "1": one, "p-1": last, "p": m.prime, "more than p": bytes.Repeat([]byte{255}, m.size()),
			"too short": {2}, "too long": append([]byte{0}, m.prime...), "nothing": nil,
		} {
			if _, err := Agree(own, y); !errors.Is(err, ErrPublicValue) {
				t.Errorf("%s in group %d gives %v", name, group, err)
			}
		}
	}
	for group, size := range map[proposal.Group]int{
		proposal.GroupX25519: 32, proposal.GroupECP256: 64, proposal.GroupECP384: 96, proposal.GroupECP521: 132,
	} {
		own, _, err := NewKeyExchange(group)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Agree(own, make([]byte, size)); !errors.Is(err, ErrPublicValue) {
			t.Errorf("0 in group %d gives %v", group, err)
		}
	}
}
