package wire

import (
	"bytes"
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// CVE-2026-12413 (libreswan): unknown payloads before an encrypted fragment overflowed a table of fixed size, behind an
// assertion. The limit on payloads is an error like any other.
func TestCVE_2026_12413_TooManyPayloadsAreAnError(t *testing.T) {
	m := Message{Header: Header{SPIi: 1, SPIr: 2, Exchange: IKEAuth, Flags: FlagInitiator, MessageID: 1}}
	for range LimitPayloads + 1 {
		m.Payloads = append(m.Payloads, Unknown{Type: 200})
	}
	m.Payloads = append(m.Payloads, Fragment{Number: 1, Total: 1, Body: make([]byte, 32)})
	if _, err := ParseMessage(AppendMessage(nil, m), LimitBeforeAuth); err == nil {
		t.Errorf("%d payloads are accepted", len(m.Payloads))
	}
}

// CVE-2026-35328, CVE-2026-35330 (strongSwan): elements of length 0 kept a parser in a loop for ever.
func TestCVE_2026_35328_EveryElementTakesOctets(t *testing.T) {
	for name, payload := range map[string]struct {
		kind  PayloadType
		chain []byte
	}{
		"payload":   {TypeVendorID, []byte{byte(TypeVendorID), 0, 0, 0, 0, 0, 0, 0}},
		"proposal":  {TypeSA, raw(NoNextPayload, 2, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0)},
		"transform": {TypeSA, raw(NoNextPayload, 0, 0, 0, 16, 1, 1, 0, 1, 3, 0, 0, 0, 1, 0, 0, 12)},
		"selector":  {TypeTSi, raw(NoNextPayload, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 255, 255)},
	} {
		if p, err := ParsePayloads(payload.kind, payload.chain); err == nil {
			t.Errorf("%s of length 0 gives %v", name, p)
		}
	}
}

// CVE-2016-6415 (Cisco), CVE-2023-41913 (strongSwan): octets were copied by a length that the sender claimed. Every length
// field but the right one is refused.
func TestCVE_2016_6415_ClaimedLengthsAreChecked(t *testing.T) {
	valid := AppendMessage(nil, firstMessage(nil))
	for _, length := range []byte{0, 27, byte(len(valid)) - 1, byte(len(valid)) + 1, 255} {
		b := bytes.Clone(valid)
		b[27] = length
		if _, err := ParseMessage(b, LimitBeforeAuth); err == nil {
			t.Errorf("%d octets that claim to be %d are accepted", len(b), length)
		}
	}
	ke := raw(NoNextPayload, 0, 31, 0, 0, 1, 2, 3)
	ke[3] = 200
	if _, err := ParsePayloads(TypeKE, ke); err == nil {
		t.Error("a key exchange payload longer than the message is accepted")
	}
}

// CVE-2023-23009 (libreswan): a malformed traffic selector was freed twice.
func TestCVE_2023_23009_MalformedSelectorsAreRefused(t *testing.T) {
	for _, body := range [][]byte{
		{1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 9, 10, 0, 0, 1},                // ends before it begins
		{2, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 1, 10, 0, 0, 9},                // one less than counted
		{1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 1, 10, 0, 0, 9, 7, 0, 0, 16},   // half a selector behind
		{1, 0, 0, 0, 8, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 1, 10, 0, 0, 9, 10, 0, 0, 255}, // of another family
	} {
		if p, err := ParsePayloads(TypeTSi, raw(NoNextPayload, body...)); err == nil {
			t.Errorf("% x gives %v", body, p)
		}
	}
}

// CVE-2016-5391 (libreswan): a proposal for an IKE SA without a group was accepted, and crashed when a key was to be
// computed. Each type that a protocol demands has to be there (RFC 7296 3.3.3), in offers and in answers.
func TestCVE_2016_5391_NoTransformIsLeftOut(t *testing.T) {
	own := []proposal.IKE{cbcMODP}
	whole := SAFromIKE(own, 0)
	if _, _, ok := ChooseIKE(own, whole); !ok {
		t.Fatal("the whole offer is not acceptable")
	}
	if _, _, err := AcceptIKE(own, whole, false); err != nil {
		t.Fatalf("the whole answer: %v", err)
	}
	for i, left := range whole.Proposals[0].Transforms {
		p := whole.Proposals[0]
		p.Transforms = slices.Delete(slices.Clone(p.Transforms), i, i+1)
		part := SA{Proposals: []Proposal{p}}
		if chosen, _, ok := ChooseIKE(own, part); ok {
			t.Errorf("an offer without %s is accepted as %v", left.Type, chosen)
		}
		if chosen, _, err := AcceptIKE(own, part, false); err == nil {
			t.Errorf("an answer without %s is accepted as %v", left.Type, chosen)
		}
	}
}
