package controller

import (
	"net"
	"os"
)

// notify tells a service manager that waits for it (sd_notify(3)) of a change of state. Without one it does nothing; a
// manager that cannot be told is its own problem.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if path[0] == '@' {
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return
	}
	_, _ = conn.Write([]byte(state))
	conn.Close()
}
