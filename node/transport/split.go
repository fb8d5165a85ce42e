package transport

import (
	"errors"

	"golang.org/x/sys/unix"
)

// The IKE port has three sockets for each family, among which the kernel divides what arrives by the first octets, so
// that each kind has a buffer of its own: a flood of first messages overflows the one for first messages.
const (
	// shareOthers is for messages with a responder's SPI: those of IKE SAs, and what pretends to be one.
	shareOthers = iota
	// shareCookies is for first messages that begin with a notify, as those with a cookie do (RFC 7296 2.6).
	shareCookies
	// shareFirst is for all other first messages, and for what is too short to be one.
	shareFirst
	shares
)

// splitIKE is the program that divides: it returns the number of the share. Offsets count from the IKE header (RFC 7296
// 3.1): 8 is the responder's SPI, 16 the type of the first payload.
func splitIKE() []unix.SockFilter {
	const (
		headerLen  = 28
		typeNotify = 41
	)
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at}
	}
	jump := func(test uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	share := func(n uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: n} }
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_LEN},
		jump(unix.BPF_JGE, headerLen, 0, 7),
		load(unix.BPF_W, 8),
		jump(unix.BPF_JEQ, 0, 0, 4),
		load(unix.BPF_W, 12),
		jump(unix.BPF_JEQ, 0, 0, 2),
		load(unix.BPF_B, 16),
		jump(unix.BPF_JEQ, typeNotify, 2, 1),
		share(shareOthers),
		share(shareFirst),
		share(shareCookies),
	}
}

// openIKE opens the sockets of the IKE port; one alone where the kernel cannot divide.
func (s *Sockets) openIKE(v6 bool) ([]*socket, error) {
	// Sockets that share a port do not notice another daemon that shares it as well; this one does.
	alone, err := s.openOne(v6, false, s.cfg.IKEPort, false)
	if err != nil {
		return nil, err
	}
	if err := unix.Close(alone.fd); err != nil {
		return nil, err
	}
	var all []*socket
	fail := func(err error) ([]*socket, error) {
		for _, sock := range all {
			err = errors.Join(err, unix.Close(sock.fd))
		}
		return nil, err
	}
	for range shares { // the order of binding is that of the shares
		sock, err := s.openOne(v6, false, s.cfg.IKEPort, true)
		if err != nil {
			return fail(err)
		}
		all = append(all, sock)
	}
	if attach(all[0].fd, unix.SO_ATTACH_REUSEPORT_CBPF, splitIKE()) == nil {
		return all, nil
	}
	for len(all) > 1 {
		last := all[len(all)-1]
		all = all[:len(all)-1]
		if err := unix.Close(last.fd); err != nil {
			return fail(err)
		}
	}
	return all, nil
}
