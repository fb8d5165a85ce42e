package userspace

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/node/transport"
	"github.com/bailiwick-net/bailiwick/node/tun"
)

// recoverPause keeps a TUN that somebody deletes again and again from being made as often.
const recoverPause = 200 * time.Millisecond

// namespace is the network namespace that New was called in. Sockets keep to theirs by themselves; a TUN device has to
// be made by a thread that is there.
type namespace struct{ file *os.File }

func currentNamespace() (namespace, error) {
	f, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return namespace{}, fmt.Errorf("open the network namespace of the datapath: %w", err)
	}
	return namespace{f}, nil
}

// do calls f on a thread in the namespace. The thread ends with the call, so that no other goroutine runs on it.
func (n namespace) do(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("enter the network namespace of the datapath: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// openDevice makes the TUN, and for each of its queues a poller over it and its sockets.
func (b *backend) openDevice() (*tun.Device, []*transport.Poller, error) {
	device, err := tun.Open(tun.Config{Name: b.cfg.Name, MTU: tunMTU, Queues: b.cfg.Sockets.Queues(), TxQueueLen: 1000, GSOMaxSize: gsoMaxSize})
	if err != nil {
		return nil, nil, err
	}
	for _, note := range prepareDevice(b.cfg.Name) {
		b.cfg.Logger.Warn("TUN lacks a setting", "reason", note)
	}
	if err := b.routing.install(device.Index()); err != nil {
		return nil, nil, errors.Join(err, device.Close())
	}
	var pollers []*transport.Poller
	for i := range device.Queues() {
		poller, err := transport.NewPoller(append([]int{device.Queue(i).FD()}, b.cfg.Sockets.Queue(i).FDs()...)...)
		if err != nil {
			return nil, nil, errors.Join(err, closeAll(pollers), device.Close())
		}
		pollers = append(pollers, poller)
	}
	return device, pollers, nil
}

func closeAll(pollers []*transport.Poller) error {
	var errs []error
	for _, p := range pollers {
		errs = append(errs, p.Close())
	}
	return errors.Join(errs...)
}

// exchange gives a packet thread another queue of the TUN.
type exchange struct {
	queue  *tun.Queue
	poller *transport.Poller
}

func (c exchange) run(l *loop) error {
	l.tun, l.writer, l.lost = c.queue, tun.NewWriter(c.queue), false
	l.poller.Store(c.poller)
	return nil
}

// recoverTUN makes the TUN anew when the packet thread has lost it. Until then the kernel refuses what should go
// through it.
func (b *backend) recoverTUN() {
	defer close(b.recovered)
	for range b.world.gone {
		switch made, err := b.remake(); {
		case errors.Is(err, errClosed):
			return
		case err != nil:
			b.cfg.Logger.Error("TUN was deleted and cannot be made again", "device", b.cfg.Name, "error", err)
		case made:
			b.cfg.Logger.Warn("TUN was deleted by another program and is made again", "device", b.cfg.Name)
		}
		<-time.After(recoverPause)
	}
}

func (b *backend) remake() (made bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.closed {
		return false, errClosed
	}
	// Each thread tells when it notices, and the last one may do so after the first was heard.
	missed := false
	if err := b.do(lost{&missed}); err != nil || !missed {
		return false, err
	}
	var device *tun.Device
	var pollers []*transport.Poller
	err = b.home.do(func() (err error) {
		device, pollers, err = b.openDevice()
		return err
	})
	if err != nil {
		return false, err
	}
	old := b.device
	b.device = device
	var errs []error
	for i, l := range b.world.loops {
		former := l.poller.Load()
		if err := l.do(exchange{device.Queue(i), pollers[i]}); err != nil {
			errs = append(errs, err, pollers[i].Close())
			continue
		}
		errs = append(errs, former.Close())
	}
	return true, errors.Join(append(errs, old.Close())...)
}

// lost asks whether a thread has found the TUN deleted.
type lost struct{ into *bool }

func (c lost) run(l *loop) error {
	*c.into = slices.ContainsFunc(l.loops, func(thread *loop) bool { return thread.lost })
	return nil
}
