package custody

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	notifyVariable = "NOTIFY_SOCKET"
	storedName     = "bailiwick-nftables"
	firstStored    = 3 // SD_LISTEN_FDS_START
)

// Stored returns the socket that systemd has kept since an earlier life of this process (sd_listen_fds(3)), or nil. It
// reads the environment by getenv.
func Stored(getenv func(string) string) (*os.File, error) {
	if getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(getenv("LISTEN_FDS"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("take over from systemd: LISTEN_FDS is %q, want a number of descriptors", getenv("LISTEN_FDS"))
	}
	for i, name := range strings.Split(getenv("LISTEN_FDNAMES"), ":") {
		if name == storedName && i < n {
			syscall.CloseOnExec(firstStored + i)
			return os.NewFile(uintptr(firstStored+i), "descriptor "+strconv.Itoa(firstStored+i)+" of systemd"), nil
		}
	}
	return nil, nil
}

// Store has systemd keep the socket beyond the life of this process (sd_notify(3), FDSTORE), and reports whether there is a
// systemd that was asked. It keeps it if the unit has FileDescriptorStoreMax=1 or more, until the unit is stopped.
func Store(getenv func(string) string, owner *os.File) (bool, error) {
	address := getenv(notifyVariable)
	if address == "" {
		return false, nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"}) // "@" begins an abstract one
	if err != nil {
		return false, fmt.Errorf("have systemd keep the socket of nftables: %w", err)
	}
	defer conn.Close()
	// systemd would let go of a socket that has an error to tell, as one of netlink may have.
	message := "FDSTORE=1\nFDNAME=" + storedName + "\nFDPOLL=0"
	raw, err := conn.SyscallConn()
	if err == nil {
		var sent error
		rights := syscall.UnixRights(int(owner.Fd()))
		err = raw.Write(func(fd uintptr) bool {
			sent = syscall.Sendmsg(int(fd), []byte(message), rights, nil, 0)
			return sent != syscall.EAGAIN
		})
		err = errors.Join(err, sent)
	}
	if err != nil {
		return false, fmt.Errorf("have systemd keep the socket of nftables: %w", err)
	}
	return true, nil
}
