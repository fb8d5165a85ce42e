package interop_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/bailiwick-net/bailiwick/e2e/interop"
	"github.com/bailiwick-net/bailiwick/e2e/interop/pair"
	"github.com/bailiwick-net/bailiwick/e2e/lab/charon"
	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// What charon takes: every encryption and hash that the node knows as well, in any combination, for IKE and ESP. It begins
// with the group that is meant: what answers its second attempt at once it passes over, and waits for seconds.
const (
	everyHash = "-sha256-sha384-sha512"
	everyPRF  = "-prfsha256-prfsha384-prfsha512-"
	everyESP  = "aes128gcm16-aes192gcm16-aes256gcm16-chacha20poly1305,aes128-aes192-aes256-null" + everyHash
)

func everyIKE(group proposal.Group) string {
	return "aes128gcm16-aes192gcm16-aes256gcm16-chacha20poly1305" + everyPRF + group.String() +
		",aes128-aes192-aes256" + everyHash + everyPRF + group.String()
}

// cipher is what IKE and ESP have in common.
type cipher struct {
	encryption proposal.Encryption
	bits       uint16
	integrity  proposal.Integrity
}

// ciphers are all that a policy can name, for IKE; null are those of ESP beside them.
func ciphers() (both, null []cipher) {
	for _, bits := range []uint16{128, 192, 256} {
		both = append(both, cipher{proposal.EncrAESGCM16, bits, proposal.IntegNone})
		for _, integrity := range []proposal.Integrity{proposal.IntegHMACSHA256128, proposal.IntegHMACSHA384192, proposal.IntegHMACSHA512256} {
			both = append(both, cipher{proposal.EncrAESCBC, bits, integrity})
		}
	}
	both = append(both, cipher{encryption: proposal.EncrChaCha20Poly1305})
	for _, integrity := range []proposal.Integrity{proposal.IntegHMACSHA256128, proposal.IntegHMACSHA384192, proposal.IntegHMACSHA512256} {
		null = append(null, cipher{proposal.EncrNULL, 0, integrity})
	}
	return both, null
}

// TestEverySuite establishes an IKE SA with a Child SA by every combination of encryption, pseudorandom function and group
// that both know; the suites of ESP
// and the sides take turns.
func TestEverySuite(t *testing.T) {
	interop.Shows(t, "interop", 51)
	prfs := []proposal.PRF{proposal.PRFHMACSHA256, proposal.PRFHMACSHA384, proposal.PRFHMACSHA512}
	groups := []proposal.Group{
		proposal.GroupX25519, proposal.GroupECP256, proposal.GroupECP384, proposal.GroupECP521,
		proposal.GroupMODP2048, proposal.GroupMODP3072, proposal.GroupMODP4096,
	}
	both, null := ciphers()
	esp := slices.Concat(both, null)
	done := 0
	for _, group := range groups {
		t.Run(group.String(), func(t *testing.T) {
			p := start(t, setup{ike: everyIKE(group), esp: everyESP})
			for _, c := range both {
				for _, prf := range prfs {
					suite := proposal.IKE{Encryption: c.encryption, KeyBits: c.bits, Integrity: c.integrity, PRF: prf, Group: group}
					e := esp[done%len(esp)]
					child := proposal.ESP{Encryption: e.encryption, KeyBits: e.bits, Integrity: e.integrity}
					initiator := pair.Sides[done%2]
					done++
					p.negotiates(initiator, suite, child)
				}
			}
		})
	}
	if want := len(both) * len(prfs) * len(groups); done != want {
		t.Errorf("%d suites were negotiated, want %d", done, want)
	}
}

// outcome is what strongSwan tells of a negotiation.
type outcome struct {
	encryption, keySize, prf, group               string
	childEncryption, childKeySize, childIntegrity string
}

func said(s charon.SA) outcome {
	c := pair.Installed(s)[0]
	return outcome{s.Encryption, s.KeySize, s.PRF, s.Group, c.Encryption, c.KeySize, c.Integrity}
}

// strongSwan tells a negotiation in strongSwan's words.
func strongSwan(suite proposal.IKE, child proposal.ESP) outcome {
	encryptions := map[proposal.Encryption]string{
		proposal.EncrAESGCM16: "AES_GCM_16", proposal.EncrAESCBC: "AES_CBC", proposal.EncrChaCha20Poly1305: "CHACHA20_POLY1305", proposal.EncrNULL: "NULL",
	}
	size := func(bits uint16) string {
		if bits == 0 {
			return ""
		}
		return strconv.Itoa(int(bits))
	}
	return outcome{
		encryptions[suite.Encryption], size(suite.KeyBits),
		map[proposal.PRF]string{proposal.PRFHMACSHA256: "PRF_HMAC_SHA2_256", proposal.PRFHMACSHA384: "PRF_HMAC_SHA2_384", proposal.PRFHMACSHA512: "PRF_HMAC_SHA2_512"}[suite.PRF],
		map[proposal.Group]string{
			proposal.GroupX25519: "CURVE_25519", proposal.GroupECP256: "ECP_256", proposal.GroupECP384: "ECP_384", proposal.GroupECP521: "ECP_521",
			proposal.GroupMODP2048: "MODP_2048", proposal.GroupMODP3072: "MODP_3072", proposal.GroupMODP4096: "MODP_4096",
		}[suite.Group],
		encryptions[child.Encryption], size(child.KeyBits),
		map[proposal.Integrity]string{
			proposal.IntegHMACSHA256128: "HMAC_SHA2_256_128", proposal.IntegHMACSHA384192: "HMAC_SHA2_384_192", proposal.IntegHMACSHA512256: "HMAC_SHA2_512_256",
		}[child.Integrity],
	}
}

// negotiates lets a side begin where the node takes one suite and no other, and ends what came of it.
func (p *peers) negotiates(initiator pair.Side, suite proposal.IKE, child proposal.ESP) {
	p.T.Helper()
	p.own.Offers = []proposal.IKE{suite}
	p.own.Rules = slices.Clone(p.own.Rules)
	p.own.Rules[0].Offers, p.own.Rules[0].PFS = []proposal.ESP{child}, false
	if err := p.driver.Reconfigure(p.Ctx, p.own); err != nil {
		p.T.Fatal(err)
	}
	p.ask(initiator)
	c := p.up()
	ours := p.snapshot().SAs
	if len(ours) != 1 || ours[0].Suite != suite || ours[0].Initiator != (initiator == pair.FromNode) || c.Suite != child {
		p.T.Fatalf("%s and %s by the %s: the driver has %+v and %+v", suite, child, initiator, ours, c)
	}
	theirs, err := p.Charon.SAs(p.Ctx)
	if err != nil {
		p.T.Fatal(err)
	}
	if got, want := said(theirs[0]), strongSwan(suite, child); got != want {
		p.T.Errorf("%s and %s by the %s: strongSwan says %+v, want %+v", suite, child, initiator, got, want)
	}
	if err := p.driver.Close(p.Ctx, ike.IKESPI(ours[0].SPI), 0, ike.ReasonDeleted); err != nil {
		p.T.Fatal(err)
	}
	p.Until("both have ended it", func() (bool, error) {
		theirs, err := p.Charon.SAs(p.Ctx)
		return len(theirs) == 0 && len(p.snapshot().SAs) == 0, err
	})
}
