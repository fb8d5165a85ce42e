package tun

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Values of linux/if_tun.h that x/sys does not name.
const (
	tunFUSO4 = 0x20
	tunFUSO6 = 0x40
	// iffTUNExcl makes the kernel refuse a name that is in use (EBUSY), instead of adding a queue to somebody's device.
	iffTUNExcl = 0x8000
)

// busyRetry bounds the wait for the queues of a process that died a moment ago: the kernel frees them asynchronously.
const (
	busyRetry    = 2 * time.Second
	busyInterval = 20 * time.Millisecond
)

// Device is a TUN device with its queues. It vanishes with Close, or with the process.
type Device struct {
	name       string
	index      int
	offloads   Offload
	gsoMaxSize int
	queues     []*Queue
}

// Open makes the device, sets its limits and addresses and brings it up. What it made is gone again after an error.
// Offloads that the kernel does not know are left out: Offloads tells.
func Open(cfg Config) (*Device, error) {
	if cfg.Queues == 0 {
		cfg.Queues = 1
	}
	if cfg.GSOMaxSize == 0 {
		cfg.GSOMaxSize = GSOMaxSize
	}
	if len(cfg.Name) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("make TUN %q: name is longer than %d octets", cfg.Name, unix.IFNAMSIZ-1)
	}
	d := &Device{name: cfg.Name}
	for len(d.queues) < cfg.Queues {
		if err := d.addQueue(cfg); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	if err := d.configure(cfg); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// addQueue attaches one more queue; the first makes the device and learns its name and offloads.
func (d *Device) addQueue(cfg Config) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open /dev/net/tun (is the tun module loaded, is the process privileged?): %w", err)
	}
	if err := d.attach(fd, cfg); err != nil {
		_ = unix.Close(fd) // the error of attaching is the one to report
		return err
	}
	q, err := NewQueue(fd, d.offloads)
	if err != nil {
		_ = unix.Close(fd)
		return err
	}
	d.queues = append(d.queues, q)
	return nil
}

func (d *Device) attach(fd int, cfg Config) error {
	request, err := unix.NewIfreq(d.name)
	if err != nil {
		return fmt.Errorf("make TUN %q: %w", d.name, err)
	}
	flags := uint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if cfg.Queues > 1 {
		flags |= unix.IFF_MULTI_QUEUE
		if len(d.queues) == 0 {
			flags |= iffTUNExcl
		}
	}
	request.SetUint16(flags)
	retry := time.NewTicker(busyInterval)
	defer retry.Stop()
	for deadline := time.Now().Add(busyRetry); ; <-retry.C {
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("make TUN %q: %w", d.name, err)
	}
	first := len(d.queues) == 0
	d.name = request.Name()
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, HeaderLen); err != nil {
		return fmt.Errorf("set header length of TUN %q: %w", d.name, err)
	}
	if first && !cfg.NoOffload {
		d.offloads = negotiate(fd)
	}
	return nil
}

// negotiate asks for all offloads, then for fewer: an older kernel refuses the whole set for one bit it does not know.
func negotiate(fd int) Offload {
	const tcp = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	for _, try := range []struct {
		bits     int
		offloads Offload
	}{
		{tcp | tunFUSO4 | tunFUSO6, OffloadChecksum | OffloadTSO4 | OffloadTSO6 | OffloadUSO},
		{tcp, OffloadChecksum | OffloadTSO4 | OffloadTSO6},
		{unix.TUN_F_CSUM, OffloadChecksum},
	} {
		if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, try.bits) == nil {
			return try.offloads
		}
	}
	return 0
}

// Name returns the name the kernel gave.
func (d *Device) Name() string { return d.name }

// Index returns the interface index.
func (d *Device) Index() int { return d.index }

// Offloads returns what the kernel took.
func (d *Device) Offloads() Offload { return d.offloads }

// GSOMaxSize returns the longest super-packet of the device's own routes in octets: Config.GSOMaxSize, or 65536 where the
// kernel cannot be told. Packets that a route hook sends to the device later obey the device they were made for.
func (d *Device) GSOMaxSize() int { return d.gsoMaxSize }

// Queue returns queue i.
func (d *Device) Queue(i int) *Queue { return d.queues[i] }

// Queues returns how many there are.
func (d *Device) Queues() int { return len(d.queues) }

// Close wakes every Wait and removes the device.
func (d *Device) Close() error {
	var errs []error
	for _, q := range d.queues {
		errs = append(errs, q.Close())
	}
	return errors.Join(errs...)
}
