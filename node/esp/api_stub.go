package esp

import "github.com/bailiwick-net/bailiwick/node/sa"

// Outbound seals. One goroutine owns it; Fork makes one for another goroutine on the same sequence numbers. Stats may
// be called by anyone.
type Outbound struct{}

// NewOutbound makes the outbound half of c.
func NewOutbound(c sa.Child) (*Outbound, error) { return nil, ErrPacket }

// Fork returns an Outbound for another goroutine, with the same key and the same sequence numbers.
func (o *Outbound) Fork() (*Outbound, error) { return nil, ErrPacket }

// SPI returns the SPI that Seal writes.
func (o *Outbound) SPI() sa.SPI { return 0 }

// Seal appends the ESP packet that protects the IP packet pkt to dst. In transport mode it holds what follows the IP
// header. dst and pkt must not overlap. Where pkt has MaxTrailer octets of spare capacity, these are borrowed for the
// trailer and put back, which spares a copy.
func (o *Outbound) Seal(dst, pkt []byte) ([]byte, error) { return dst, ErrPacket }

// SealedLen returns the length of the ESP packet for an IP packet of n octets whose headers before ESP take
// transportOffset octets (only used in transport mode).
func (o *Outbound) SealedLen(n, transportOffset int) int { return 0 }

// MaxPacket returns the longest IP packet whose sealed form fits a path MTU. ipv6 is the family of the outer header.
func (o *Outbound) MaxPacket(pathMTU int, ipv6 bool) int { return 0 }

// Publish makes the counters visible to Stats; the owner calls it after each batch.
func (o *Outbound) Publish() {}

// Stats returns the counters as last published.
func (o *Outbound) Stats() OutboundStats { return OutboundStats{} }

// Inbound opens. One goroutine at a time may call Open and Publish; anyone may call Stats.
type Inbound struct{}

// NewInbound makes the inbound half of c.
func NewInbound(c sa.Child) (*Inbound, error) { return nil, ErrPacket }

// SPI returns the SPI that Open accepts.
func (i *Inbound) SPI() sa.SPI { return 0 }

// Open opens the ESP packet buf[start:end] in place. In transport mode it may overwrite Headroom octets before start:
// they are room the caller left, or the ICV and trailer of the ESP packet opened before from the same buffer.
func (i *Inbound) Open(buf []byte, start, end int) (Opened, error) { return Opened{}, ErrShort }

// Publish makes the counters visible to Stats; the owner calls it after each batch.
func (i *Inbound) Publish() {}

// Stats returns the counters as last published.
func (i *Inbound) Stats() InboundStats { return InboundStats{} }
