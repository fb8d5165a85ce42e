package tun

import (
	"errors"
	"time"
)

// ErrWouldBlock means that there is nothing to read now.
var ErrWouldBlock = errors.New("nothing to read from the TUN now")

// ErrClosed means that the device was closed.
var ErrClosed = errors.New("TUN is closed")

// Device is a TUN device with its queues.
type Device struct{}

// Open makes the device, sets MTU and addresses and brings it up.
func Open(cfg Config) (*Device, error) { return nil, ErrClosed }

// Name returns the name the kernel gave.
func (d *Device) Name() string { return "" }

// Index returns the interface index.
func (d *Device) Index() int { return 0 }

// Offloads returns what the kernel took.
func (d *Device) Offloads() Offload { return 0 }

// Queue returns queue i.
func (d *Device) Queue(i int) *Queue { return nil }

// Queues returns how many there are.
func (d *Device) Queues() int { return 0 }

// SetMTU changes the MTU.
func (d *Device) SetMTU(mtu int) error { return ErrClosed }

// Close wakes every Wait and removes the device.
func (d *Device) Close() error { return nil }

// Queue is one queue of a device. One goroutine reads and one (the same or another) writes.
type Queue struct{}

// FD returns the descriptor, non-blocking, for poll(2).
func (q *Queue) FD() int { return -1 }

// Offloads returns what the kernel took.
func (q *Queue) Offloads() Offload { return 0 }

// Read reads one packet without blocking; pkt lies in buf, with all of buf's spare capacity behind it.
// ErrWouldBlock when there is none.
func (q *Queue) Read(buf []byte) (h Header, pkt []byte, err error) { return h, nil, ErrClosed }

// Wait blocks until Read may succeed, the timeout passes (negative: none; nil error) or the device is closed (ErrClosed).
func (q *Queue) Wait(timeout time.Duration) error { return ErrClosed }

// Write writes one packet with its header.
func (q *Queue) Write(h Header, pkt []byte) error { return ErrClosed }

// Splitter turns what Read gave into packets for the wire. One goroutine owns it; no allocation.
type Splitter struct{}

// Reset starts on pkt. A packet without segmentation is one segment; a partial checksum is completed.
func (s *Splitter) Reset(h Header, pkt []byte) error { return ErrClosed }

// Count returns how many segments there are in all.
func (s *Splitter) Count() int { return 0 }

// SegmentLen returns the length of every segment but the last, which may be shorter.
func (s *Splitter) SegmentLen() int { return 0 }

// Next returns the next segment, a whole IP packet inside the buffer of Reset; it is valid until the next call.
// Its spare capacity belongs to the segments that follow: a borrower puts back what it changes before Next.
func (s *Splitter) Next() ([]byte, bool) { return nil, false }

// Writer coalesces packets of the same flows and writes them to a queue. One goroutine owns it; no allocation.
type Writer struct{}

// NewWriter returns a Writer to q.
func NewWriter(q *Queue) *Writer { return &Writer{} }

// Add takes one whole IP packet. It keeps pkt until Flush and may change its headers. checksumUnknown: the TCP or UDP
// checksum is to be replaced.
func (w *Writer) Add(pkt []byte, checksumUnknown bool) error { return ErrClosed }

// Flush writes everything that is kept.
func (w *Writer) Flush() error { return ErrClosed }

// WriterStats counts what a Writer did.
type WriterStats struct{ Packets, Writes, Failed uint64 }

// Stats returns the counters; the owner calls it.
func (w *Writer) Stats() WriterStats { return WriterStats{} }
