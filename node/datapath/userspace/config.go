package userspace

import (
	"errors"
	"fmt"
	"os"

	"github.com/hashicorp/go-hclog"

	"github.com/bailiwick-net/bailiwick/node/datapath/waiting"
	"github.com/bailiwick-net/bailiwick/node/transport"
)

// The marks of packets (SO_MARK, skb->mark), all inside MarkMask so that other users of the mark keep their bits.
const (
	MarkMask     uint32 = 0x00ff0000
	MarkProtect  uint32 = 0x00b10000 // to be protected: policy routing sends it to the TUN
	MarkOwn      uint32 = 0x00b20000 // of the sockets in package transport: IKE and ESP
	MarkReinject uint32 = 0x00b30000 // was looked up here and goes out in clear
	MarkTunnel   uint32 = 0x00b40000 // came out of the TUN
	MarkForward  uint32 = 0x00b50000 // is forwarded in clear, and looked at again after source NAT
)

// Defaults of Config.
const (
	DefaultName     = "bw0"
	DefaultNFTable  = "bailiwick"
	DefaultTable    = 29803
	DefaultPriority = 100
)

// Config describes a backend. Sockets is required; the zero value of every other field means its default.
type Config struct {
	Name    string // of the TUN device
	NFTable string // name of the nftables table, family inet
	// Owner is the socket that the nftables table belongs to (nftable.NewOwner), for whoever holds it beyond the life of this
	// process; nil for a socket of the backend's own.
	Owner    *os.File
	Table    uint32 // routing table of marked packets
	Priority uint32 // of the first of three policy routing rules; they have to stand before the rule of the main table
	// Sockets carry IKE and ESP. They must have been opened with the mark MarkOwn, in the network namespace that New is
	// called in. The backend reads their Queue 0; closing them is left to the caller, after Close.
	Sockets *transport.Sockets
	Logger  hclog.Logger
	Limits  waiting.Limits
}

func (c Config) withDefaults() (Config, error) {
	if c.Sockets == nil {
		return c, errors.New("userspace datapath needs the sockets of IKE and ESP, but Config.Sockets is nil")
	}
	if c.Name == "" {
		c.Name = DefaultName
	}
	if len(c.Name) > 15 {
		return c, fmt.Errorf("name of TUN device %q is longer than the 15 octets that Linux allows", c.Name)
	}
	if c.NFTable == "" {
		c.NFTable = DefaultNFTable
	}
	if c.Table == 0 {
		c.Table = DefaultTable
	}
	if c.Table >= 253 && c.Table <= 255 {
		return c, fmt.Errorf("routing table %d belongs to the system, choose another one", c.Table)
	}
	if c.Priority == 0 {
		c.Priority = DefaultPriority
	}
	if c.Priority+2 >= 32766 {
		return c, fmt.Errorf("priority %d of the policy routing rule does not stand before the main table (32766)", c.Priority)
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c, nil
}
