package judge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// Magic numbers of pcap files, in the order of octets of whoever wrote them.
const (
	magicMicro   = 0xa1b2c3d4
	magicNano    = 0xa1b23c4d
	linkEthernet = 1
	mostOctets   = 1 << 20 // of one frame
)

// ReadPcap gives every frame of a pcap file of Ethernet frames to observe.
func ReadPcap(r io.Reader, observe func(at time.Time, data []byte)) error {
	header := make([]byte, 24)
	if _, err := io.ReadFull(r, header); err != nil {
		return fmt.Errorf("read the header of the capture: %w", err)
	}
	var order binary.ByteOrder = binary.LittleEndian
	magic := order.Uint32(header)
	if magic != magicMicro && magic != magicNano {
		order = binary.BigEndian
		magic = order.Uint32(header)
	}
	unit := time.Microsecond
	switch magic {
	case magicNano:
		unit = time.Nanosecond
	case magicMicro:
	default:
		return fmt.Errorf("the capture begins with 0x%08x, which no pcap file does", magic)
	}
	if link := order.Uint32(header[20:]) & 0xffff; link != linkEthernet {
		return fmt.Errorf("the capture is of link type %d, want Ethernet (%d)", link, linkEthernet)
	}
	record := make([]byte, 16)
	for n := 1; ; n++ {
		if _, err := io.ReadFull(r, record); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read frame %d of the capture: %w", n, err)
		}
		captured, length := order.Uint32(record[8:]), order.Uint32(record[12:])
		if captured > mostOctets {
			return fmt.Errorf("frame %d of the capture has %d octets, want at most %d", n, captured, mostOctets)
		}
		if captured < length {
			return fmt.Errorf("frame %d of the capture is cut off after %d of %d octets: a leak could hide in the rest", n, captured, length)
		}
		data := make([]byte, captured)
		if _, err := io.ReadFull(r, data); err != nil {
			return fmt.Errorf("read frame %d of the capture: %w", n, err)
		}
		observe(time.Unix(int64(order.Uint32(record)), 0).Add(time.Duration(order.Uint32(record[4:]))*unit), data)
	}
}
