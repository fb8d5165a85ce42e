package driver

import (
	"io"
	"net/netip"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/ike"
	"github.com/bailiwick-net/bailiwick/node/ike/engine"
	"github.com/bailiwick-net/bailiwick/node/sa"
)

// Transport carries IKE messages, without the non-ESP marker.
type Transport interface {
	// Datagrams delivers what arrives; the receiver owns the octets. The channel is closed when the sockets are.
	Datagrams() <-chan ike.Datagram
	WriteIKE(local, remote netip.AddrPort, b []byte) error
	WriteKeepalive(local, remote netip.AddrPort) error
}

// Queue is a Transport from which the loop takes datagrams itself, without another goroutine in between. Datagrams then
// only tells, by being closed, that no more will come.
type Queue interface {
	// Arrivals has a value when Next may have a datagram.
	Arrivals() <-chan struct{}
	Next() (ike.Datagram, bool)
}

// Screened is a Transport that asks the engine's front about every datagram as it arrives.
type Screened interface {
	Screen(judge func(d ike.Datagram, room []byte) (engine.Class, []byte))
}

// SADB is where Child SAs are installed.
type SADB interface {
	InstallIn(child sa.Child) error
	InstallOut(child sa.Child) error
	SwitchOut(child sa.Child) error
	Remove(in sa.SPI) error
	Move(in sa.SPI, local, remote netip.AddrPort, encap bool) error
}

// FlowGate decides about flows without association.
type FlowGate interface {
	Fallback(flow ike.Flow, ttl time.Duration) error
	Refuse(flow ike.Flow) error
}

// Config is what a Driver is made of. All fields but Log, KeyLog, Seed and Observe are required.
type Config struct {
	IKE       ike.Config
	Transport Transport
	SADB      SADB
	Gate      FlowGate
	Events    <-chan ike.Event // from the datapath: Acquire, ChildExpiring, PeerMoved, Heard
	Jobs      *Jobs
	Log       hclog.Logger // nil logs nothing
	// KeyLog receives the key log when IKE.KeyLog is set; nil drops it. It breaks the secrecy of all traffic.
	KeyLog io.Writer
	// Source tells from which own address the kernel sends to a remote one; nil when nobody knows.
	Source func(remote netip.Addr) (netip.Addr, error)
	Seed   io.Reader // SPIs, nonces, IVs, jitter; nil is the system's random source
	// Observe, when set, sees every action after it was executed. It is called by the loop and must not block.
	Observe func(ike.Action)
}

// untraced reports whether nobody reads what happens: then it is not even written.
func (c *Config) untraced() bool { return c.Observe == nil && !c.Log.IsTrace() }
