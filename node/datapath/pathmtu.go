package datapath

import "fmt"

// PathSource tells where a path MTU comes from.
type PathSource uint8

// The sources.
const (
	PathUnknown PathSource = iota // the kernel keeps it to itself
	PathLink                      // the first link: nothing shorter was found on the way
	PathICMP                      // a router told it (RFC 1191, RFC 8201)
	PathProbe                     // longer probes got lost (RFC 8899)
)

// String returns the name that status shows.
func (s PathSource) String() string {
	switch s {
	case PathUnknown:
		return "unknown"
	case PathLink:
		return "link"
	case PathICMP:
		return "icmp"
	case PathProbe:
		return "probe"
	}
	return fmt.Sprintf("path source %d", uint8(s))
}
