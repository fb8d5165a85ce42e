package wire

import (
	"slices"
	"testing"

	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

func hybrid() proposal.IKE {
	o := gcm256x25519
	o.Additional = proposal.AdditionalOf(proposal.GroupMLKEM768)
	return o
}

// Additional key exchanges are all or nothing: an offer with them shares no proposal with one without, so that a responder
// cannot leave them out, and a proposal that demands them is not answered without.
func TestAdditionalKeyExchangesAreAllOrNothing(t *testing.T) {
	own := []proposal.IKE{hybrid(), gcm256x25519}
	offer := SAFromIKE(own, 0)
	if len(offer.Proposals) != 2 || !offer.Proposals[0].has(TransformAdditional1, 36, 0) || offer.Proposals[1].hasType(TransformAdditional1) {
		t.Fatalf("offers %v", offer)
	}
	for name, c := range map[string]struct {
		responder []proposal.IKE
		want      proposal.IKE
		number    uint8
		ok        bool
	}{
		"both can":              {own, hybrid(), 1, true},
		"responder cannot":      {own[1:], gcm256x25519, 2, true},
		"responder insists":     {own[:1], hybrid(), 1, true},
		"another in that place": {[]proposal.IKE{func() proposal.IKE { o := hybrid(); o.Additional[0] = proposal.GroupMLKEM1024; return o }()}, proposal.IKE{}, 0, false},
		"one more":              {[]proposal.IKE{func() proposal.IKE { o := hybrid(); o.Additional[1] = proposal.GroupMLKEM1024; return o }()}, proposal.IKE{}, 0, false},
	} {
		got, number, ok := ChooseIKE(c.responder, offer)
		if got != c.want || number != c.number || ok != c.ok {
			t.Errorf("%s: chose %v of proposal %d, %t", name, got, number, ok)
		}
		if !ok {
			continue
		}
		answer := AnswerIKE(got, number, offer, 0)
		if back, _, err := AcceptIKE(own, answer, false); err != nil || back != c.want {
			t.Errorf("%s: accepted %v with error %v", name, back, err)
		}
		if _, _, err := AcceptIKE(own[1:], answer, false); c.want == hybrid() && err == nil {
			t.Errorf("%s: an answer with an additional key exchange is accepted by who offered none", name)
		}
	}
	// The proposal demands ML-KEM: an offer without it does not match.
	if got, _, ok := ChooseIKE(own[1:], SA{Proposals: offer.Proposals[:1]}); ok {
		t.Errorf("chose %v", got)
	}
	// A responder that leaves the additional key exchange out of proposal 1 is refused.
	bad := AnswerIKE(gcm256x25519, 1, SA{}, 0)
	if got, _, err := AcceptIKE(own, bad, false); err == nil {
		t.Errorf("accepted %v", got)
	}
}

// A peer that offers NONE beside a method leaves the choice to the responder, and hears NONE again.
func TestAdditionalKeyExchangeIsOptional(t *testing.T) {
	offer := SAFromIKE([]proposal.IKE{hybrid()}, 0)
	offer.Proposals[0].Transforms = append(offer.Proposals[0].Transforms, Transform{Type: TransformAdditional1})
	got, number, ok := ChooseIKE([]proposal.IKE{gcm256x25519}, offer)
	if !ok || got != gcm256x25519 {
		t.Fatalf("chose %v, %t", got, ok)
	}
	answer := AnswerIKE(got, number, offer, 0)
	if !answer.Proposals[0].has(TransformAdditional1, 0, 0) {
		t.Errorf("NONE is not repeated: %v", answer)
	}
	got, number, _ = ChooseIKE([]proposal.IKE{hybrid(), gcm256x25519}, offer)
	if got != hybrid() {
		t.Errorf("chose %v", got)
	}
	if answer := AnswerIKE(got, number, offer, 0); !answer.Proposals[0].has(TransformAdditional1, 36, 0) {
		t.Errorf("answer %v", answer)
	}
}

func TestAdditionalKeyExchangesOfChildSA(t *testing.T) {
	o := espGCM
	o.Group, o.Additional = proposal.GroupX25519, proposal.AdditionalOf(proposal.GroupMLKEM768, proposal.GroupMLKEM1024)
	own := []proposal.ESP{o}
	offer := SAFromESP(own, 0x1000, true)
	got, number, ok := ChooseESP(own, offer, true)
	if !ok || got.KeyExchange() != o.KeyExchange() {
		t.Fatalf("chose %v, %t", got, ok)
	}
	if back, _, err := AcceptESP(own, AnswerESP(got, number, offer, 0x2000), true); err != nil || back != got {
		t.Errorf("accepted %v, %v", back, err)
	}
	// IKE_AUTH carries no key exchange at all.
	offer = SAFromESP(own, 0x1000, false)
	if slices.ContainsFunc(offer.Proposals[0].Transforms, func(t Transform) bool { return t.Type == TransformGroup || t.Type.additional() }) {
		t.Errorf("IKE_AUTH offers %v", offer)
	}
	if got, _, ok := ChooseESP(own, offer, false); !ok || got.KeyExchange() != (proposal.KeyExchange{}) {
		t.Errorf("chose %v, %t", got, ok)
	}
}
