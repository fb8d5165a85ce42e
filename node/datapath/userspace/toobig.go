package userspace

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/packet"
)

// tooBigPause is the least time between two messages of routers that the packet thread is asked about: the same is told
// about every packet that does not fit, so none that counts is lost for long.
const tooBigPause = 5 * time.Millisecond

// Of linux/icmp.h and linux/icmpv6.h, what x/sys does not name.
const (
	icmpFilter      = 1
	typeUnreachable = 3
	icmpv6Filter    = 1
	typeTooBig6     = 2
)

// routers hears what routers tell about packets that are too long. Its own sockets do: an error that is reported on the
// socket of ESP itself would cost the next packet, and anyone can send one.
type routers struct{ files []*os.File }

func openRouters(v6 bool) (*routers, error) {
	r := &routers{}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err == nil {
		r.files = append(r.files, os.NewFile(uintptr(fd), "icmp"))
		err = unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << typeUnreachable))
	}
	if err == nil && v6 {
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6); err == nil {
			r.files = append(r.files, os.NewFile(uintptr(fd), "icmpv6"))
			filter := unix.ICMPv6Filter{Data: [8]uint32{^uint32(1 << typeTooBig6)}}
			for i := 1; i < len(filter.Data); i++ {
				filter.Data[i] = ^uint32(0)
			}
			err = unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, icmpv6Filter, &filter)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for messages of routers: %w", err), r.close())
	}
	return r, nil
}

// run calls told about each message that quotes ESP, until close.
func (r *routers) run(told func(tooBig)) {
	done := make(chan struct{})
	for i, f := range r.files {
		go func() {
			defer func() { done <- struct{}{} }()
			r.read(f, i == 1, told)
		}()
	}
	for range r.files {
		<-done
	}
}

func (r *routers) read(f *os.File, v6 bool, told func(tooBig)) {
	b := make([]byte, 2048)
	var last time.Time
	for {
		n, err := f.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			<-time.After(tooBigPause)
			continue
		}
		if time.Since(last) < tooBigPause {
			continue
		}
		icmp := b[:n]
		if !v6 { // a raw IPv4 socket gives the IP header too
			info, err := packet.Parse(icmp)
			if err != nil {
				continue
			}
			icmp = icmp[info.HeaderLen:info.Length]
		}
		t, err := packet.ParseTooBig(icmp, v6)
		if err != nil {
			continue
		}
		if q, ok := t.ESP(); ok {
			last = time.Now()
			told(tooBig{q, t.MTU})
		}
	}
}

func (r *routers) close() error {
	var errs []error
	for _, f := range r.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// listen hands the packet thread what routers tell, until the sockets are closed.
func (b *backend) listen() {
	defer close(b.listened)
	b.routers.run(func(c tooBig) {
		if err := b.do(c); err != nil && !errors.Is(err, errClosed) {
			b.cfg.Logger.Warn("cannot take note of a path MTU", "mtu", c.mtu, "error", err)
		}
	})
}
