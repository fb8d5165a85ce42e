package transport

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Defaults of Config.
const (
	DefaultIKEPort  = 500
	DefaultNATPort  = 4500
	defaultBuffer   = 4 << 20
	defaultIKEQueue = 4096
)

// socket is one descriptor. Its fields but gso never change after Listen.
type socket struct {
	fd   int
	v6   bool
	raw  bool
	port uint16
	gso  atomic.Bool // UDP_SEGMENT works; cleared when a device cannot do it
	gro  bool        // UDP_GRO works
	file *os.File    // owns fd where a goroutine reads the socket, nil where a packet thread does
}

// Sockets holds all of them. Its methods may be called by any goroutine, unless they say otherwise.
type Sockets struct {
	cfg      Config
	ike      []*socket
	queues   []*Queue
	screen   atomic.Pointer[Screen]
	ikeQueue *queue
	broken   chan error // one for each goroutine that could not go on
	done     chan struct{}
	wg       sync.WaitGroup
	once     sync.Once

	mtuMode sync.Mutex // held while a socket lets IP fragment one send

	ikeDropped, keepalives, short, sendDropped, tooBig, receiveErrors atomic.Uint64
}

// Stats counts what was not delivered.
type Stats struct {
	IKEWaiting    uint64 // IKE messages in the queue of ReadIKE now
	IKEDropped    uint64 // IKE messages that found the queue of ReadIKE full
	Keepalives    uint64 // NAT keepalives received
	Short         uint64 // datagrams too short or cut
	SendDropped   uint64 // sends that found the socket full
	TooBig        uint64 // sends over the path MTU
	ReceiveErrors uint64
}

// Stats returns the counters.
func (s *Sockets) Stats() Stats {
	return Stats{
		IKEWaiting: s.ikeQueue.waiting(), IKEDropped: s.ikeDropped.Load(), Keepalives: s.keepalives.Load(), Short: s.short.Load(),
		SendDropped: s.sendDropped.Load(), TooBig: s.tooBig.Load(), ReceiveErrors: s.receiveErrors.Load(),
	}
}

// Listen opens the sockets. IPv6 is left out where the kernel has none. Binding the ports and raw sockets needs
// privilege, the mark CAP_NET_ADMIN.
func Listen(cfg Config) (*Sockets, error) {
	cfg.setDefaults()
	if cfg.Queues < 1 || cfg.Queues > MaxQueues {
		return nil, fmt.Errorf("open the sockets of %d queues: want 1 to %d", cfg.Queues, MaxQueues)
	}
	s := &Sockets{cfg: cfg, ikeQueue: newQueue(cfg.IKEQueue), done: make(chan struct{})}
	if err := s.open(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	s.broken = make(chan error, len(s.ike)+3*len(s.queues))
	for _, sock := range s.ike {
		sock.adopt()
		s.wg.Go(func() { s.readIKEPort(sock) })
	}
	if cfg.IKEOnly {
		for _, q := range s.queues {
			for _, sock := range q.all {
				sock.adopt()
				s.wg.Go(func() { s.drain(sock) })
			}
		}
	}
	return s, nil
}

func (c *Config) setDefaults() {
	if c.KernelESP {
		c.IKEOnly, c.NoRawESP, c.NoOffload = true, true, true
	}
	if c.IKEPort == 0 {
		c.IKEPort = DefaultIKEPort
	}
	if c.NATPort == 0 {
		c.NATPort = DefaultNATPort
	}
	if c.Queues == 0 {
		c.Queues = 1
	}
	if c.ReceiveBuffer == 0 {
		c.ReceiveBuffer = defaultBuffer
	}
	if c.SendBuffer == 0 {
		c.SendBuffer = defaultBuffer
	}
	if c.IKEQueue == 0 {
		c.IKEQueue = defaultIKEQueue
	}
}

// open makes every socket; what it made before an error is in s, for Close.
func (s *Sockets) open() error {
	for range s.cfg.Queues {
		s.queues = append(s.queues, &Queue{sockets: s})
	}
	for _, v6 := range []bool{false, true} {
		if v6 && s.cfg.NoIPv6 || !v6 && s.cfg.NoIPv4 {
			continue
		}
		ike, err := s.openIKE(v6)
		if v6 && errors.Is(err, unix.EAFNOSUPPORT) {
			continue
		}
		if err != nil {
			return err
		}
		s.ike = append(s.ike, ike...)
		if err := s.openNAT(v6); err != nil {
			return err
		}
		if s.cfg.NoRawESP {
			continue
		}
		for i, q := range s.queues {
			raw, err := s.openOne(v6, true, 0, false)
			if err != nil {
				return err
			}
			q.add(raw)
			if err := s.divideRaw(raw, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// openOne opens one socket; shared lets others have the same port.
func (s *Sockets) openOne(v6, raw bool, port uint16, shared bool) (*socket, error) {
	family, kind, protocol := unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP
	name := fmt.Sprintf("UDP port %d", port)
	if v6 {
		family = unix.AF_INET6
	}
	if raw {
		kind, protocol, name = unix.SOCK_RAW, unix.IPPROTO_ESP, "raw ESP"
	}
	if v6 {
		name += " over IPv6"
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	sock := &socket{fd: fd, v6: v6, raw: raw, port: port}
	if err := s.configure(sock, shared); err != nil {
		_ = unix.Close(fd) // the first error is the one to report
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return sock, nil
}

// configure sets the options and binds the socket.
func (s *Sockets) configure(sock *socket, shared bool) error {
	nat := !sock.raw && sock.port == s.cfg.NATPort
	type option struct {
		name                 string
		level, number, value int
	}
	var options []option
	if s.cfg.Mark != 0 {
		options = append(options, option{"mark", unix.SOL_SOCKET, unix.SO_MARK, int(s.cfg.Mark)})
	}
	if shared {
		options = append(options, option{"port sharing", unix.SOL_SOCKET, unix.SO_REUSEPORT, 1})
	}
	// ESP must not be fragmented behind the back of the datapath, which answers for the path MTU; a long IKE message
	// may be, where the peer does not do RFC 7383.
	discover := unix.IP_PMTUDISC_WANT
	if nat || sock.raw {
		discover = unix.IP_PMTUDISC_DO
	}
	if sock.v6 && !sock.raw {
		options = append(options, option{"IPv6 only", unix.SOL_IPV6, unix.IPV6_V6ONLY, 1})
	}
	if sock.v6 {
		options = append(options,
			option{"packet information", unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1},
			option{"traffic class", unix.SOL_IPV6, unix.IPV6_RECVTCLASS, 1},
			option{"hop limit", unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1},
			option{"path MTU discovery", unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, discover})
	} else {
		options = append(options,
			option{"packet information", unix.SOL_IP, unix.IP_PKTINFO, 1},
			option{"type of service", unix.SOL_IP, unix.IP_RECVTOS, 1},
			option{"time to live", unix.SOL_IP, unix.IP_RECVTTL, 1},
			option{"path MTU discovery", unix.SOL_IP, unix.IP_MTU_DISCOVER, discover})
	}
	if nat && s.cfg.KernelESP {
		const espInUDP = 2 // UDP_ENCAP_ESPINUDP: RFC 3948
		options = append(options, option{"ESP in UDP of the kernel", unix.IPPROTO_UDP, unix.UDP_ENCAP, espInUDP})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(sock.fd, o.level, o.number, o.value); err != nil {
			return fmt.Errorf("set %s to %d: %w", o.name, o.value, err)
		}
	}
	if err := setBuffer(sock.fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, s.cfg.ReceiveBuffer); err != nil {
		return err
	}
	if err := setBuffer(sock.fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, s.cfg.SendBuffer); err != nil {
		return err
	}
	if nat && !s.cfg.NoOffload {
		// Kernels before 4.18 and 5.0 have neither; then every packet is a call of its own.
		sock.gso.Store(unix.SetsockoptInt(sock.fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 0) == nil)
		sock.gro = unix.SetsockoptInt(sock.fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	}
	if sock.raw {
		return nil
	}
	var address unix.Sockaddr = &unix.SockaddrInet4{Port: int(sock.port)}
	if sock.v6 {
		address = &unix.SockaddrInet6{Port: int(sock.port)}
	}
	if err := unix.Bind(sock.fd, address); err != nil {
		return fmt.Errorf("bind (does another IKE daemon run?): %w", err)
	}
	return nil
}

// setBuffer asks for more than the system's limit, and takes what that limit gives where privilege is missing.
func setBuffer(fd, force, plain, size int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size) == nil {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, size); err != nil {
		return fmt.Errorf("set socket buffer to %d octets: %w", size, err)
	}
	return nil
}

// Close ends every ReadIKE with ErrClosed and closes the sockets. Packet threads must have stopped, and no Write must be
// under way.
func (s *Sockets) Close() error {
	var errs []error
	s.once.Do(func() {
		close(s.done)
		all := slices.Clone(s.ike)
		for _, q := range s.queues {
			all = append(all, q.all...)
		}
		for _, sock := range all {
			if sock.file != nil { // ends the wait of its reader
				errs = append(errs, sock.file.SetReadDeadline(time.Unix(1, 0)))
			}
		}
		s.wg.Wait()
		for _, sock := range all {
			errs = append(errs, sock.close())
		}
	})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close sockets: %w", err)
	}
	return nil
}

// adopt makes the network poller of the runtime wait for the socket.
func (k *socket) adopt() { k.file = os.NewFile(uintptr(k.fd), "udp") }

func (k *socket) close() error {
	if k.file != nil {
		return k.file.Close()
	}
	return unix.Close(k.fd)
}

// Queue returns the sockets of packet thread i, 0 to Queues()-1.
func (s *Sockets) Queue(i int) *Queue { return s.queues[i] }

// Queues returns how many there are.
func (s *Sockets) Queues() int { return len(s.queues) }

// Offloads tells whether the kernel cuts what is sent from the NAT port into datagrams (UDP_SEGMENT) and joins those that
// arrive (UDP_GRO), on every socket.
func (s *Sockets) Offloads() (segmentation, joining bool) {
	segmentation, joining = true, true
	for _, q := range s.queues {
		for _, sock := range q.all {
			if !sock.raw {
				segmentation, joining = segmentation && sock.gso.Load(), joining && sock.gro
			}
		}
	}
	return segmentation, joining
}

// IPv6 reports whether there are sockets for IPv6.
func (s *Sockets) IPv6() bool {
	for _, sock := range s.ike {
		if sock.v6 {
			return true
		}
	}
	return false
}

// PathMTU asks the kernel for the MTU of the path in octets, outer IP header included: that of the route, or less after
// an ICMP "packet too big". The zero Addr as local lets the kernel choose.
func (s *Sockets) PathMTU(local, remote netip.Addr) (int, error) {
	family, level, option := unix.AF_INET, unix.SOL_IP, unix.IP_MTU
	if !remote.Is4() {
		family, level, option = unix.AF_INET6, unix.SOL_IPV6, unix.IPV6_MTU
	}
	fail := func(err error) (int, error) {
		return 0, fmt.Errorf("ask for the path MTU to %s: %w", remote, err)
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	if s.cfg.Mark != 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(s.cfg.Mark)); err != nil {
			return fail(err)
		}
	}
	if local.IsValid() {
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(local, 0))); err != nil {
			return fail(err)
		}
	}
	if err := unix.Connect(fd, sockaddr(netip.AddrPortFrom(remote, s.cfg.NATPort))); err != nil {
		return fail(err)
	}
	mtu, err := unix.GetsockoptInt(fd, level, option)
	if err != nil {
		return fail(err)
	}
	return mtu, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
