package esp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/bailiwick-net/bailiwick/node/packet"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Packets that Linux made, with every algorithm of this package that it was asked for; the others are refused.
func TestKernelPackets(t *testing.T) {
	var packets []struct {
		Title, Encr, Integ, Key, SPI string
		Seq                          uint32
		ESN                          bool
		ESNHigh                      uint32 `json:"esn_high"`
		Data                         string `json:"data_after_seq"`
	}
	vectortest.Decode(t, "scapy/linux_kernel_esp_packets.json", &packets)
	known := map[string]proposal.Encryption{
		"AES-GCM": proposal.EncrAESGCM16, "AES-NULL-GMAC": proposal.EncrNullAESGMAC, "AES-CBC": proposal.EncrAESCBC,
	}
	opened, refused := 0, 0
	for _, p := range packets {
		t.Run(p.Title, func(t *testing.T) {
			key := unhex(t, p.Key)
			spi, err := strconv.ParseUint(p.SPI, 0, 32)
			if err != nil {
				t.Fatal(err)
			}
			suite := proposal.ESP{Encryption: known[p.Encr], KeyBits: 128, ESN: p.ESN}
			c := child(t, suite, sa.Tunnel, uint32(spi), key, nil, nil)
			in, err := NewInbound(c)
			if !suite.Encryption.AEAD() {
				if !errors.Is(err, ErrSuite) {
					t.Errorf("got %v, want it refused", err)
				}
				refused++
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if p.ESN {
				in.window.accept(uint64(p.ESNHigh) << 32) // the high half does not travel
			}
			esp := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, uint32(spi)), p.Seq)
			esp = append(esp, unhex(t, p.Data)...)
			tampered := slices.Clone(esp)
			tampered[20] ^= 1
			if _, err := in.Open(tampered, 0, len(tampered)); !errors.Is(err, ErrIntegrity) {
				t.Errorf("changed: got %v, want %v", err, ErrIntegrity)
			}
			o, err := in.Open(esp, 0, len(esp))
			if err != nil {
				t.Fatal(err)
			}
			info, err := packet.Parse(o.Packet)
			if err != nil || info.Protocol != packet.ProtocolICMP || packet.Sum(o.Packet[info.HeaderLen:], 0) != 0xffff {
				t.Errorf("got %x: %+v, %v", o.Packet, info, err)
			}
			opened++
		})
	}
	if opened != 4 || refused != 7 {
		t.Errorf("%d packets opened and %d refused, want 4 and 7", opened, refused)
	}
}

// draft-mcgrew-gcm-test-01: AES-GCM in ESP with keys of every length, with and without extended sequence numbers.
func TestGCMDraft(t *testing.T) {
	var file struct {
		Cases []struct {
			Case                                            int
			Key, Salt, IV, AAD, SPI, Plain, Ciphertext, ICV string
			ESN                                             bool
			High                                            string `json:"seq_hi"`
			Low                                             string `json:"seq_lo"`
			Trailed                                         string `json:"plaintext_with_trailer"`
		}
	}
	vectortest.Decode(t, "rfc/draft-mcgrew-gcm-test-01.json", &file)
	for _, c := range file.Cases {
		key := unhex(t, c.Key)
		suite := proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: uint16(len(key) * 8), ESN: c.ESN}
		crypt, err := newTransform(suite, sa.Keys{SPI: 0x1001, Encryption: sa.NewSecret(append(key, unhex(t, c.Salt)...))}, false)
		if err != nil {
			t.Fatalf("case %d: %v", c.Case, err)
		}
		seq := uint64(binary.BigEndian.Uint32(unhex(t, c.Low)))
		if c.ESN {
			seq |= uint64(binary.BigEndian.Uint32(unhex(t, c.High))) << 32
		}
		esp := slices.Concat(unhex(t, c.SPI), unhex(t, c.Low), unhex(t, c.IV), unhex(t, c.Ciphertext), unhex(t, c.ICV))
		if got := crypt.additional(esp, seq); !bytes.Equal(got, unhex(t, c.AAD)) {
			t.Errorf("case %d: authenticates %x beside the packet, want %s", c.Case, got, c.AAD)
		}
		want := unhex(t, c.Trailed)
		got, ok := crypt.open(slices.Clone(esp), seq)
		if !ok || !bytes.Equal(got, want) {
			t.Errorf("case %d: opens to %x, %v, want %x", c.Case, got, ok, want)
		}
		// Sealing has the sequence number for an IV; with that of the draft it gives the same octets.
		copy(crypt.nonce[4:], unhex(t, c.IV))
		if sealed := crypt.aead.Seal(nil, crypt.nonce[:], want, crypt.additional(esp, seq)); !bytes.Equal(sealed, esp[16:]) {
			t.Errorf("case %d: seals to %x, want %x", c.Case, sealed, esp[16:])
		}
	}
	if len(file.Cases) != 14 {
		t.Errorf("%d cases, want 14", len(file.Cases))
	}
}

// RFC 3602 4 (AES-CBC) and RFC 7634 appendix A (ChaCha20-Poly1305).
func TestRFCs(t *testing.T) {
	var file struct {
		ChaCha struct {
			ESP struct{ Keymat, SPI, IV, Plaintext, Ciphertext, Tag, Packet string }
		} `json:"rfc7634_chacha20poly1305"`
		CBC []struct {
			Case                                      any
			Key, IV, Plaintext, Ciphertext, Encrypted string
			Trailed                                   string `json:"plaintext_with_trailer"`
		} `json:"rfc3602_aes_cbc"`
	}
	vectortest.Decode(t, "rfc/rfc_vectors.json", &file)
	cases := 0
	for _, c := range file.CBC {
		key, iv, plain, cipher := unhex(t, c.Key), unhex(t, c.IV), unhex(t, c.Plaintext+c.Trailed), unhex(t, c.Ciphertext+c.Encrypted)
		keys := sa.Keys{SPI: 0x1001, Encryption: sa.NewSecret(key), Integrity: sa.NewSecret(make([]byte, 32))}
		suite := proposal.ESP{Encryption: proposal.EncrAESCBC, KeyBits: 128, Integrity: proposal.IntegHMACSHA256128}
		for _, outbound := range []bool{true, false} {
			crypt, err := newTransform(suite, keys, outbound)
			if err != nil {
				t.Fatalf("case %v: %v", c.Case, err)
			}
			from, to := cipher, plain
			if outbound {
				from, to = plain, cipher
			}
			got := make([]byte, len(from))
			crypt.cbc.SetIV(iv)
			crypt.cbc.CryptBlocks(got, from)
			if !bytes.Equal(got, to) {
				t.Errorf("RFC 3602 case %v, outbound %v: got %x, want %x", c.Case, outbound, got, to)
			}
		}
		cases++
	}
	if cases != 8 {
		t.Errorf("%d cases of RFC 3602, want 8", cases)
	}
	e := file.ChaCha.ESP
	_, in := newPair(t, child(t, suites["chacha20-poly1305"], sa.Tunnel, binary.BigEndian.Uint32(unhex(t, e.SPI)), unhex(t, e.Keymat), nil, nil))
	outer := unhex(t, e.Packet)
	o, err := in.Open(outer, 20, len(outer))
	if want := unhex(t, e.Plaintext); err != nil || !bytes.HasPrefix(want, o.Packet) || len(o.Packet) == 0 {
		t.Errorf("RFC 7634: opens to %x, %v, want %x", o.Packet, err, want)
	}
}
