// Package agentapi is what a test and the first process of its guest say to each other: HTTP/2 over one virtual serial
// port.
//
// Its invariant: both sides are built from the same sources for the same run, so that nothing of it needs a version. It
// leaves the port and the meaning of commands to either side.
package agentapi

import (
	"net"
	"os"
	"time"
)

// PortName is the name of the virtual serial port.
const PortName = "bailiwick"

// The requests. All are POST.
const (
	PathReady  = "/ready"  // answers when the guest is set up
	PathRun    = "/run"    // Command; answers with Result when the command has ended
	PathStart  = "/start"  // Command; answers with its process ID as a line at once, and with Result when it has ended
	PathSignal = "/signal" // query "pid" and "signal"
	PathDial   = "/dial"   // query "network" and "address"; both bodies are the connection then
	PathEcho   = "/echo"   // query "port"; every TCP connection to it is answered with what it sends, until the guest ends
	PathWrite  = "/write"  // query "path"; the body becomes the content of the file
	PathRead   = "/read"   // query "path"; answers with the content of the file
)

// Command is a command to run in the guest.
type Command struct {
	Args []string
	Env  []string // beside that of the agent
}

// Result says how a command ended.
type Result struct {
	Code   int    // exit code; -1 when it could not be run or was killed
	Output string // standard output
	Stderr string
}

// Port is a serial port as a connection.
type Port struct{ *os.File }

// LocalAddr names the port.
func (Port) LocalAddr() net.Addr { return address{} }

// RemoteAddr names the port.
func (Port) RemoteAddr() net.Addr { return address{} }

// SetDeadline does nothing: not every port knows deadlines, and the peer is watched by other means.
func (Port) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (Port) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (Port) SetWriteDeadline(time.Time) error { return nil }

type address struct{}

// Network is that of the port.
func (address) Network() string { return "virtio-serial" }

// String is the name of the port.
func (address) String() string { return PortName }
