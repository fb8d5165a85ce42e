package transport

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxMany bounds the datagrams of one sendmmsg.
const maxMany = 64

// many is what one sendmmsg sends.
type many struct {
	headers []messageHeader
	vectors []unix.Iovec
}

// sendEach sends the segments of b, at most maxMany, as datagrams of their own: for sockets and paths without
// segmentation offload. After an error those that stand before the refused one have been sent.
func (q *Queue) sendEach(sock *socket, m *Message, b []byte, segment int) error {
	if q.many.headers == nil {
		q.many.headers, q.many.vectors = make([]messageHeader, maxMany), make([]unix.Iovec, maxMany)
	}
	header := q.address(sock, m, 0)
	n := 0
	for rest := b; len(rest) > 0; n++ {
		size := min(segment, len(rest))
		q.many.vectors[n].Base = &rest[0]
		q.many.vectors[n].SetLen(size)
		header.Iov = &q.many.vectors[n]
		q.many.headers[n].header = header
		rest = rest[size:]
	}
	waited := false
	for headers := q.many.headers[:n]; len(headers) > 0; {
		sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(sock.fd), uintptr(unsafe.Pointer(&headers[0])),
			uintptr(len(headers)), unix.MSG_DONTWAIT, 0, 0)
		runtime.KeepAlive(b)
		switch {
		case errno == 0:
			headers, waited = headers[sent:], false
		case errno == unix.EINTR:
		case errno == unix.EAGAIN && !waited:
			waited = true
			sock.waitForRoom()
		default:
			return errno
		}
	}
	return nil
}
