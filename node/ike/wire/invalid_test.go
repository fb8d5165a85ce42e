package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/sa"
)

// raw is one payload with its generic header.
func raw(next PayloadType, body ...byte) []byte {
	b := []byte{byte(next), 0, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(len(body)+4))
	return append(b, body...)
}

func hexed(t testing.TB, s string) []byte { return unhex(t, strings.ReplaceAll(s, " ", "")) }

// TestInvalidPayloads holds one row for every check of the parser; none of them may be dropped unnoticed.
func TestInvalidPayloads(t *testing.T) {
	for _, c := range []struct {
		name   string
		first  PayloadType
		bytes  string // without the generic header unless chain
		chain  bool
		notify NotifyType
		offset int
		detail string
	}{
		{"octets without payload", NoNextPayload, "00", true, NotifyInvalidSyntax, 0, "1 octets behind the last payload"},
		{"payload without octets", TypeNonce, "", true, NotifyInvalidSyntax, 0, "0 octets left for the generic header"},
		{"half a generic header", TypeNonce, "000000", true, NotifyInvalidSyntax, 0, "3 octets left"},
		{"length 0", TypeVendorID, "2b000000", true, NotifyInvalidSyntax, 2, "length 0"},
		{"length 3", TypeVendorID, "2b000003", true, NotifyInvalidSyntax, 2, "length 3"},
		{"length beyond the end", TypeVendorID, "00000005", true, NotifyInvalidSyntax, 2, "length 5 with 4 octets left"},
		{"length of everything", TypeVendorID, "0000ffff", true, NotifyInvalidSyntax, 2, "length 65535"},
		{"chain that goes on", TypeVendorID, "2b000004", true, NotifyInvalidSyntax, 4, "0 octets left for the generic header"},
		{"SK inside", TypeSK, "", false, NotifyInvalidSyntax, 0, "SK payload inside"},
		{"SKF inside", TypeSKF, "00010001", false, NotifyInvalidSyntax, 0, "SKF payload inside"},

		{"SA without proposal", TypeSA, "", false, NotifyInvalidSyntax, 4, "proposal: 0 octets left"},
		{"SA with half a proposal", TypeSA, "00000008010100", false, NotifyInvalidSyntax, 4, "proposal: 7 octets left"},
		{"proposal of length 7", TypeSA, "0000000701010000", false, NotifyInvalidSyntax, 4, "proposal of 7 octets"},
		{"proposal beyond the end", TypeSA, "0000000901010000", false, NotifyInvalidSyntax, 4, "proposal of 9 octets"},
		{"proposal with octet 1", TypeSA, "0100000801010000", false, NotifyInvalidSyntax, 4, "last substructure octet 1"},
		{"last proposal says more", TypeSA, "0200000801010000", false, NotifyInvalidSyntax, 4, "octet 2 with 0 octets behind"},
		{"last proposal is not the last", TypeSA, "0000000801010000 0000000802010000", false, NotifyInvalidSyntax, 4, "octet 0 with 8 octets behind"},
		{"proposal number 0", TypeSA, "0000000800010000", false, NotifyInvalidSyntax, 8, "proposal number 0"},
		{"proposal number twice", TypeSA, "0200000801010000 0000000801010000", false, NotifyInvalidSyntax, 16, "proposal number 1"},
		{"proposal numbers descend", TypeSA, "0200000802010000 0000000801010000", false, NotifyInvalidSyntax, 16, "proposal number 1"},
		{"SPI beyond the proposal", TypeSA, "0000000c01030500 01020304", false, NotifyInvalidSyntax, 4, "SPI of 5 octets"},
		{"SPI of 255 octets", TypeSA, "000000080103ff00", false, NotifyInvalidSyntax, 4, "SPI of 255 octets"},
		{"transform count without transforms", TypeSA, "0000000801010001", false, NotifyInvalidSyntax, 12, "transform 1 of 1"},
		{"transform of length 7", TypeSA, "0000001001010001 0000000701000014", false, NotifyInvalidSyntax, 12, "transform of 7 octets"},
		{"transform beyond the end", TypeSA, "0000001001010001 0000000901000014", false, NotifyInvalidSyntax, 12, "transform of 9 octets"},
		{"last transform says more", TypeSA, "0000001001010001 0300000801000014", false, NotifyInvalidSyntax, 12, "last substructure octet 3"},
		{"first transform says last", TypeSA, "0000001801010002 0000000801000014 0000000802000005", false, NotifyInvalidSyntax, 12, "last substructure octet 0"},
		{"octets behind the transforms", TypeSA, "0000001101010001 0000000801000014 00", false, NotifyInvalidSyntax, 20, "1 octets behind the last transform"},
		{"65 transforms", TypeSA, "0000000801010041", false, NotifyInvalidSyntax, 4, "more than 64 transforms"},
		{"half an attribute", TypeSA, "0000001301010001 0000000b01000014 800e01", false, NotifyInvalidSyntax, 20, "3 octets left for an attribute"},
		{"attribute beyond the end", TypeSA, "0000001401010001 0000000c01000014 000f0001", false, NotifyInvalidSyntax, 20, "attribute 15 of 1 octets"},

		{"KE without data", TypeKE, "00130000", false, NotifyInvalidSyntax, 4, "KE payload: 4 octets"},
		{"IDi of 3 octets", TypeIDi, "020000", false, NotifyInvalidSyntax, 4, "IDi payload: 3 octets"},
		{"IDr without data", TypeIDr, "02000000", false, NotifyInvalidSyntax, 4, "empty ID_FQDN"},
		{"IPv4 address of 5 octets", TypeIDi, "01000000 c000020100", false, NotifyInvalidSyntax, 4, "ID_IPV4_ADDR with 5 octets"},
		{"IPv6 address of 4 octets", TypeIDi, "05000000 c0000201", false, NotifyInvalidSyntax, 4, "ID_IPV6_ADDR with 4 octets"},
		{"CERT without data", TypeCert, "04", false, NotifyInvalidSyntax, 4, "CERT payload: 1 octets"},
		{"empty CERTREQ", TypeCertReq, "", false, NotifyInvalidSyntax, 4, "CERTREQ payload: 0 octets"},
		{"AUTH without data", TypeAuth, "02000000", false, NotifyInvalidSyntax, 4, "AUTH payload: 4 octets"},
		{"nonce of 15 octets", TypeNonce, strings.Repeat("00", 15), false, NotifyInvalidSyntax, 4, "nonce of 15 octets"},
		{"nonce of 257 octets", TypeNonce, strings.Repeat("00", 257), false, NotifyInvalidSyntax, 4, "nonce of 257 octets"},
		{"N of 3 octets", TypeNotify, "010040", false, NotifyInvalidSyntax, 4, "N payload: 3 octets"},
		{"N with an SPI beyond the end", TypeNotify, "03044009 010203", false, NotifyInvalidSyntax, 4, "at least 8 needed"},
		{"N with an SPI of 255", TypeNotify, "03ff4009", false, NotifyInvalidSyntax, 4, "at least 259 needed"},
		{"D of 3 octets", TypeDelete, "010000", false, NotifyInvalidSyntax, 4, "D payload: 3 octets"},
		{"D of IKE with an SPI", TypeDelete, "01080001 0102030405060708", false, NotifyInvalidSyntax, 4, "IKE with 1 SPIs of 8 octets"},
		{"D of IKE with a count", TypeDelete, "01000001", false, NotifyInvalidSyntax, 4, "IKE with 1 SPIs of 0 octets"},
		{"D of ESP with SPIs of 8", TypeDelete, "03080001 0102030405060708", false, NotifyInvalidSyntax, 4, "ESP with 1 SPIs of 8 octets"},
		{"D of ESP without SPI size", TypeDelete, "03000000", false, NotifyInvalidSyntax, 4, "ESP with 0 SPIs of 0 octets"},
		{"D of nothing", TypeDelete, "00040000", false, NotifyInvalidSyntax, 4, "none with 0 SPIs"},
		{"D with too few SPIs", TypeDelete, "03040002 01020304", false, NotifyInvalidSyntax, 4, "4 octets for 2 SPIs"},
		{"D with too many SPIs", TypeDelete, "03040001 0102030401020304", false, NotifyInvalidSyntax, 4, "8 octets for 1 SPIs"},
		{"D with 65535 SPIs", TypeDelete, "0304ffff", false, NotifyInvalidSyntax, 4, "0 octets for 65535 SPIs"},
		{"TSi of 3 octets", TypeTSi, "000000", false, NotifyInvalidSyntax, 4, "TSi payload: 3 octets"},
		{"TSr without selectors", TypeTSr, "00000000", false, NotifyInvalidSyntax, 4, "TSr payload: 0 selectors"},
		{"129 selectors", TypeTSi, "81000000", false, NotifyInvalidSyntax, 4, "129 selectors"},
		{"half a selector", TypeTSi, "01000000 070000", false, NotifyInvalidSyntax, 8, "3 octets left for a selector"},
		{"selector of length 3", TypeTSi, "01000000 07000003", false, NotifyInvalidSyntax, 8, "selector of 3 octets"},
		{"selector beyond the end", TypeTSi, "01000000 07000010", false, NotifyInvalidSyntax, 8, "selector of 16 octets"},
		{"IPv4 selector of 40 octets", TypeTSi, "01000000 07000028" + strings.Repeat("00", 36), false, NotifyInvalidSyntax, 8, "type 7 with 40 octets"},
		{"IPv6 selector of 16 octets", TypeTSi, "01000000 08000010" + strings.Repeat("00", 12), false, NotifyInvalidSyntax, 8, "type 8 with 16 octets"},
		{"selector from high to low", TypeTSi, "01000000 07000010 0000ffff 0a000002 0a000001", false, NotifyInvalidSyntax, 8, "from 10.0.0.2 to 10.0.0.1"},
		{"ports from high to low", TypeTSi, "01000000 07000010 00500035 0a000001 0a000002", false, NotifyInvalidSyntax, 8, "ports 80 to 53"},
		{"ports almost opaque", TypeTSi, "01000000 07000010 ffff0001 0a000001 0a000002", false, NotifyInvalidSyntax, 8, "ports 65535 to 1"},
		{"octets behind the selectors", TypeTSi, "01000000 07000010 0000ffff 0a000001 0a000002 00", false, NotifyInvalidSyntax, 24, "1 octets behind the last selector"},
		{"CP of 3 octets", TypeConfig, "010000", false, NotifyInvalidSyntax, 4, "CP payload: 3 octets"},
		{"half a CP attribute", TypeConfig, "01000000 000100", false, NotifyInvalidSyntax, 8, "3 octets left"},
		{"CP attribute beyond the end", TypeConfig, "01000000 00010001", false, NotifyInvalidSyntax, 8, "CP attribute 1: length 1 with 0"},
		{"EAP of 3 octets", TypeEAP, "010000", false, NotifyInvalidSyntax, 4, "EAP payload: 3 octets"},
		{"critical unknown payload", 200, "00800004", true, NotifyUnsupportedCriticalPayload, 0, "PAYLOAD(200) has the critical bit"},
	} {
		b := hexed(t, c.bytes)
		if !c.chain {
			b = raw(NoNextPayload, b...)
		}
		got, err := ParsePayloads(c.first, b)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s gives %v and error %v", c.name, got, err)
			continue
		}
		if e.Notify != c.notify || e.Offset != c.offset || !strings.Contains(e.Detail, c.detail) {
			t.Errorf("%s gives %s at %d: %q, want %s at %d: %q", c.name, e.Notify, e.Offset, e.Detail, c.notify, c.offset, c.detail)
		}
		if c.notify == NotifyUnsupportedCriticalPayload && !bytes.Equal(e.Data, []byte{200}) {
			t.Errorf("%s names payload type %x", c.name, e.Data)
		}
	}
}

// TestLimits checks that the limit itself is allowed and one more is not.
func TestLimits(t *testing.T) {
	many := func(n int, p Payload) []Payload {
		var list []Payload
		for range n {
			list = append(list, p)
		}
		return list
	}
	proposals := func(n int) []Payload {
		var p SA
		for i := range n {
			p.Proposals = append(p.Proposals, Proposal{Number: uint8(i + 1)})
		}
		return []Payload{p}
	}
	transforms := func(n int) []Payload {
		return []Payload{SA{Proposals: []Proposal{{Number: 1, Transforms: make([]Transform, n)}}}}
	}
	selectors := func(n int) []Payload {
		ts := TS{}
		for range n {
			ts.Selectors = append(ts.Selectors, anySelector)
		}
		return []Payload{ts}
	}
	for name, c := range map[string]struct{ most, more []Payload }{
		"payloads":   {many(LimitPayloads, VendorID{}), many(LimitPayloads+1, VendorID{})},
		"notifies":   {many(LimitNotifies, Notify{}), many(LimitNotifies+1, Notify{})},
		"proposals":  {proposals(LimitProposals), proposals(LimitProposals + 1)},
		"transforms": {transforms(LimitTransforms), transforms(LimitTransforms + 1)},
		"selectors":  {selectors(LimitSelectors), selectors(LimitSelectors + 1)},
	} {
		if _, err := ParsePayloads(First(c.most), AppendPayloads(nil, c.most)); err != nil {
			t.Errorf("the limit of %s itself gives %v", name, err)
		}
		var e *Error
		if _, err := ParsePayloads(First(c.more), AppendPayloads(nil, c.more)); !errors.As(err, &e) || e.Notify != NotifyInvalidSyntax {
			t.Errorf("one more than the limit of %s gives %v", name, err)
		}
	}
	if _, err := ParsePayloads(TypeVendorID, make([]byte, LimitAfterAuth+1)); err == nil {
		t.Error("more octets than a message may have parse")
	}
}

var anySelector = func() sa.Selector {
	s, err := parseSelector([]byte{tsIPv4Range, 0, 0, 16, 0, 0, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255}, 0)
	if err != nil {
		panic(err)
	}
	return s
}()

func TestInvalidMessages(t *testing.T) {
	good := AppendMessage(nil, Message{Header: Header{SPIi: 1, Exchange: IKESAInit, Flags: FlagInitiator},
		Payloads: []Payload{Nonce{Data: make([]byte, 16)}}})
	if _, err := ParseMessage(good, LimitBeforeAuth); err != nil {
		t.Fatal(err)
	}
	change := func(at int, v ...byte) []byte {
		b := bytes.Clone(good)
		copy(b[at:], v)
		return b
	}
	protected := func(p Payload, behind ...Payload) []byte {
		b := AppendMessage(nil, Message{Payloads: []Payload{p}})
		b = AppendPayloads(b, behind)
		binary.BigEndian.PutUint32(b[24:], uint32(len(b)))
		return b
	}
	for _, c := range []struct {
		name   string
		bytes  []byte
		limit  int
		notify NotifyType
		offset int
		detail string
	}{
		{"nothing", nil, LimitBeforeAuth, 0, 0, "0 octets are less than an IKE header"},
		{"27 octets", good[:27], LimitBeforeAuth, 0, 27, "27 octets"},
		{"more than the limit", good, len(good) - 1, 0, 0, "exceed the limit"},
		{"major version 3", change(17, 0x30), LimitBeforeAuth, NotifyInvalidMajorVersion, 17, "major version 3"},
		{"major version 15", change(17, 0xff), LimitBeforeAuth, NotifyInvalidMajorVersion, 17, "major version 15"},
		{"IKEv1", change(17, 0x10), LimitBeforeAuth, 0, 17, "major version 1"},
		{"version 0", change(17, 0), LimitBeforeAuth, 0, 17, "major version 0"},
		{"length one less", change(24, 0, 0, 0, byte(len(good)-1)), LimitBeforeAuth, 0, 24, "length field"},
		{"length one more", change(24, 0, 0, 0, byte(len(good)+1)), LimitBeforeAuth, 0, 24, "length field"},
		{"length of everything", change(24, 255, 255, 255, 255), LimitBeforeAuth, 0, 24, "length field 4294967295"},
		{"no payload named", change(16, 0), LimitBeforeAuth, NotifyInvalidSyntax, 28, "20 octets behind the last payload"},
		{"critical payload", change(16, 99, 0x20, 34, 8, 0, 0, 0, 0, 0, 0, 0, 48, 0, 0x80), LimitBeforeAuth, NotifyUnsupportedCriticalPayload, 28, "PAYLOAD(99)"},
		{"payload behind SK", protected(Encrypted{Next: TypeIDi}, VendorID{}), LimitBeforeAuth, NotifyInvalidSyntax, 32, "4 octets behind the SK"},
		{"payload behind SKF", protected(Fragment{Number: 1, Total: 1}, VendorID{}), LimitBeforeAuth, NotifyInvalidSyntax, 36, "4 octets behind the SKF"},
		{"short SKF", protected(Unknown{Type: TypeSKF, Body: []byte{0, 1, 0}}), LimitBeforeAuth, NotifyInvalidSyntax, 32, "3 octets left for the fragment"},
		{"fragment 0", protected(Fragment{Number: 0, Total: 1}), LimitBeforeAuth, 0, 32, "fragment 0 of 1"},
		{"fragment 3 of 2", protected(Fragment{Number: 3, Total: 2}), LimitBeforeAuth, 0, 32, "fragment 3 of 2"},
		{"second fragment names a payload", protected(Fragment{Next: TypeIDi, Number: 2, Total: 2}), LimitBeforeAuth, 0, 28, "names next payload IDi"},
	} {
		m, err := ParseMessage(c.bytes, c.limit)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%s gives %s and error %v", c.name, m, err)
			continue
		}
		if e.Notify != c.notify || e.Offset != c.offset || !strings.Contains(e.Detail, c.detail) {
			t.Errorf("%s gives %s at %d: %q, want %s at %d: %q", c.name, e.Notify, e.Offset, e.Detail, c.notify, c.offset, c.detail)
		}
		if text := e.Error(); !strings.Contains(text, e.Detail) || (e.Notify == 0) != strings.HasPrefix(text, "drop ") {
			t.Errorf("%s: the error reads %q", c.name, text)
		}
		if len(m.Payloads) != 0 {
			t.Errorf("%s gives payloads beside its error", c.name)
		}
	}
	// An answer to a broken payload needs the header.
	if m, _ := ParseMessage(change(16, 0), LimitBeforeAuth); m.Header.SPIi != 1 {
		t.Errorf("the header of a broken message is %+v", m.Header)
	}
	// A later minor version is not an error (RFC 7296 2.5), nor is the critical bit on a payload that is known.
	for name, b := range map[string][]byte{"version 2.15": change(17, 0x2f), "critical nonce": change(29, 0x80)} {
		if _, err := ParseMessage(b, LimitBeforeAuth); err != nil {
			t.Errorf("%s gives %v", name, err)
		}
	}
}

// TestUnknownAttributes checks what makes a transform one that cannot be chosen.
func TestUnknownAttributes(t *testing.T) {
	for name, c := range map[string]struct {
		attributes string
		bits       uint16
		other      int
	}{
		"key length":           {"800e0100", 256, 0},
		"key length twice":     {"800e0100800e0080", 256, 1},
		"key length 0":         {"800e0000", 0, 1},
		"key length in long":   {"000e00020100", 0, 1},
		"unknown short":        {"800f0001", 0, 1},
		"unknown long":         {"000f000501020304ff", 0, 1},
		"unknown empty":        {"000f0000", 0, 1},
		"unknown before known": {"800f0001800e0080", 128, 1},
	} {
		b := append([]byte{0, 0, 0, 0, 1, 0, 0, 12}, hexed(t, c.attributes)...)
		tr, err := parseTransform(b, 0)
		if err != nil || tr.KeyBits != c.bits || len(tr.Other) != c.other {
			t.Errorf("%s gives %+v with error %v", name, tr, err)
		}
	}
}

func TestNamesAreDistinct(t *testing.T) {
	// Every named value has a name of its own, and values without one print their number.
	check := func(kind string, names []string) {
		seen := map[string]int{}
		for i, n := range names {
			if j, ok := seen[n]; ok {
				t.Errorf("%s %d and %d are both %q", kind, j, i, n)
			}
			seen[n] = i
		}
	}
	var exchange, payload, id, auth, cert, config, protocol, transform []string
	for v := range math.MaxUint8 + 1 {
		exchange = append(exchange, ExchangeType(v).String())
		payload = append(payload, PayloadType(v).String())
		id = append(id, IDType(v).String())
		auth = append(auth, AuthMethod(v).String())
		cert = append(cert, CertEncoding(v).String())
		config = append(config, ConfigType(v).String())
		protocol = append(protocol, Protocol(v).String())
		transform = append(transform, TransformType(v).String())
	}
	var notify, hash []string
	for v := range math.MaxUint16 + 1 {
		notify = append(notify, NotifyType(v).String())
		hash = append(hash, HashAlgorithm(v).String())
	}
	for kind, names := range map[string][]string{"exchange": exchange, "payload": payload, "id": id, "auth": auth, "cert": cert,
		"config": config, "protocol": protocol, "transform": transform, "notify": notify, "hash": hash} {
		check(kind, names)
	}
	if !NotifyInvalidSyntax.IsError() || NotifyInitialContact.IsError() {
		t.Error("errors and states are mixed up")
	}
}
