package transport

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// MaxQueues is the greatest Config.Queues: as many Child SAs as RFC 9611 is asked for with the same selectors.
const MaxQueues = 64

// QueueOf is the queue among n that the ESP packets of an inbound SPI arrive at: its lowest six bits tell. Where the
// kernel joined packets of several SPIs, they all arrive at the queue of the first.
func QueueOf(spi uint32, n int) int { return int(spi%MaxQueues) % n }

// instruction makes one of a classic BPF program.
func instruction(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

// divideESP is the program that divides what arrives at the NAT port among n sockets: ESP as QueueOf says, IKE and what is
// too short to be either to the first. Offsets count from the end of the UDP header.
func divideESP(n int) []unix.SockFilter {
	return []unix.SockFilter{
		instruction(unix.BPF_LD|unix.BPF_W|unix.BPF_LEN, 0),
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 0, Jf: 4, K: 4},
		instruction(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0), // the SPI, or 0 before IKE (RFC 3948 2.2)
		instruction(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, MaxQueues),
		instruction(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, uint32(n)),
		instruction(unix.BPF_RET|unix.BPF_A, 0),
		instruction(unix.BPF_RET|unix.BPF_K, 0),
	}
}

// acceptESP is the program that lets a raw socket have the packets of its queue alone: without it each of them gets a copy
// of every packet.
func acceptESP(v6 bool, queue, n int) []unix.SockFilter {
	load := []unix.SockFilter{ // a raw IPv4 socket gives the IP header too
		instruction(unix.BPF_LDX|unix.BPF_B|unix.BPF_MSH, 0),
		instruction(unix.BPF_LD|unix.BPF_W|unix.BPF_IND, 0),
	}
	if v6 {
		load = []unix.SockFilter{instruction(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0)}
	}
	return append(load,
		instruction(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, MaxQueues),
		instruction(unix.BPF_ALU|unix.BPF_MOD|unix.BPF_K, uint32(n)),
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 0, Jf: 1, K: uint32(queue)},
		instruction(unix.BPF_RET|unix.BPF_K, maxDatagram+1),
		instruction(unix.BPF_RET|unix.BPF_K, 0),
	)
}

func attach(fd, option int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// openNAT opens the sockets of the NAT port, one for each queue.
func (s *Sockets) openNAT(v6 bool) error {
	n := len(s.queues)
	if n > 1 {
		// Sockets that share a port do not notice another daemon that shares it as well; this one does.
		alone, err := s.openOne(v6, false, s.cfg.NATPort, false)
		if err != nil {
			return err
		}
		if err := unix.Close(alone.fd); err != nil {
			return fmt.Errorf("close UDP port %d: %w", s.cfg.NATPort, err)
		}
	}
	for i, q := range s.queues { // the order of binding is the one that the program counts in
		nat, err := s.openOne(v6, false, s.cfg.NATPort, n > 1)
		if err != nil {
			return err
		}
		q.add(nat)
		if i > 0 || n == 1 {
			continue
		}
		if err := attach(nat.fd, unix.SO_ATTACH_REUSEPORT_CBPF, divideESP(n)); err != nil {
			return fmt.Errorf("divide UDP port %d among %d queues by SPI: %w", s.cfg.NATPort, n, err)
		}
	}
	return nil
}

// divideRaw leaves a raw socket the packets of its queue. Those that came before it did are at every queue: of a packet that
// arrives twice, the replay window takes one.
func (s *Sockets) divideRaw(raw *socket, queue int) error {
	if len(s.queues) == 1 {
		return nil
	}
	if err := attach(raw.fd, unix.SO_ATTACH_FILTER, acceptESP(raw.v6, queue, len(s.queues))); err != nil {
		return fmt.Errorf("leave raw ESP of queue %d its SPIs: %w", queue, err)
	}
	return nil
}
