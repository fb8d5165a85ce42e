package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
)

// ErrNotPermitted is wrapped when the user at the other end of the socket may not administer the controller.
var ErrNotPermitted = errors.New("only root and the user that the controller runs as may use its socket")

// SocketCredentials authenticate the other end of a unix socket by its user: root, or the user of this process.
func SocketCredentials() credentials.TransportCredentials { return socketCredentials{} }

type socketCredentials struct{}

// socketUser is who is at the other end of the socket.
type socketUser struct {
	credentials.CommonAuthInfo
	uid uint32
}

// AuthType names the way of authentication.
func (socketUser) AuthType() string { return "unix peer credentials" }

// name is the user's name, or its number when it has none.
func (u socketUser) name() string {
	number := strconv.FormatUint(uint64(u.uid), 10)
	if found, err := user.LookupId(number); err == nil {
		return found.Username
	}
	return "uid " + number
}

func (socketCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	sock, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("connection of the type %T is not a unix socket", conn)
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return nil, nil, err
	}
	if credErr != nil {
		return nil, nil, fmt.Errorf("asking who is at the other end of the socket: %w", credErr)
	}
	if cred.Uid != 0 && int(cred.Uid) != os.Geteuid() {
		return nil, nil, fmt.Errorf("user %d: %w", cred.Uid, ErrNotPermitted)
	}
	return conn, socketUser{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, cred.Uid}, nil
}

func (socketCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are a server's")
}

func (socketCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix"}
}
func (c socketCredentials) Clone() credentials.TransportCredentials { return c }
func (socketCredentials) OverrideServerName(string) error           { return nil }
