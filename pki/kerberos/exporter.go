package kerberos

import (
	"crypto/tls"
	"fmt"

	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

// ExporterSize is the length of tls-exporter (RFC 9266 4.2), in octets.
const ExporterSize = enroll.ExporterSize

// Exporter takes tls-exporter from a connection, which no other connection shares. Errors wrap ErrProof.
func Exporter(c *tls.ConnectionState) ([ExporterSize]byte, error) {
	octets, err := enroll.TLSExporter(c)
	if err != nil {
		return [ExporterSize]byte{}, fmt.Errorf("%w: %w", ErrProof, err)
	}
	return [ExporterSize]byte(octets), nil
}
