package wire

import (
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

func TestProposalsAreDescribed(t *testing.T) {
	known := SAFromIKE([]proposal.IKE{{
		Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupECP384,
	}}, 0)
	if s := known.String(); s != "1 IKE ENCR AES-GCM/256 PRF SHA384 KE ecp384" {
		t.Errorf("an own offer is described as %q", s)
	}
	foreign := SA{Proposals: []Proposal{
		{Number: 1, Protocol: ProtocolESP, Transforms: []Transform{{Type: TransformEncryption, ID: 3}, {Type: TransformIntegrity, ID: 2}, {Type: TransformESN, ID: 1}, {Type: TransformESN, ID: 0}}},
		{Number: 2, Protocol: ProtocolIKE, Transforms: []Transform{{Type: TransformGroup, ID: 2}, {Type: TransformGroup, ID: 31}, {Type: 13, ID: 7}, {Type: TransformAdditional1, ID: 36}}},
	}}
	if s := foreign.String(); s != "1 ESP ENCR encryption(3) INTEG integrity(2) ESN yes, no; 2 IKE KE group(2), x25519 TRANSFORM(13) 7 ADDKE1 mlkem768" {
		t.Errorf("a foreign offer is described as %q", s)
	}
	if s := (SA{}).String(); s != "nothing" {
		t.Errorf("no offer is described as %q", s)
	}
	for range 12 {
		foreign.Proposals = append(foreign.Proposals, Proposal{Transforms: make([]Transform, 1000)})
	}
	if s := foreign.String(); len(s) > 4000 || !strings.HasSuffix(s, "and 6 more") {
		t.Errorf("an endless offer is described with %d characters: %.80s", len(s), s)
	}
}
