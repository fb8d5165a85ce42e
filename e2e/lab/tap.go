package lab

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Tap makes an Ethernet device on the host whose other end is the returned file: what a virtual machine takes for the
// wire of its own device. It is up, and disappears when the file is closed everywhere.
func (h *Host) Tap(device string) (*os.File, error) {
	var file *os.File
	err := h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		file = os.NewFile(uintptr(fd), "/dev/net/tun")
		request, err := unix.NewIfreq(device)
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	})
	if err == nil {
		err = ip("-n", h.Namespace, "link", "set", device, "up")
	}
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		return nil, fmt.Errorf("make device %s of host %s for a virtual machine: %w", device, h.Name, err)
	}
	return file, nil
}

// AttachTap gives the switch a port for a virtual machine. See Host.Tap.
func (b *Bridge) AttachTap() (*os.File, error) {
	port := fmt.Sprintf("p%d", b.port)
	b.port++
	file, err := b.Host.Tap(port)
	if err != nil {
		return nil, err
	}
	if err := ip("-n", b.Host.Namespace, "link", "set", port, "master", "br0"); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}
