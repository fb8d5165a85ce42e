package datapathtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/sa"
	"github.com/bailiwick-net/bailiwick/policies/proposal"
)

// Pair is a Child SA as both hosts see it.
type Pair struct {
	From, To       *Peer
	FromEnd, ToEnd sa.Child
}

// Suites that the suite runs with.
var (
	GCM128 = proposal.ESP{Encryption: proposal.EncrAESGCM16, KeyBits: 128, ESN: true}
	CBC256 = proposal.ESP{Encryption: proposal.EncrAESCBC, KeyBits: 256, Integrity: proposal.IntegHMACSHA256128}
	ChaCha = proposal.ESP{Encryption: proposal.EncrChaCha20Poly1305}
	// Those that hide nothing.
	GMAC = proposal.ESP{Encryption: proposal.EncrNullAESGMAC, KeyBits: 128, ESN: true}
	Null = proposal.ESP{Encryption: proposal.EncrNULL, Integrity: proposal.IntegHMACSHA256128, ESN: true}
)

// lastSPI counts the SPIs of all tests of the process, so that none is used twice.
var lastSPI atomic.Uint32

const firstSPI = 0x1000

func keys(suite proposal.ESP) (sa.Keys, error) {
	encryption, integrity := 0, 0
	switch suite.Encryption {
	case proposal.EncrAESGCM16, proposal.EncrNullAESGMAC:
		encryption = int(suite.KeyBits)/8 + 4
	case proposal.EncrChaCha20Poly1305:
		encryption = 36
	case proposal.EncrAESCBC:
		encryption = int(suite.KeyBits) / 8
	case proposal.EncrNULL:
	}
	switch suite.Integrity {
	case proposal.IntegHMACSHA256128:
		integrity = 32
	case proposal.IntegHMACSHA384192:
		integrity = 48
	case proposal.IntegHMACSHA512256:
		integrity = 64
	case proposal.IntegNone:
	}
	material := make([]byte, encryption+integrity)
	if _, err := rand.Read(material); err != nil {
		return sa.Keys{}, fmt.Errorf("make a key: %w", err)
	}
	return sa.Keys{
		SPI: sa.SPI(firstSPI + lastSPI.Add(1)), Encryption: sa.NewSecret(material[:encryption]), Integrity: sa.NewSecret(material[encryption:]),
	}, nil
}

// Options describe the SAs that NewPair makes.
type Options struct {
	Mode  sa.Mode
	Encap bool
	Suite proposal.ESP // zero: GCM128
	Rule  [2]string    // of the asking and of the other side; empty means the default response
	// Change is called for each end before it is installed.
	Change func(*sa.Child)
}

// NewPair makes the SAs for a flow that from asked for.
func (w *World) NewPair(from *Peer, f ike.Flow, o Options) (*Pair, error) {
	if o.Suite == (proposal.ESP{}) {
		o.Suite = GCM128
	}
	out, err := keys(o.Suite)
	if err != nil {
		return nil, err
	}
	in, err := keys(o.Suite)
	if err != nil {
		return nil, err
	}
	port := uint16(0)
	if o.Encap {
		port = 4500
	}
	mine := sa.Child{
		Rule: o.Rule[0], DefaultResponse: o.Rule[0] == "", Peer: "test peer", Mode: o.Mode, Encap: o.Encap,
		Local: netip.AddrPortFrom(f.Local, port), Remote: netip.AddrPortFrom(f.Remote, port),
		LocalTS: []sa.Selector{f.LocalTS}, RemoteTS: []sa.Selector{f.RemoteTS}, Suite: o.Suite, In: in, Out: out, ReplayWindow: 1024,
	}
	theirs := mine
	theirs.Rule, theirs.DefaultResponse = o.Rule[1], o.Rule[1] == ""
	theirs.Local, theirs.Remote = mine.Remote, mine.Local
	theirs.LocalTS, theirs.RemoteTS = slices.Clone(mine.RemoteTS), slices.Clone(mine.LocalTS)
	theirs.In, theirs.Out = mine.Out, mine.In
	if o.Change != nil {
		o.Change(&mine)
		o.Change(&theirs)
	}
	return &Pair{From: from, To: w.other(from), FromEnd: mine, ToEnd: theirs}, nil
}

// Install brings both ends up, in the order that an engine keeps: inbound halves before any outbound half, and the
// responder's outbound half before the initiator's.
func (p *Pair) Install() error {
	for _, step := range []func() error{
		func() error { return p.From.Node.InstallIn(p.FromEnd) },
		func() error { return p.To.Node.InstallIn(p.ToEnd) },
		func() error { return p.To.Node.InstallOut(p.ToEnd) },
		func() error { return p.To.Node.SwitchOut(p.ToEnd) },
		func() error { return p.From.Node.InstallOut(p.FromEnd) },
		func() error { return p.From.Node.SwitchOut(p.FromEnd) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Rekey makes and installs the pair that takes over from p, as an engine does: the old one is removed afterwards by
// Remove.
func (p *Pair) Rekey(w *World) (*Pair, error) {
	next := *p
	for _, k := range []struct{ a, b *sa.Keys }{{&next.FromEnd.In, &next.ToEnd.Out}, {&next.FromEnd.Out, &next.ToEnd.In}} {
		fresh, err := keys(p.FromEnd.Suite)
		if err != nil {
			return nil, err
		}
		*k.a, *k.b = fresh, fresh
	}
	next.FromEnd.ReplacesIn, next.ToEnd.ReplacesIn = p.FromEnd.In.SPI, p.ToEnd.In.SPI
	return &next, next.Install()
}

// Remove takes both ends down.
func (p *Pair) Remove() error {
	return errors.Join(p.From.Node.Remove(p.FromEnd.In.SPI), p.To.Node.Remove(p.ToEnd.In.SPI))
}
