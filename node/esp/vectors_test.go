package esp

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// suites are those that have a name in testdata/scapy.txt.
var suites = map[string]proposal.ESP{
	"aes-gcm-128":        {Encryption: proposal.EncrAESGCM16, KeyBits: 128},
	"aes-gcm-256":        {Encryption: proposal.EncrAESGCM16, KeyBits: 256},
	"chacha20-poly1305":  {Encryption: proposal.EncrChaCha20Poly1305},
	"aes-cbc-128-sha256": {Encryption: proposal.EncrAESCBC, KeyBits: 128, Integrity: proposal.IntegHMACSHA256128},
	"aes-cbc-256-sha384": {Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA384192},
	"aes-cbc-256-sha512": {Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA512256},
	"aes-gmac-128":       {Encryption: proposal.EncrNullAESGMAC, KeyBits: 128},
	"aes-gmac-256-esn":   {Encryption: proposal.EncrNullAESGMAC, KeyBits: 256, ESN: true},
	"null-sha256":        {Encryption: proposal.EncrNULL, Integrity: proposal.IntegHMACSHA256128},
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	if s == "-" {
		return nil
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("hexadecimal %q: %v", s, err)
	}
	return b
}

// child returns an SA between the addresses of packet whose two directions share their keys, so that what it seals it
// also opens. The endpoints are set so that transport mode rebuilds the header of packet.
func child(t testing.TB, suite proposal.ESP, mode sa.Mode, spi uint32, key, integrity, packet []byte) sa.Child {
	t.Helper()
	source, destination := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	if len(packet) > 0 && packet[0]>>4 == 6 {
		source, destination = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	}
	keys := sa.Keys{SPI: sa.SPI(spi), Encryption: sa.NewSecret(key), Integrity: sa.NewSecret(integrity)}
	return sa.Child{
		Mode: mode, Suite: suite, In: keys, Out: keys,
		Local: netip.AddrPortFrom(destination, 4500), Remote: netip.AddrPortFrom(source, 4500),
	}
}

func newPair(t testing.TB, c sa.Child) (*Outbound, *Inbound) {
	t.Helper()
	out, err := NewOutbound(c)
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewInbound(c)
	if err != nil {
		t.Fatal(err)
	}
	return out, in
}

// upper returns what follows the IP header of a packet without extension headers.
func upper(packet []byte) []byte {
	if packet[0]>>4 == 4 {
		return packet[int(packet[0]&15)*4:]
	}
	return packet[40:]
}

func TestScapyPacketsAreSealedAndOpenedAlike(t *testing.T) {
	file, err := os.Open("testdata/scapy.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	count := 0
	for lines.Scan() {
		count++
		f := strings.Fields(lines.Text())
		suite, ok := suites[f[0]]
		if !ok {
			t.Fatalf("line %d: unknown suite %q", count, f[0])
		}
		suite.ESN = f[2] == "1"
		mode := sa.Transport
		if f[1] == "tunnel" {
			mode = sa.Tunnel
		}
		spi, err := strconv.ParseUint(f[3], 16, 32)
		if err != nil {
			t.Fatalf("line %d: %v", count, err)
		}
		seq, err := strconv.ParseUint(f[4], 10, 64)
		if err != nil {
			t.Fatalf("line %d: %v", count, err)
		}
		packet, want := unhex(t, f[7]), unhex(t, f[8])
		out, in := newPair(t, child(t, suite, mode, uint32(spi), unhex(t, f[5]), unhex(t, f[6]), packet))

		out.sequence.last.Store(seq - 1)
		got, err := out.Seal(nil, packet)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("line %d: seal: got %x, %v, want %x", count, got, err, want)
		}
		if seq > 1 {
			in.window.accept(seq - 1) // the high half does not travel
		}
		buf := append(make([]byte, Headroom), want...)
		opened, err := in.Open(buf, Headroom, len(buf))
		if err != nil {
			t.Errorf("line %d: open: %v", count, err)
			continue
		}
		if opened.Sequence != seq {
			t.Errorf("line %d: open: got sequence number %d, want %d", count, opened.Sequence, seq)
		}
		if mode == sa.Tunnel && !bytes.Equal(opened.Packet, packet) || !bytes.Equal(upper(opened.Packet), upper(packet)) {
			t.Errorf("line %d: open: got %x, want %x", count, opened.Packet, packet)
		}
	}
	if err := lines.Err(); err != nil || count != 280 {
		t.Errorf("got %d lines, %v, want 280", count, err)
	}
}

// RFC 7634, appendix A.
func TestRFC7634Example(t *testing.T) {
	key := unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f a0a1a2a3")
	want := unhex(t, `45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec1000073627
		08090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637`)
	sealed := unhex(t, `01020304 00000005 1011121314151617
		24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7
		2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0
		76aaa8266b7fb0f7b11b369907e1ad43`)
	_, in := newPair(t, child(t, suites["chacha20-poly1305"], sa.Tunnel, 0x01020304, key, nil, nil))
	opened, err := in.Open(sealed, 0, len(sealed))
	if err != nil || !bytes.Equal(opened.Packet, want) || opened.Sequence != 5 {
		t.Errorf("open: got %x, number %d, %v, want %x", opened.Packet, opened.Sequence, err, want)
	}
}

// draft-mcgrew-gcm-test-01, the case with extended sequence numbers.
func TestGCMDraftExampleWithESN(t *testing.T) {
	suite := suites["aes-gcm-128"]
	suite.ESN = true
	keys := sa.Keys{SPI: 0x4321, Encryption: sa.NewSecret(unhex(t, "4c80cdefbb5d10da906ac73c3613a634 2e443b68"))}
	crypt, err := newTransform(suite, keys, false)
	if err != nil {
		t.Fatal(err)
	}
	want := unhex(t, `45000048699a000080114db7c0a80102c0a801010a9bf15638d3010000010000000000000
		45f736970045f756470037369700963796265726369747902646b0000210001 01020201`)
	sealed := unhex(t, `00004321 00000000 4956ed7e3b244cfe
		fecf537e729d5b07dc30df528dd22b768d1b98736696a6fd348509fa13ceac34cfa2436f14a3f3cf65925bf1f4a13c5d
		15b21e1884f5ff6247aeabb786b93bce61bc17d768fd9732 459018148f6cbe722fd04796562dfdb4`)
	got, ok := crypt.open(sealed, 0x8765432100000000)
	if !ok || !bytes.Equal(got, want) {
		t.Errorf("open: got %x, %v, want %x", got, ok, want)
	}
}
