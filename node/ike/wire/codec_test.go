package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// recorded is one datagram of a strongSwan conversation with what it protects.
type recorded struct {
	session   string
	datagram  []byte
	first     PayloadType // of plaintext
	plaintext []byte      // of SK; nil for SKF and for messages that are not protected
	types     []PayloadType
}

func loadRecorded(t testing.TB, pattern string) []recorded {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no recorded sessions at %s: %v", pattern, err)
	}
	var list []recorded
	for _, path := range paths {
		if strings.HasPrefix(filepath.Base(path), "ikev1-") {
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var s struct {
			Packets []struct {
				Kind, Hex    string
				Plaintext    *string
				FirstPayload PayloadType `json:"first_payload"`
				PayloadTypes []uint8     `json:"payload_types"`
				Fragment     []uint16
			}
		}
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, p := range s.Packets {
			if p.Kind != "ike" {
				continue
			}
			r := recorded{session: filepath.Base(path), datagram: unhex(t, p.Hex), first: p.FirstPayload}
			if p.Plaintext != nil && p.Fragment == nil {
				r.plaintext = append([]byte{}, unhex(t, *p.Plaintext)...)
			}
			for _, v := range p.PayloadTypes {
				r.types = append(r.types, PayloadType(v))
			}
			list = append(list, r)
		}
	}
	return list
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The sessions lie beside node/ike/suite, which needs their keys too.
const sessions = "../suite/testdata/recorded/*.json"

func TestRecordedMessages(t *testing.T) { checkRecorded(t, loadRecorded(t, sessions)) }

func TestAllRecordedMessages(t *testing.T) {
	dir := vectortest.Dir(t)
	checkRecorded(t, loadRecorded(t, filepath.Join(dir, "recorded", "*.json")))
}

// checkRecorded parses what charon sent and writes it again, octet by octet.
func checkRecorded(t *testing.T, list []recorded) {
	t.Helper()
	for n, r := range list {
		m, err := ParseMessage(r.datagram, LimitAfterAuth)
		if err != nil {
			t.Errorf("%s, message %d: %v", r.session, n, err)
			continue
		}
		if got := AppendMessage(nil, m); !bytes.Equal(got, r.datagram) {
			t.Errorf("%s, %s: written as %x, want %x", r.session, m, got, r.datagram)
		}
		payloads := m.Payloads
		if r.plaintext != nil {
			payloads, err = ParsePayloads(r.first, r.plaintext)
			if err != nil {
				t.Errorf("%s, inside %s: %v", r.session, m, err)
				continue
			}
			if got := AppendPayloads(nil, payloads); !bytes.Equal(got, r.plaintext) {
				t.Errorf("%s, inside %s: written as %x, want %x", r.session, m, got, r.plaintext)
			}
		}
		var types []PayloadType
		for _, p := range payloads {
			types = append(types, p.PayloadType())
		}
		if _, fragment := lastOf(m.Payloads).(Fragment); !fragment && !slices.Equal(types, r.types) {
			t.Errorf("%s, %s: payloads %v, want %v", r.session, m, types, r.types)
		}
	}
}

func lastOf(p []Payload) Payload {
	if len(p) == 0 {
		return nil
	}
	return p[len(p)-1]
}

// TestMessageString fixes the form that traces and golden tests of other packages rely on.
func TestMessageString(t *testing.T) {
	var got []string
	for _, r := range loadRecorded(t, "../suite/testdata/recorded/rsa2048-pss-sha512.json") {
		m, err := ParseMessage(r.datagram, LimitAfterAuth)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, m.String())
	}
	want := []string{
		"IKE_SA_INIT request 0 SA KE Nonce N(NAT_DETECTION_SOURCE_IP) N(NAT_DETECTION_DESTINATION_IP) N(IKEV2_FRAGMENTATION_SUPPORTED) N(SIGNATURE_HASH_ALGORITHMS) N(REDIRECT_SUPPORTED)",
		"IKE_SA_INIT response 0 SA KE Nonce N(NAT_DETECTION_SOURCE_IP) N(NAT_DETECTION_DESTINATION_IP) CERTREQ N(IKEV2_FRAGMENTATION_SUPPORTED) N(SIGNATURE_HASH_ALGORITHMS) N(CHILDLESS_IKEV2_SUPPORTED) N(MULTIPLE_AUTH_SUPPORTED)",
		"IKE_AUTH request 1 SKF(1/2)", "IKE_AUTH request 1 SKF(2/2)", "IKE_AUTH response 1 SKF(1/2)", "IKE_AUTH response 1 SKF(2/2)",
		"INFORMATIONAL request 2 SK", "INFORMATIONAL response 2 SK",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("trace form changed (-want +got):\n%s", diff)
	}
	m := Message{Header: Header{Exchange: 99, MessageID: 3}, Payloads: []Payload{
		ID{}, ID{Responder: true}, Cert{}, Auth{}, Delete{Protocol: ProtocolESP}, VendorID{}, TS{}, TS{Responder: true}, Config{}, EAP{},
		Notify{Type: 12345}, Unknown{Type: 77},
	}}
	if got, want := m.String(), "EXCHANGE(99) request 3 IDi IDr CERT AUTH D(ESP) V TSi TSr CP EAP N(NOTIFY(12345)) PAYLOAD(77)"; got != want {
		t.Errorf("trace form is %q, want %q", got, want)
	}
}

// genPayload draws any payload that may stand inside SK.
func genPayload(t *rapid.T) Payload {
	data := func(least, most int) []byte {
		return rapid.SliceOfN(rapid.Byte(), least, most).Draw(t, "data")
	}
	u8, u16 := rapid.Byte(), rapid.Uint16()
	flag := rapid.Bool().Draw(t, "responder")
	switch rapid.IntRange(0, 13).Draw(t, "kind") {
	case 0:
		return genSA(t)
	case 1:
		return KE{Group: proposal.Group(u16.Draw(t, "group")), Data: data(1, 80)}
	case 2:
		return ID{Responder: flag, Type: IDFQDN, Reserved: [3]byte(data(3, 3)), Data: data(1, 40)}
	case 3:
		return Cert{Encoding: CertEncoding(u8.Draw(t, "encoding")), Data: data(1, 90)}
	case 4:
		return CertReq{Encoding: CertEncoding(u8.Draw(t, "encoding")), Data: data(0, 60)}
	case 5:
		return Auth{Method: AuthMethod(u8.Draw(t, "method")), Data: data(1, 90)}
	case 6:
		return Nonce{Data: data(NonceMin, NonceMax)}
	case 7:
		return Notify{Protocol: Protocol(u8.Draw(t, "protocol")), SPI: data(0, 9), Type: NotifyType(u16.Draw(t, "type")), Data: data(0, 30)}
	case 8:
		if flag {
			return Delete{Protocol: ProtocolIKE}
		}
		var spis []sa.SPI
		for _, v := range rapid.SliceOfN(rapid.Uint32(), 0, 5).Draw(t, "spis") {
			spis = append(spis, sa.SPI(v))
		}
		return Delete{Protocol: rapid.SampledFrom([]Protocol{ProtocolESP, ProtocolAH}).Draw(t, "protocol"), SPIs: spis}
	case 9:
		return VendorID{Data: data(0, 30)}
	case 10:
		return genTS(t, flag)
	case 11:
		var attributes []ConfigAttribute
		for range rapid.IntRange(0, 4).Draw(t, "attributes") {
			attributes = append(attributes, ConfigAttribute{Type: u16.Draw(t, "type") & 0x7fff, Value: data(0, 17)})
		}
		return Config{Type: ConfigType(u8.Draw(t, "type")), Attributes: attributes}
	case 12:
		return EAP{Message: data(4, 30)}
	}
	return Unknown{Type: PayloadType(rapid.ByteRange(54, 255).Draw(t, "type")), Body: data(0, 20)}
}

func genSA(t *rapid.T) SA {
	var p SA
	number := 0
	for range rapid.IntRange(1, 4).Draw(t, "proposals") {
		number += rapid.IntRange(1, 20).Draw(t, "step")
		prop := Proposal{Number: uint8(number), Protocol: Protocol(rapid.Byte().Draw(t, "protocol")),
			SPI: rapid.SliceOfN(rapid.Byte(), 0, 8).Draw(t, "spi")}
		for range rapid.IntRange(0, 6).Draw(t, "transforms") {
			tr := Transform{Type: TransformType(rapid.Byte().Draw(t, "type")), ID: rapid.Uint16().Draw(t, "id"), KeyBits: rapid.Uint16().Draw(t, "bits")}
			for range rapid.IntRange(0, 2).Draw(t, "attributes") {
				a := Attribute{Type: rapid.Uint16Range(15, 0x7fff).Draw(t, "type"), Fixed: rapid.Bool().Draw(t, "fixed")}
				a.Value = rapid.SliceOfN(rapid.Byte(), 2, 2).Draw(t, "value")
				if !a.Fixed {
					a.Value = rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "value")
				}
				tr.Other = append(tr.Other, a)
			}
			prop.Transforms = append(prop.Transforms, tr)
		}
		p.Proposals = append(p.Proposals, prop)
	}
	return p
}

func genTS(t *rapid.T, responder bool) TS {
	p := TS{Responder: responder}
	for range rapid.IntRange(1, 4).Draw(t, "selectors") {
		var from, to netip.Addr
		if rapid.Bool().Draw(t, "v6") {
			from, to = netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "from"))), netip.AddrFrom16([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "to")))
		} else {
			from, to = netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "from"))), netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "to")))
		}
		if to.Less(from) {
			from, to = to, from
		}
		a, b := rapid.Uint16().Draw(t, "port"), rapid.Uint16().Draw(t, "port")
		s := sa.Selector{Protocol: rapid.Byte().Draw(t, "protocol"), From: from, To: to, PortFrom: min(a, b), PortTo: max(a, b)}
		if rapid.IntRange(0, 5).Draw(t, "opaque") == 0 {
			s.PortFrom, s.PortTo = 65535, 0
		}
		p.Selectors = append(p.Selectors, s)
	}
	if rapid.Bool().Draw(t, "label") {
		p.Other = []OtherSelector{{Type: 10, Protocol: 1, Body: rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "label")}}
	}
	return p
}

// same compares values; an empty slice and none are the same thing on the wire.
func same(want, got any) string {
	return cmp.Diff(want, got, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }))
}

func TestPayloadsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var payloads []Payload
		for range rapid.IntRange(0, 12).Draw(t, "payloads") {
			payloads = append(payloads, genPayload(t))
		}
		b := AppendPayloads([]byte("prefix"), payloads)[6:]
		got, err := ParsePayloads(First(payloads), b)
		if err != nil {
			t.Fatalf("parse %x: %v", b, err)
		}
		if diff := same(payloads, got); diff != "" {
			t.Fatalf("payloads change (-want +got):\n%s", diff)
		}
		// No strict prefix is a chain of payloads.
		for n := range b {
			if _, err := ParsePayloads(First(payloads), b[:n]); err == nil {
				t.Fatalf("%d of %d octets parse", n, len(b))
			}
		}
		if _, err := ParsePayloads(First(payloads), append(b, 0)); err == nil {
			t.Fatal("an octet behind the last payload is not noticed")
		}
	})
}

func TestMessageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := Message{Header: Header{
			SPIi: SPI(rapid.Uint64().Draw(t, "spii")), SPIr: SPI(rapid.Uint64().Draw(t, "spir")),
			Version: Version2 + rapid.ByteRange(0, 15).Draw(t, "minor"), Exchange: ExchangeType(rapid.Byte().Draw(t, "exchange")),
			Flags: Flags(rapid.Byte().Draw(t, "flags")), MessageID: rapid.Uint32().Draw(t, "id"),
		}}
		for range rapid.IntRange(0, 5).Draw(t, "payloads") {
			m.Payloads = append(m.Payloads, genPayload(t))
		}
		body := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "body")
		switch rapid.IntRange(0, 2).Draw(t, "protected") {
		case 0:
			m.Payloads = append(m.Payloads, Encrypted{Next: TypeIDi, Body: body})
		case 1:
			total := rapid.Uint16Range(1, 65535).Draw(t, "total")
			f := Fragment{Number: rapid.Uint16Range(1, total).Draw(t, "number"), Total: total, Body: body}
			if f.Number == 1 {
				f.Next = TypeIDi
			}
			m.Payloads = append(m.Payloads, f)
		}
		b := AppendMessage(nil, m)
		got, err := ParseMessage(b, LimitBeforeAuth)
		if err != nil {
			t.Fatalf("parse %x: %v", b, err)
		}
		m.Header.NextPayload, m.Header.Length = First(m.Payloads), uint32(len(b))
		switch p := lastOf(m.Payloads).(type) {
		case Encrypted:
			p.Offset = len(b) - len(body)
			m.Payloads[len(m.Payloads)-1] = p
		case Fragment:
			p.Offset = len(b) - len(body)
			m.Payloads[len(m.Payloads)-1] = p
		}
		if diff := same(m, got); diff != "" {
			t.Fatalf("message changes (-want +got):\n%s", diff)
		}
		for n := HeaderLen; n < len(b); n++ {
			prefix := bytes.Clone(b[:n])
			binary.BigEndian.PutUint32(prefix[24:], uint32(n))
			if _, err := ParseMessage(prefix, LimitBeforeAuth); err == nil {
				t.Fatalf("%d of %d octets parse", n, len(b))
			}
		}
		_ = m.String()
	})
}

func TestFind(t *testing.T) {
	payloads := []Payload{Nonce{Data: []byte{1}}, Notify{Type: NotifyCookie}, Notify{Type: NotifyRekeySA, Data: []byte{2}}}
	if n, ok := FindNotify(payloads, NotifyRekeySA); !ok || !bytes.Equal(n.Data, []byte{2}) {
		t.Errorf("found %+v, %t", n, ok)
	}
	if n, ok := Find[Notify](payloads, nil); !ok || n.Type != NotifyCookie {
		t.Errorf("found %+v, %t", n, ok)
	}
	if _, ok := Find[KE](payloads, nil); ok {
		t.Error("found a KE payload that is not there")
	}
	if _, ok := FindNotify(nil, NotifyCookie); ok {
		t.Error("found a notify in nothing")
	}
}

func TestHashAlgorithms(t *testing.T) {
	list := []HashAlgorithm{HashSHA256, HashSHA384, HashIdentity, 999}
	b := AppendHashAlgorithms(nil, list)
	got, err := ParseHashAlgorithms(b)
	if err != nil || !slices.Equal(got, list) {
		t.Errorf("hashes are %v with error %v, want %v", got, err, list)
	}
	var e *Error
	if _, err := ParseHashAlgorithms(b[1:]); !errors.As(err, &e) || e.Notify != NotifyInvalidSyntax {
		t.Errorf("odd octets give %v", err)
	}
}

func TestIDFromAddr(t *testing.T) {
	for in, want := range map[string]string{"192.0.2.1": "01000000c0000201", "::ffff:192.0.2.1": "01000000c0000201",
		"2001:db8::1": "0500000020010db8000000000000000000000001"} {
		if got := hex.EncodeToString(IDFromAddr(false, netip.MustParseAddr(in)).AppendBody(nil)); got != want {
			t.Errorf("%s is written as %s, want %s", in, got, want)
		}
	}
}
