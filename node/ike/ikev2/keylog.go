package ikev2

import (
	"fmt"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Key log lines have the form of Wireshark's tables, each as the value of one -o option of tshark. They exist only where
// the configuration asks for them: whoever reads them reads all traffic. Wireshark before 4.6 does not know
// ChaCha20-Poly1305 and refuses those lines.

// logIKEKeys logs the keys in use. Of those that IKE_INTERMEDIATE replaces there is no line: Wireshark knows one per IKE SA.
func (s *SA) logIKEKeys() {
	if !s.cfg.KeyLog || !s.lastKeys() {
		return
	}
	line := fmt.Appendf(nil, "uat:ikev2_decryption_table:%s,%s,%x,%x,\"%s\",%x,%x,\"%s\"",
		s.spii(), s.spir(), s.keys.EI.Expose(), s.keys.ER.Expose(), ikeEncryptionName(s.suite),
		s.keys.AI.Expose(), s.keys.AR.Expose(), ikeIntegrityName(s.suite.Integrity))
	s.host.Emit(ike.KeyLog{Line: sa.NewSecret(line)})
}

func ikeEncryptionName(p proposal.IKE) string {
	switch p.Encryption {
	case proposal.EncrAESGCM16:
		return fmt.Sprintf("AES-GCM-%d with 16 octet ICV [RFC5282]", p.KeyBits)
	case proposal.EncrChaCha20Poly1305:
		return "CHACHA20_POLY1305 [RFC7634]"
	default:
		return fmt.Sprintf("AES-CBC-%d [RFC3602]", p.KeyBits)
	}
}

func ikeIntegrityName(i proposal.Integrity) string {
	switch i {
	case proposal.IntegHMACSHA256128:
		return "HMAC_SHA2_256_128 [RFC4868]"
	case proposal.IntegHMACSHA384192:
		return "HMAC_SHA2_384_192 [RFC4868]"
	case proposal.IntegHMACSHA512256:
		return "HMAC_SHA2_512_256 [RFC4868]"
	default:
		return "NONE [RFC4306]"
	}
}

func (s *SA) logChildKeys(c *child) {
	if !s.cfg.KeyLog {
		return
	}
	encryption, integrity := espNames(c.Suite)
	family := "IPv4"
	if c.Local.Addr().Is6() && !c.Local.Addr().Is4In6() {
		family = "IPv6"
	}
	one := func(k sa.Keys, from, to string) {
		auth := ""
		if k.Integrity.Len() > 0 {
			auth = fmt.Sprintf("0x%x", k.Integrity.Expose())
		}
		key := ""
		if k.Encryption.Len() > 0 {
			key = fmt.Sprintf("0x%x", k.Encryption.Expose())
		}
		line := fmt.Appendf(nil, "uat:esp_sa:\"%s\",\"%s\",\"%s\",\"0x%s\",\"%s\",\"%s\",\"%s\",\"%s\"",
			family, from, to, k.SPI, encryption, key, integrity, auth)
		s.host.Emit(ike.KeyLog{Line: sa.NewSecret(line)})
	}
	local, remote := c.Local.Addr().Unmap().String(), c.Remote.Addr().Unmap().String()
	one(c.In, remote, local)
	one(c.Out, local, remote)
}

func espNames(p proposal.ESP) (encryption, integrity string) {
	switch p.Encryption {
	case proposal.EncrAESGCM16:
		return "AES-GCM with 16 octet ICV [RFC4106]", "NULL"
	case proposal.EncrChaCha20Poly1305:
		return "ChaCha20 with Poly1305 [RFC7634]", "NULL"
	case proposal.EncrNullAESGMAC: // not known there: the IV stands before the packet
		return "NULL", "ANY 128 bit authentication [no checking]"
	case proposal.EncrNULL:
		encryption = "NULL"
	default:
		encryption = "AES-CBC [RFC3602]"
	}
	switch p.Integrity {
	case proposal.IntegHMACSHA384192:
		return encryption, "HMAC-SHA-384-192 [RFC4868]"
	case proposal.IntegHMACSHA512256:
		return encryption, "HMAC-SHA-512-256 [RFC4868]"
	default:
		return encryption, "HMAC-SHA-256-128 [RFC4868]"
	}
}
