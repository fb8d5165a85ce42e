package wire

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

var (
	gcm256x25519 = proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupX25519}
	gcm256p384   = proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupECP384}
	gcm128p256   = proposal.IKE{Encryption: proposal.EncrAESGCM16, KeyBits: 128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupECP256}
	cbcMODP      = proposal.IKE{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupMODP2048}
	chacha       = proposal.IKE{Encryption: proposal.EncrChaCha20Poly1305, PRF: proposal.PRFHMACSHA256, Group: proposal.GroupX25519}
)

// describe writes proposals in one line each.
func describe(p SA) string {
	var lines []string
	for _, prop := range p.Proposals {
		var words []string
		for _, t := range prop.Transforms {
			words = append(words, t.Type.String()+"="+itoa(t.ID)+bits(t.KeyBits))
		}
		lines = append(lines, itoa(uint16(prop.Number))+" "+prop.Protocol.String()+" "+strings.Join(words, " "))
	}
	return strings.Join(lines, "\n")
}

func itoa(v uint16) string {
	if v < 10 {
		return string(rune('0' + v))
	}
	return itoa(v/10) + string(rune('0'+v%10))
}

func bits(v uint16) string {
	if v == 0 {
		return ""
	}
	return "/" + itoa(v)
}

func TestSAFromIKE(t *testing.T) {
	for _, c := range []struct {
		name string
		own  []proposal.IKE
		want string
	}{
		{"one", []proposal.IKE{cbcMODP}, "1 IKE ENCR=12/256 INTEG=12 PRF=5 KE=14"},
		{"equal but for the group", []proposal.IKE{gcm256x25519, gcm256p384}, "1 IKE ENCR=20/256 PRF=6 KE=31 KE=20"},
		{"AEAD and CBC never share a proposal", []proposal.IKE{gcm256p384, cbcMODP}, "1 IKE ENCR=20/256 PRF=6 KE=20\n2 IKE ENCR=12/256 INTEG=12 PRF=5 KE=14"},
		{"two differences would offer what is not meant", []proposal.IKE{gcm256p384, gcm128p256}, "1 IKE ENCR=20/256 PRF=6 KE=20\n2 IKE ENCR=20/128 PRF=5 KE=19"},
		{"twice the same", []proposal.IKE{chacha, chacha}, "1 IKE ENCR=28 PRF=5 KE=31"},
		{"a complete square", []proposal.IKE{gcm256x25519, gcm256p384, with(gcm256x25519, 128), with(gcm256p384, 128)},
			"1 IKE ENCR=20/256 ENCR=20/128 PRF=6 KE=31 KE=20"},
		{"a square with a hole", []proposal.IKE{gcm256x25519, gcm256p384, with(gcm256x25519, 128)},
			"1 IKE ENCR=20/256 PRF=6 KE=31 KE=20\n2 IKE ENCR=20/128 PRF=6 KE=31"},
		{"only neighbours are merged", []proposal.IKE{gcm256x25519, cbcMODP, gcm256p384},
			"1 IKE ENCR=20/256 PRF=6 KE=31\n2 IKE ENCR=12/256 INTEG=12 PRF=5 KE=14\n3 IKE ENCR=20/256 PRF=6 KE=20"},
	} {
		if got := describe(SAFromIKE(c.own, 0)); got != c.want {
			t.Errorf("%s: offered\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
	if p := SAFromIKE([]proposal.IKE{chacha}, 0x0102030405060708).Proposals[0]; string(p.SPI) != "\x01\x02\x03\x04\x05\x06\x07\x08" {
		t.Errorf("the SPI of a rekey is %x", p.SPI)
	}
	if p := SAFromIKE([]proposal.IKE{chacha}, 0).Proposals[0]; len(p.SPI) != 0 {
		t.Errorf("IKE_SA_INIT has SPI %x", p.SPI)
	}
}

func with(o proposal.IKE, bits uint16) proposal.IKE {
	o.KeyBits = bits
	return o
}

var (
	espGCM = proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 256, Group: proposal.GroupX25519}
	espCBC = proposal.ESP{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128}
)

func TestSAFromESP(t *testing.T) {
	own := []proposal.ESP{espGCM, espCBC}
	if got, want := describe(SAFromESP(own, 0x01020304, true)), "1 ESP ENCR=20/256 KE=31 ESN=1 ESN=0\n2 ESP ENCR=12/256 INTEG=12 ESN=1 ESN=0"; got != want {
		t.Errorf("CREATE_CHILD_SA offers\n%s\nwant\n%s", got, want)
	}
	if got, want := describe(SAFromESP(own, 0x01020304, false)), "1 ESP ENCR=20/256 ESN=1 ESN=0\n2 ESP ENCR=12/256 INTEG=12 ESN=1 ESN=0"; got != want {
		t.Errorf("IKE_AUTH offers\n%s\nwant\n%s", got, want)
	}
	if spi, ok := SAFromESP(own, 0x01020304, true).OfferedSPI(2); !ok || spi != 0x01020304 {
		t.Errorf("the SPI is %s, %t", spi, ok)
	}
}

// TestWithAndWithoutGroupAreSeparate: an ESP offer with and one without key exchange cannot share a proposal, because
// a proposal that names a group demands one.
func TestWithAndWithoutGroupAreSeparate(t *testing.T) {
	plain := espGCM
	plain.Group = proposal.GroupNone
	want := "1 ESP ENCR=20/256 KE=31 ESN=1 ESN=0\n2 ESP ENCR=20/256 ESN=1 ESN=0"
	if got := describe(SAFromESP([]proposal.ESP{espGCM, plain}, 256, true)); got != want {
		t.Errorf("offered\n%s\nwant\n%s", got, want)
	}
}

func transformsOf(o proposal.IKE) []Transform {
	return SAFromIKE([]proposal.IKE{o}, 0).Proposals[0].Transforms
}

func TestChooseIKE(t *testing.T) {
	offer := func(props ...Proposal) SA {
		for i := range props {
			props[i].Number = uint8(i + 1)
			if props[i].Protocol == 0 {
				props[i].Protocol = ProtocolIKE
			}
		}
		return SA{Proposals: props}
	}
	gcm, cbc := transformsOf(gcm256p384), transformsOf(cbcMODP)
	add := func(list []Transform, more ...Transform) Proposal {
		return Proposal{Transforms: slices.Concat(list, more)}
	}
	own := []proposal.IKE{gcm256p384, cbcMODP}
	for _, c := range []struct {
		name    string
		own     []proposal.IKE
		offered SA
		want    proposal.IKE
		number  uint8
	}{
		{"the own order wins", own, offer(Proposal{Transforms: cbc}, Proposal{Transforms: gcm}), gcm256p384, 2},
		{"the second is taken when the first is not there", own, offer(Proposal{Transforms: cbc}), cbcMODP, 1},
		{"of equal proposals the peer's first", own, offer(Proposal{Transforms: gcm}, Proposal{Transforms: gcm}), gcm256p384, 1},
		{"many transforms of a type", own, offer(add([]Transform{{Type: TransformEncryption, ID: 13, KeyBits: 256}, {Type: TransformGroup, ID: 36}}, gcm...)), gcm256p384, 1},
		{"integrity NONE beside an AEAD", own, offer(add(gcm, Transform{Type: TransformIntegrity})), gcm256p384, 1},
		{"integrity beside an AEAD", own, offer(add(gcm, Transform{Type: TransformIntegrity, ID: 12})), proposal.IKE{}, 0},
		{"integrity NONE beside CBC", []proposal.IKE{cbcMODP}, offer(add(slices.DeleteFunc(slices.Clone(cbc), func(t Transform) bool { return t.Type == TransformIntegrity }), Transform{Type: TransformIntegrity})), proposal.IKE{}, 0},
		{"CBC without integrity", []proposal.IKE{cbcMODP}, offer(add(slices.DeleteFunc(slices.Clone(cbc), func(t Transform) bool { return t.Type == TransformIntegrity }))), proposal.IKE{}, 0},
		{"an unknown transform type", own, offer(add(gcm, Transform{Type: 6, ID: 36})), proposal.IKE{}, 0},
		{"an unknown type in one proposal only", own, offer(add(gcm, Transform{Type: 6, ID: 36}), Proposal{Transforms: gcm}), gcm256p384, 2},
		{"ESN in a proposal for IKE", own, offer(add(gcm, Transform{Type: TransformESN})), proposal.IKE{}, 0},
		{"another key length", own, offer(Proposal{Transforms: transformsOf(with(gcm256p384, 128))}), proposal.IKE{}, 0},
		{"no key length", own, offer(Proposal{Transforms: transformsOf(with(gcm256p384, 0))}), proposal.IKE{}, 0},
		{"an unknown attribute", own, offer(Proposal{Transforms: slices.Concat(gcm[1:], []Transform{{Type: TransformEncryption, ID: 20, KeyBits: 256, Other: []Attribute{{Type: 15}}}})}), proposal.IKE{}, 0},
		{"an unknown attribute in one of two", own, offer(add(gcm, Transform{Type: TransformEncryption, ID: 20, KeyBits: 256, Other: []Attribute{{Type: 15}}})), gcm256p384, 1},
		{"a key length on the PRF", own, offer(Proposal{Transforms: slices.Concat(gcm[:1], gcm[2:], []Transform{{Type: TransformPRF, ID: 6, KeyBits: 128}})}), proposal.IKE{}, 0},
		{"no group", own, offer(Proposal{Transforms: slices.DeleteFunc(slices.Clone(gcm), func(t Transform) bool { return t.Type == TransformGroup })}), proposal.IKE{}, 0},
		{"group NONE", own, offer(add(slices.DeleteFunc(slices.Clone(gcm), func(t Transform) bool { return t.Type == TransformGroup }), Transform{Type: TransformGroup})), proposal.IKE{}, 0},
		{"a proposal for ESP", own, offer(Proposal{Protocol: ProtocolESP, Transforms: gcm}), proposal.IKE{}, 0},
		{"an SPI of 4 octets", own, offer(Proposal{SPI: make([]byte, 4), Transforms: gcm}), proposal.IKE{}, 0},
		{"nothing offered", own, SA{}, proposal.IKE{}, 0},
		{"nothing allowed", nil, offer(Proposal{Transforms: gcm}), proposal.IKE{}, 0},
	} {
		got, number, ok := ChooseIKE(c.own, c.offered)
		if ok != (c.number != 0) || got != c.want || number != c.number {
			t.Errorf("%s: chose %+v of proposal %d, %t, want %+v of %d", c.name, got, number, ok, c.want, c.number)
		}
	}
}

func TestChooseESP(t *testing.T) {
	spi := []byte{1, 2, 3, 4}
	gcm := Transform{Type: TransformEncryption, ID: 20, KeyBits: 256}
	esn, noESN := Transform{Type: TransformESN, ID: ESNYes}, Transform{Type: TransformESN, ID: ESNNo}
	x25519, none := Transform{Type: TransformGroup, ID: 31}, Transform{Type: TransformGroup}
	plain := espGCM
	plain.Group = proposal.GroupNone
	extended := func(o proposal.ESP) proposal.ESP { o.ESN = true; return o }
	for _, c := range []struct {
		name       string
		own        proposal.ESP
		transforms []Transform
		spi        []byte
		withGroup  bool
		want       proposal.ESP
		ok         bool
	}{
		{"extended numbers are preferred", plain, []Transform{gcm, noESN, esn}, spi, true, extended(plain), true},
		{"32-bit numbers alone", plain, []Transform{gcm, noESN}, spi, true, plain, true},
		{"no word about numbers", plain, []Transform{gcm}, spi, true, proposal.ESP{}, false},
		{"an unknown kind of numbers", plain, []Transform{gcm, {Type: TransformESN, ID: 2}}, spi, true, proposal.ESP{}, false},
		{"group wanted and offered", espGCM, []Transform{gcm, x25519, esn}, spi, true, extended(espGCM), true},
		{"group wanted and not offered", espGCM, []Transform{gcm, esn}, spi, true, proposal.ESP{}, false},
		{"group wanted, NONE offered", espGCM, []Transform{gcm, none, esn}, spi, true, proposal.ESP{}, false},
		{"group not wanted but demanded", plain, []Transform{gcm, x25519, esn}, spi, true, proposal.ESP{}, false},
		{"group not wanted and optional", plain, []Transform{gcm, x25519, none, esn}, spi, true, extended(plain), true},
		{"IKE_AUTH ignores the own group", espGCM, []Transform{gcm, esn}, spi, false, extended(plain), true},
		{"IKE_AUTH with NONE", espGCM, []Transform{gcm, none, esn}, spi, false, extended(plain), true},
		{"IKE_AUTH cannot have a group", espGCM, []Transform{gcm, x25519, esn}, spi, false, proposal.ESP{}, false},
		{"a PRF has no place", plain, []Transform{gcm, {Type: TransformPRF, ID: 5}, esn}, spi, true, proposal.ESP{}, false},
		{"a short SPI", plain, []Transform{gcm, esn}, spi[:3], true, proposal.ESP{}, false},
		{"an SPI of 8 octets", plain, []Transform{gcm, esn}, make([]byte, 8), true, proposal.ESP{}, false},
		{"a reserved SPI", plain, []Transform{gcm, esn}, []byte{0, 0, 0, 255}, true, proposal.ESP{}, false},
	} {
		offered := SA{Proposals: []Proposal{{Number: 1, Protocol: ProtocolAH, SPI: spi, Transforms: c.transforms},
			{Number: 2, Protocol: ProtocolESP, SPI: c.spi, Transforms: c.transforms}}}
		got, number, ok := ChooseESP([]proposal.ESP{c.own}, offered, c.withGroup)
		if ok != c.ok || got != c.want || ok && number != 2 {
			t.Errorf("%s: chose %+v of proposal %d, %t, want %+v, %t", c.name, got, number, ok, c.want, c.ok)
		}
	}
}

func TestAnswersRepeatNone(t *testing.T) {
	offered := SA{Proposals: []Proposal{{Number: 3, Protocol: ProtocolIKE, Transforms: append(transformsOf(gcm256p384), Transform{Type: TransformIntegrity})}}}
	if got, want := describe(AnswerIKE(gcm256p384, 3, offered, 0)), "3 IKE ENCR=20/256 INTEG=0 PRF=6 KE=20"; got != want {
		t.Errorf("answer is %s, want %s", got, want)
	}
	esp := SA{Proposals: []Proposal{{Number: 2, Protocol: ProtocolESP, SPI: []byte{1, 1, 1, 1}, Transforms: []Transform{
		{Type: TransformEncryption, ID: 20, KeyBits: 256}, {Type: TransformGroup}, {Type: TransformIntegrity}, {Type: TransformESN}}}}}
	plain := espGCM
	plain.Group = proposal.GroupNone
	if got, want := describe(AnswerESP(plain, 2, esp, 256)), "2 ESP ENCR=20/256 INTEG=0 KE=0 ESN=0"; got != want {
		t.Errorf("answer is %s, want %s", got, want)
	}
	// The initiator who did not offer NONE accepts it as well, for it means the same.
	if _, _, err := AcceptIKE([]proposal.IKE{gcm256p384}, AnswerIKE(gcm256p384, 1, SA{Proposals: []Proposal{{Number: 1, Transforms: []Transform{{Type: TransformIntegrity}}}}}, 0), false); err != nil {
		t.Error(err)
	}
}

func TestAcceptRefuses(t *testing.T) {
	own := []proposal.IKE{gcm256x25519, gcm256p384, cbcMODP}
	good := AnswerIKE(gcm256p384, 1, SA{}, 0)
	if got, _, err := AcceptIKE(own, good, false); err != nil || got != gcm256p384 {
		t.Fatalf("accepted %+v with error %v", got, err)
	}
	change := func(f func(*Proposal)) SA {
		p := good.Proposals[0]
		p.Transforms = slices.Clone(p.Transforms)
		f(&p)
		return SA{Proposals: []Proposal{p}}
	}
	for name, c := range map[string]struct {
		answer SA
		rekey  bool
	}{
		"no proposal":                {SA{}, false},
		"two proposals":              {SA{Proposals: []Proposal{good.Proposals[0], good.Proposals[0]}}, false},
		"number 0":                   {change(func(p *Proposal) { p.Number = 0 }), false},
		"a number beyond the offers": {change(func(p *Proposal) { p.Number = 3 }), false},
		"the number of another":      {change(func(p *Proposal) { p.Number = 2 }), false},
		"another protocol":           {change(func(p *Proposal) { p.Protocol = ProtocolESP }), false},
		"an SPI in IKE_SA_INIT":      {change(func(p *Proposal) { p.SPI = make([]byte, 8) }), false},
		"no SPI in a rekey":          {good, true},
		"SPI zero in a rekey":        {change(func(p *Proposal) { p.SPI = make([]byte, 8) }), true},
		"two groups":                 {change(func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformGroup, ID: 31}) }), false},
		"the same group twice":       {change(func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformGroup, ID: 20}) }), false},
		"a group that is not ours":   {change(func(p *Proposal) { p.Transforms[2].ID = 19 }), false},
		"a shorter key":              {change(func(p *Proposal) { p.Transforms[0].KeyBits = 128 }), false},
		"no PRF":                     {change(func(p *Proposal) { p.Transforms = slices.Delete(p.Transforms, 1, 2) }), false},
		"an added type":              {change(func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: 13}) }), false},
		"an added key exchange":      {change(func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: 6, ID: 36}) }), false},
		"an added attribute":         {change(func(p *Proposal) { p.Transforms[0].Other = []Attribute{{Type: 15}} }), false},
	} {
		var e *Error
		if got, _, err := AcceptIKE(own, c.answer, c.rekey); !errors.As(err, &e) || e.Notify != NotifyNoProposalChosen {
			t.Errorf("%s gives %+v with error %v", name, got, err)
		}
	}
	esp := AnswerESP(espCBC, 2, SA{}, 0x01020304)
	if got, spi, err := AcceptESP([]proposal.ESP{espGCM, espCBC}, esp, true); err != nil || got != espCBC || spi != 0x01020304 {
		t.Fatalf("accepted %+v, %s with error %v", got, spi, err)
	}
	for name, f := range map[string]func(*Proposal){
		"a reserved SPI":       func(p *Proposal) { p.SPI = []byte{0, 0, 0, 1} },
		"a long SPI":           func(p *Proposal) { p.SPI = make([]byte, 8) },
		"no integrity":         func(p *Proposal) { p.Transforms = slices.Delete(p.Transforms, 1, 2) },
		"both kinds of number": func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformESN, ID: ESNYes}) },
		"no kind of number":    func(p *Proposal) { p.Transforms = p.Transforms[:2] },
		"the other's number":   func(p *Proposal) { p.Number = 1 },
		"a far number":         func(p *Proposal) { p.Number = 9 },
		"a group":              func(p *Proposal) { p.Transforms = append(p.Transforms, Transform{Type: TransformGroup, ID: 31}) },
	} {
		p := esp.Proposals[0]
		p.Transforms = slices.Clone(p.Transforms)
		f(&p)
		var e *Error
		if got, _, err := AcceptESP([]proposal.ESP{espGCM, espCBC}, SA{Proposals: []Proposal{p}}, true); !errors.As(err, &e) || e.Notify != NotifyNoProposalChosen {
			t.Errorf("%s gives %+v with error %v", name, got, err)
		}
	}
	// A responder that leaves the key exchange out has not chosen what was offered.
	plain := espGCM
	plain.Group = proposal.GroupNone
	if got, _, err := AcceptESP([]proposal.ESP{espGCM}, AnswerESP(plain, 1, SA{}, 256), true); err == nil {
		t.Errorf("accepted %+v without the key exchange that was offered", got)
	}
}

func genIKE(t *rapid.T) []proposal.IKE {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) proposal.IKE {
		o := proposal.IKE{
			Encryption: rapid.SampledFrom([]proposal.Encryption{proposal.EncrAESGCM16, proposal.EncrAESCBC, proposal.EncrChaCha20Poly1305}).Draw(t, "encryption"),
			PRF:        rapid.SampledFrom([]proposal.PRF{proposal.PRFHMACSHA256, proposal.PRFHMACSHA384}).Draw(t, "prf"),
			Group:      rapid.SampledFrom([]proposal.Group{proposal.GroupX25519, proposal.GroupECP256, proposal.GroupMODP2048}).Draw(t, "group"),
		}
		if o.Encryption != proposal.EncrChaCha20Poly1305 {
			o.KeyBits = rapid.SampledFrom([]uint16{128, 256}).Draw(t, "bits")
		}
		if !o.Encryption.AEAD() {
			o.Integrity = rapid.SampledFrom([]proposal.Integrity{proposal.IntegHMACSHA256128, proposal.IntegHMACSHA512256}).Draw(t, "integrity")
		}
		return o
	}), 0, 12).Draw(t, "offers")
}

// expressed lists every combination that a peer may read out of proposals.
func expressed(p SA) []proposal.IKE {
	var all []proposal.IKE
	pick := func(list []Transform, kind TransformType) []Transform {
		found := slices.DeleteFunc(slices.Clone(list), func(t Transform) bool { return t.Type != kind })
		if len(found) == 0 {
			return []Transform{{}}
		}
		return found
	}
	for _, prop := range p.Proposals {
		for _, e := range pick(prop.Transforms, TransformEncryption) {
			for _, i := range pick(prop.Transforms, TransformIntegrity) {
				for _, f := range pick(prop.Transforms, TransformPRF) {
					for _, g := range pick(prop.Transforms, TransformGroup) {
						all = append(all, proposal.IKE{Encryption: proposal.Encryption(e.ID), KeyBits: e.KeyBits,
							Integrity: proposal.Integrity(i.ID), PRF: proposal.PRF(f.ID), Group: proposal.Group(g.ID)})
					}
				}
			}
		}
	}
	return all
}

// TestNegotiationIsExact is invariant I8 of the engine: what is offered is exactly the policy, what is chosen is the
// responder's best that both have, and both sides read the same out of the answer.
func TestNegotiationIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i, r := genIKE(t), genIKE(t)
		spi := SPI(rapid.Uint64().Draw(t, "spi"))
		offered := SAFromIKE(i, spi)
		all := expressed(offered)
		for _, o := range i {
			if !slices.Contains(all, o) {
				t.Fatalf("offer %+v is missing in\n%s", o, describe(offered))
			}
		}
		for _, o := range all {
			if !slices.Contains(i, o) {
				t.Fatalf("%+v was never meant:\n%s", o, describe(offered))
			}
		}
		want, common := proposal.IKE{}, false
		for _, o := range r {
			if slices.Contains(i, o) {
				want, common = o, true
				break
			}
		}
		chosen, number, ok := ChooseIKE(r, offered)
		if ok != common || chosen != want {
			t.Fatalf("chose %+v, %t, want %+v, %t", chosen, ok, want, common)
		}
		if !ok {
			return
		}
		answer := AnswerIKE(chosen, number, offered, spi)
		got, peer, err := AcceptIKE(i, answer, spi != 0)
		if err != nil || got != chosen || peer != spi {
			t.Fatalf("accepted %+v with SPI %s and error %v, want %+v with %s", got, peer, err, chosen, spi)
		}
		if back, ok := offered.OfferedIKESPI(number); ok != (spi != 0) || back != spi {
			t.Fatalf("the offered SPI is %s, %t", back, ok)
		}
	})
}

func TestESPNegotiationIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := func() []proposal.ESP {
			var list []proposal.ESP
			for _, o := range genIKE(t) {
				e := proposal.ESP{Encryption: o.Encryption, KeyBits: o.KeyBits, Integrity: o.Integrity, Group: o.Group}
				if o.PRF == proposal.PRFHMACSHA384 {
					e.Group = proposal.GroupNone
				}
				list = append(list, e)
			}
			return list
		}
		i, r, withGroup := gen(), gen(), rapid.Bool().Draw(t, "withGroup")
		spi := sa.SPI(rapid.Uint32Range(256, 0xffffffff).Draw(t, "spi"))
		offered := SAFromESP(i, spi, withGroup)
		strip := func(o proposal.ESP) proposal.ESP {
			if !withGroup {
				o.Group = proposal.GroupNone
			}
			return o
		}
		want, common := proposal.ESP{}, false
		for _, o := range r {
			if slices.ContainsFunc(i, func(p proposal.ESP) bool { return strip(p) == strip(o) }) {
				want, common = strip(o), true
				want.ESN = true
				break
			}
		}
		chosen, number, ok := ChooseESP(r, offered, withGroup)
		if ok != common || chosen != want {
			t.Fatalf("chose %+v, %t, want %+v, %t", chosen, ok, want, common)
		}
		if !ok {
			return
		}
		got, peer, err := AcceptESP(i, AnswerESP(chosen, number, offered, spi), withGroup)
		if err != nil || got != chosen || peer != spi {
			t.Fatalf("accepted %+v with SPI %s and error %v, want %+v with %s", got, peer, err, chosen, spi)
		}
		if back, ok := offered.OfferedSPI(number); !ok || back != spi {
			t.Fatalf("the offered SPI is %s, %t", back, ok)
		}
	})
	if _, ok := (SA{}).OfferedSPI(1); ok {
		t.Error("an SPI in nothing")
	}
	if _, ok := (SA{}).OfferedIKESPI(1); ok {
		t.Error("an SPI in nothing")
	}
}
