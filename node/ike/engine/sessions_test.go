package engine_test

import (
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/ike/sessiontest"
	"github.com/bailiwick-net/bailiwick/node/ike/wire"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/node/vectortest"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
	"github.com/bailiwick-net/bailiwick/policies/spd"
)

// TestRecordedSessionsFromBothSides lets the engine take the part of each side in every recorded conversation.
func TestRecordedSessionsFromBothSides(t *testing.T) {
	dir := vectortest.Dir(t)
	paths, _ := filepath.Glob(filepath.Join(dir, "recorded", "*.json"))
	for _, path := range paths {
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		s, err := sessiontest.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(name, "ikev1-") {
			t.Run(name, func(t *testing.T) { playOldVersion(t, s) })
			continue
		}
		for _, side := range []string{"initiator", "responder"} {
			t.Run(name+"/"+side, func(t *testing.T) { play(t, s, side) })
		}
	}
}

// outcome is what comes of a conversation that this engine does not lead to where it was recorded.
type outcome struct {
	reason   string // part of why the engine ends the IKE SA or refuses the flow
	children int    // whose keys are checked
	why      string
}

// outcomes are the conversations that differ, by design. All others go as recorded, message by message.
var outcomes = map[string]outcome{
	"auth-failed-psk/initiator":                          {"AUTHENTICATION_FAILED", 0, ""},
	"auth-failed-psk/responder":                          {"authentication-failed", 0, ""},
	"eap-md5-responder-cert/initiator":                   {"invalid-syntax", 0, "no EAP"},
	"eap-md5-responder-cert/responder":                   {"sends no AUTH payload", 0, "no EAP"},
	"eap-mschapv2/initiator":                             {"invalid-syntax", 0, "no EAP"},
	"eap-mschapv2/responder":                             {"sends no AUTH payload", 0, "no EAP"},
	"eap-tls/initiator":                                  {"invalid-syntax", 0, "no EAP"},
	"eap-tls/responder":                                  {"sends no AUTH payload", 0, "no EAP"},
	"multiple-auth-rfc4739/initiator":                    {"authentication-failed", 0, "one authentication each"},
	"multiple-auth-rfc4739/responder":                    {"authentication-failed", 0, "one authentication each"},
	"no-proposal-chosen-ike/initiator":                   {"no-offers", 0, "nothing was negotiated, so that there is no offer"},
	"no-proposal-chosen-ike/responder":                   {"", 0, ""},
	"no-proposal-chosen-child/initiator":                 {"NO_PROPOSAL_CHOSEN", 0, ""},
	"ts-unacceptable/initiator":                          {"TS_UNACCEPTABLE", 0, ""},
	"rsa2048-legacy-auth1/initiator":                     {"authentication-failed", 0, "SHA-1 signatures are refused"},
	"rsa2048-legacy-auth1/responder":                     {"authentication-failed", 0, "SHA-1 signatures are refused"},
	"psk-aes128ctr-sha384-prfaesxcbc-modp3072/initiator": {"", 0, "AES-CTR and AES-XCBC are not built"},
	"psk-aes128ctr-sha384-prfaesxcbc-modp3072/responder": {"", 0, "AES-CTR and AES-XCBC are not built"},
	"psk-aes256ccm16-prfaescmac-ecp521/initiator":        {"", 0, "AES-CCM and AES-CMAC are not built"},
	"psk-aes256ccm16-prfaescmac-ecp521/responder":        {"", 0, "AES-CCM and AES-CMAC are not built"},
	"mobike-address-change/initiator":                    {"", 1, "the recorded addresses change without an event"},
	"reauth-make-before-break/initiator":                 {"", 1, "nothing asks for a second IKE SA"},
	"simultaneous-child-rekey/responder":                 {"", 1, "a responder asks for a sign that the initiator has the Child SA before it rekeys it"},
	"collision-child-delete-vs-child-rekey/responder":    {"", 1, "the same"},
}

func play(t *testing.T, s sessiontest.Session, side string) {
	p := newPlayer(t, s, side == "initiator")
	cfg, flows := configuration(t, p, side == "initiator")
	p.engine = engine.New(cfg, &p.random)
	if side == "initiator" {
		p.step(ike.Acquire{Flow: flows[0]})
	}
	want, differs := outcomes[s.Name+"/"+side]
	complain := t.Errorf
	if differs {
		complain = t.Logf
	}
	asked := map[int]message{} // own requests that crossed one of the peer
	for n, k := range s.Packets {
		switch {
		case k.Kind != "ike":
		case !p.mine(k):
			for _, i := range p.crossing(n) {
				p.provoke(s.Packets[i], flows)
				if m, ok := p.find(s.Packets[i]); ok {
					asked[i] = m
				}
			}
			p.step(ike.Datagram{Local: k.Destination.AddrPort, Remote: k.Source.AddrPort, Bytes: k.Hex})
		case len(k.Fragment) == 2 && k.Fragment[0] != k.Fragment[1]: // the last one stands for all
		default:
			m, ok := asked[n]
			if !ok {
				m, ok = p.find(k)
			}
			if !ok && !k.Response {
				p.provoke(k, flows)
				m, ok = p.find(k)
			}
			want := shape(inner(t, k))
			if !ok {
				complain("packet %d: the engine sent no %s %d (response %t) %s", n, k.Exchange, k.MessageID, k.Response, want)
				continue
			}
			if got := shape(m.payloads); got != want && m.payloads != nil {
				complain("packet %d: %s %d (response %t): the engine sent %s, recorded is %s", n, k.Exchange, k.MessageID, k.Response, got, want)
			}
		}
	}
	checked, reasons := p.checkKeys(), strings.Join(p.reasons, "; ")
	switch {
	case !differs && (p.up == 0 || checked != len(s.Child)):
		t.Errorf("%d IKE SAs came up, the keys of %d Child SAs are as recorded, want all %d; %s", p.up, checked, len(s.Child), reasons)
	case differs && (checked != want.children || !strings.Contains(reasons, want.reason)):
		t.Errorf("the keys of %d Child SAs are as recorded, want %d (%s); the engine says %q, want %q", checked, want.children, want.why, reasons, want.reason)
	}
	t.Logf("up %d, signatures %d, Child SAs %d of %d; %s", p.up, p.verified, checked, len(s.Child), reasons)
}

// playOldVersion sends what IKEv1 daemons said: this one speaks IKEv2 only. It makes no state, and what it answers is an
// INVALID_MAJOR_VERSION that is no longer than the question (RFC 7296 2.5).
func playOldVersion(t *testing.T, s sessiontest.Session) {
	cfg := ike.Config{Offers: proposal.DefaultIKE(), DefaultResponse: &ike.Rule{ID: "any", Offers: proposal.DefaultESP()}}
	e := engine.New(cfg, &randomness{})
	now, sent := time.Date(2025, 9, 1, 0, 0, 0, 0, time.UTC), 0
	for _, k := range s.Packets {
		if k.Kind != "ike" {
			continue
		}
		now = now.Add(time.Millisecond)
		for _, a := range e.Step(now, ike.Datagram{Local: k.Destination.AddrPort, Remote: k.Source.AddrPort, Bytes: k.Hex}) {
			send, ok := a.(ike.Send)
			if !ok {
				continue
			}
			sent++
			m, err := wire.ParseMessage(send.Bytes, wire.LimitBeforeAuth)
			if err != nil || len(send.Bytes) > len(k.Hex) {
				t.Fatalf("%d octets answer %d, error %v", len(send.Bytes), len(k.Hex), err)
			}
			if _, ok := wire.FindNotify(m.Payloads, wire.NotifyInvalidMajorVersion); !ok {
				t.Errorf("the engine answers %s", m)
			}
		}
	}
	snapshot := e.Snapshot()
	if len(snapshot.SAs) != 0 || !e.Deadline().IsZero() {
		t.Errorf("IKEv1 left %d IKE SAs and the deadline %s", len(snapshot.SAs), e.Deadline())
	}
	if sent > 2 { // one per side in a second
		t.Errorf("%d answers within a second", sent)
	}
	dropped := uint64(0)
	for name, n := range snapshot.Counters {
		if strings.HasPrefix(name, "dropped_") {
			dropped += n
		}
	}
	if dropped == 0 {
		t.Errorf("no counter tells of the drops: %v", snapshot.Counters)
	}
}

// crossing lists the own requests that were sent before the peer's request n was answered.
func (p *player) crossing(n int) (list []int) {
	k := p.s.Packets[n]
	if k.Response {
		return nil
	}
	for i := n + 1; i < len(p.s.Packets); i++ {
		o := p.s.Packets[i]
		switch {
		case o.Kind != "ike" || !p.mine(o):
		case o.Response && o.MessageID == k.MessageID && o.Exchange == k.Exchange:
			return list
		case !o.Response:
			list = append(list, i)
		}
	}
	return nil
}

// provoke makes the engine ask what the recorded side asks.
func (p *player) provoke(k sessiontest.Packet, flows []ike.Flow) {
	payloads := inner(p.t, k)
	own := ike.IKESPI(k.SPIi.SPI())
	if !k.FromInitiator {
		own = ike.IKESPI(k.SPIr.SPI())
	}
	child := func() sa.SPI {
		if n, ok := wire.FindNotify(payloads, wire.NotifyRekeySA); ok && len(n.SPI) == 4 {
			return sa.SPI(uint32(n.SPI[0])<<24 | uint32(n.SPI[1])<<16 | uint32(n.SPI[2])<<8 | uint32(n.SPI[3]))
		}
		if d, ok := wire.Find[wire.Delete](payloads, nil); ok && len(d.SPIs) > 0 {
			return d.SPIs[0]
		}
		return 0
	}
	_, rekey := wire.FindNotify(payloads, wire.NotifyRekeySA)
	_, ts := wire.Find[wire.TS](payloads, nil)
	_, deletes := wire.Find[wire.Delete](payloads, nil)
	if rekey { // a responder does so when it knows that the initiator has the Child SA, or after a quarter of a second
		p.now = p.now.Add(300 * time.Millisecond)
		p.step(ike.Timeout{})
	}
	switch {
	case k.Exchange == wire.CreateChildSA && (rekey || !ts):
		p.step(ike.Rekey{IKE: own, Child: child()})
	case k.Exchange == wire.CreateChildSA:
		p.step(ike.Acquire{Flow: flows[len(flows)-1]})
	case k.Exchange == wire.Informational && deletes:
		p.step(ike.Close{IKE: own, Child: child(), Reason: ike.ReasonDeleted})
	case k.Exchange == wire.Informational: // a liveness check (RFC 7296 2.4)
		p.now = p.now.Add(31 * time.Second)
		p.step(ike.Timeout{})
	}
}

var (
	blocks    = regexp.MustCompile(`local_ts = (\S+)\s+remote_ts = (\S+)\s+esp_proposals = (\S+)`)
	psk       = regexp.MustCompile(`ike-1 \{ secret = "([^"]+)"`)
	ppk       = regexp.MustCompile(`ppk-1 \{ id = (\S+)\s+secret = "([^"]+)"`)
	algorithm = map[string]func(*proposal.ESP){
		"aes128":           func(o *proposal.ESP) { o.Encryption, o.KeyBits = proposal.EncrAESCBC, 128 },
		"aes256":           func(o *proposal.ESP) { o.Encryption, o.KeyBits = proposal.EncrAESCBC, 256 },
		"aes128gcm16":      func(o *proposal.ESP) { o.Encryption, o.KeyBits = proposal.EncrAESGCM16, 128 },
		"aes256gcm16":      func(o *proposal.ESP) { o.Encryption, o.KeyBits = proposal.EncrAESGCM16, 256 },
		"chacha20poly1305": func(o *proposal.ESP) { o.Encryption = proposal.EncrChaCha20Poly1305 },
		"sha256":           func(o *proposal.ESP) { o.Integrity = proposal.IntegHMACSHA256128 },
		"sha384":           func(o *proposal.ESP) { o.Integrity = proposal.IntegHMACSHA384192 },
		"sha512":           func(o *proposal.ESP) { o.Integrity = proposal.IntegHMACSHA512256 },
		"ecp256":           func(o *proposal.ESP) { o.Group = proposal.GroupECP256 },
		"ecp384":           func(o *proposal.ESP) { o.Group = proposal.GroupECP384 },
		"modp2048":         func(o *proposal.ESP) { o.Group = proposal.GroupMODP2048 },
		"x25519":           func(o *proposal.ESP) { o.Group = proposal.GroupX25519 },
		"curve25519":       func(o *proposal.ESP) { o.Group = proposal.GroupX25519 },
	}
)

// configuration turns the recorded side's swanctl.conf into a policy of ours.
func configuration(t *testing.T, p *player, initiator bool) (ike.Config, []ike.Flow) {
	t.Helper()
	text, id, peer := p.s.ConfigB, "b.test", p.s.Packets[0].Source.Addr()
	if initiator {
		text, id, peer = p.s.ConfigA, "a.test", p.s.Packets[0].Destination.Addr()
	}
	cfg := ike.Config{
		Local: ike.Identity{Type: byte(wire.IDFQDN), Data: []byte(id)},
		Chain: [][]byte{[]byte("a certificate that nobody looks at")},
	}
	auth := spd.Auth{Method: spd.AuthCertificate}
	if m := psk.FindStringSubmatch(text); m != nil && strings.Contains(text, "auth = psk") {
		auth = spd.Auth{Method: spd.AuthPSK, Secret: "shared"}
		cfg.Secrets = map[string]sa.Secret{"shared": sa.NewSecret([]byte(m[1]))}
	}
	if m := ppk.FindStringSubmatch(text); m != nil {
		auth.PPK = m[1]
		cfg.Secrets[m[1]] = sa.NewSecret([]byte(m[2]))
	}
	if strings.Contains(text, "childless = force") && initiator {
		cfg.Childless = spd.ChildlessPrefer
	}
	for _, k := range p.s.IKE[:min(1, len(p.s.IKE))] {
		if o := k.Suite(); wrongCipher(o) { // not built, so that the policy cannot offer it
			cfg.Offers = append(cfg.Offers, proposal.IKE{
				Encryption: proposal.EncrAESGCM16, KeyBits: 256, PRF: proposal.PRFHMACSHA384, Group: proposal.GroupECP384,
			})
			continue
		}
		cfg.Offers = append(cfg.Offers, k.Suite())
		if first, _ := wire.Find[wire.KE](inner(t, p.s.Packets[0]), nil); first.Group != k.Suite().Group && initiator {
			o := k.Suite() // the group that was tried first
			o.Group = first.Group
			cfg.Offers = slices.Insert(cfg.Offers, 0, o)
		}
	}
	var flows []ike.Flow
	for n, m := range blocks.FindAllStringSubmatch(text, -1) {
		r := ike.Rule{ID: "child" + strconv.Itoa(n), Mode: sa.Tunnel, Tunnel: peer, Auth: []spd.Auth{auth}}
		local, remote := selectors(t, m[1]), selectors(t, m[2])
		for _, l := range local {
			for _, q := range remote {
				r.Pairs = append(r.Pairs, ike.Pair{Local: l, Remote: q})
			}
		}
		var o proposal.ESP
		for _, word := range strings.Split(m[3], "-") {
			if set, ok := algorithm[word]; ok { // others are not built
				set(&o)
			}
		}
		r.PFS = o.Group != proposal.GroupNone
		r.Offers = []proposal.ESP{o}
		cfg.Rules = append(cfg.Rules, r)
		flows = append(flows, ike.Flow{Rule: r.ID, Local: p.own, Remote: peer, LocalTS: local[0], RemoteTS: remote[len(remote)-1]})
	}
	slices.Reverse(flows) // the recorded side brings up the last one first
	return cfg, flows
}

// wrongCipher reports whether the cipher or the PRF is not built. The key exchange does not matter: its result is recorded.
func wrongCipher(o proposal.IKE) bool {
	o.Group = proposal.GroupECP256
	return o.Validate() != nil
}

// selectors reads 10.1.0.0/16[tcp/80],... .
func selectors(t *testing.T, text string) (list []sa.Selector) {
	t.Helper()
	for _, word := range strings.Split(text, ",") {
		net, ports, _ := strings.Cut(strings.TrimSuffix(word, "]"), "[")
		if net == "dynamic" {
			net = "10.99.0.1/32"
		}
		prefix, err := netip.ParsePrefix(net)
		if err != nil {
			t.Fatal(err)
		}
		from := prefix.Masked().Addr()
		last := from.AsSlice()
		for i := prefix.Bits(); i < len(last)*8; i++ {
			last[i/8] |= 0x80 >> (i % 8)
		}
		to, _ := netip.AddrFromSlice(last)
		s := sa.Selector{From: from, To: to, PortTo: 65535}
		if protocol, port, ok := strings.Cut(ports, "/"); ok {
			s.Protocol = map[string]uint8{"tcp": 6, "udp": 17}[protocol]
			low, high, isRange := strings.Cut(port, "-")
			if !isRange {
				high = low
			}
			a, err1 := strconv.ParseUint(low, 10, 16)
			b, err2 := strconv.ParseUint(high, 10, 16)
			if err1 != nil || err2 != nil || s.Protocol == 0 {
				t.Fatalf("selector %q", word)
			}
			s.PortFrom, s.PortTo = uint16(a), uint16(b)
		}
		list = append(list, s)
	}
	return list
}
