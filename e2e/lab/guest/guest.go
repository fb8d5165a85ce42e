// Package guest boots small virtual machines for tests: Debian 12's kernel, whose ESP and AH a test machine's own kernel
// may lack, with the programs of a root, on a wire of a lab.
//
//	g, err := guest.Start(ctx, guest.Config{Switch: bridge, Root: r, Dir: dir}) // about 4 s, without KVM
//	g.Run(ctx, "ip", "addr", "add", "10.9.0.2/24", "dev", guest.Device)
//	conn, err := g.DialContext(ctx, "tcp", "10.9.0.1:7007")                    // from within the guest
//
// Its invariant: a guest that Start returned answers; nothing of it outlives the lab whose switch it is attached to; the
// image is of the machine's own Debian mirror by way of e2e/lab/root, and kept in the user's cache. The guest is slow: it
// shows what is right, never what is fast. It needs root and the Debian package qemu-system-x86. It leaves what runs in a
// guest to its callers.
package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/guest/agentapi"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// Device is the network device of a guest.
const Device = "eth0"

// bootTimeout bounds the time until the agent answers, on a machine that does much else.
const bootTimeout = 90 * time.Second

// Config configures a Guest.
type Config struct {
	// Switch is where the guest's device is attached. The machine runs on the switch's host and ends with its lab.
	Switch *lab.Bridge
	// Root holds the programs.
	Root *root.Root
	// Dir keeps the files of the run. Its path must be short: it holds a unix socket.
	Dir string
	// Memory is that of the guest in MiB; 0 means 512.
	Memory int
	// Programs are further ones: files of this machine by their path in the guest, without a leading slash, in a directory
	// that the root has.
	Programs map[string]string
}

// Guest is a running virtual machine. Its methods may be called from any goroutine.
type Guest struct {
	dir     string
	machine *lab.Process
	client  *http.Client
	port    net.Conn
}

// Start boots a guest and waits until its agent answers. Its device is up and has no address.
func Start(ctx context.Context, config Config) (*Guest, error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	i, err := openImage(ctx, config.Root)
	if err != nil {
		return nil, err
	}
	initramfs, err := i.addAgent(ctx, config.Dir, config.Programs)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(config.Dir, "agent")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	wire, err := config.Switch.AttachTap()
	if err != nil {
		return nil, err
	}
	defer wire.Close()
	g := &Guest{dir: config.Dir}
	if g.machine, err = g.boot(config, i.kernel, initramfs, socket, wire); err != nil {
		return nil, err
	}
	if err := g.connect(ctx, listener); err != nil {
		return nil, fmt.Errorf("boot a guest: %w\n%s", errors.Join(err, g.Kill()), g.Console())
	}
	return g, nil
}

// boot starts the machine. Of the machine types, microvm has the least to probe.
func (g *Guest) boot(config Config, kernel, initramfs, socket string, wire *os.File) (*lab.Process, error) {
	memory := config.Memory
	if memory == 0 {
		memory = 512
	}
	commandLine := "console=ttyS0 quiet panic=-1 reboot=t mitigations=off no_timer_check rdinit=/init"
	if khz, err := clock(); err == nil {
		// An emulated timer is no measure of the clock.
		commandLine += " tsc=reliable tsc_early_khz=" + strconv.Itoa(khz)
	}
	console, err := os.Create(filepath.Join(g.dir, "console"))
	if err != nil {
		return nil, err
	}
	defer console.Close()
	cmd := config.Switch.Host.Command(
		"qemu-system-x86_64", "-machine", "microvm,rtc=on", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-smp", "1", "-m", strconv.Itoa(memory),
		"-kernel", kernel, "-initrd", initramfs, "-append", commandLine, "-serial", "stdio",
		"-chardev", "socket,id=agent,path="+socket, "-device", "virtio-serial-device",
		"-device", "virtserialport,chardev=agent,name="+agentapi.PortName,
		"-netdev", "tap,id=wire,fd=3", "-device", "virtio-net-device,netdev=wire,mac=52:54:00:00:00:02")
	cmd.ExtraFiles = []*os.File{wire}
	cmd.Stdout, cmd.Stderr = console, console
	return config.Switch.Host.Start(cmd)
}

// clock reads the frequency of the processor in kHz.
func clock() (int, error) {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		key, value, _ := strings.Cut(line, ":")
		if strings.TrimSpace(key) == "cpu MHz" {
			mhz, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return int(mhz * 1000), err
		}
	}
	return 0, errors.New("the processor does not tell its frequency")
}

// connect takes the machine's end of the serial port and waits until the agent answers on it.
func (g *Guest) connect(ctx context.Context, listener *net.UnixListener) error {
	deadline, _ := ctx.Deadline()
	if err := listener.SetDeadline(deadline); err != nil {
		return err
	}
	type accepted struct {
		conn net.Conn
		err  error
	}
	result := make(chan accepted, 1)
	go func() {
		conn, err := listener.Accept()
		result <- accepted{conn, err}
	}()
	select {
	case <-g.machine.Done():
		return fmt.Errorf("the machine ended at once: %w", g.machine.Wait())
	case a := <-result:
		if a.err != nil {
			return a.err
		}
		g.port = a.conn
	}
	g.client = newClient(g.port)
	ready := make(chan error, 1)
	go func() {
		_, err := g.call(ctx, agentapi.PathReady, nil, nil)
		ready <- err
	}()
	select {
	case <-g.machine.Done():
		return fmt.Errorf("the machine ended before its agent answered: %w", g.machine.Wait())
	case err := <-ready:
		if err != nil {
			return err
		}
	}
	_, err := g.RunContext(ctx, "ip", "link", "set", "lo", "up")
	if err == nil {
		_, err = g.RunContext(ctx, "ip", "link", "set", Device, "up")
	}
	return err
}

// Console returns what kernel and agent have written.
func (g *Guest) Console() string {
	content, err := os.ReadFile(filepath.Join(g.dir, "console"))
	if err != nil {
		return err.Error()
	}
	return string(content)
}

// Done is closed when the machine has ended.
func (g *Guest) Done() <-chan struct{} { return g.machine.Done() }

// Kill ends the machine at once, as pulling its plug does.
func (g *Guest) Kill() error {
	err := g.machine.Kill()
	if g.port != nil {
		_ = g.port.Close()
	}
	return err
}

// Stop hangs up, which ends the agent and with it the machine, and says whether it ended well.
func (g *Guest) Stop() error {
	g.client.CloseIdleConnections()
	if err := g.port.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return errors.Join(err, g.Kill())
	}
	select {
	case <-g.machine.Done():
		return g.machine.Wait()
	case <-time.After(10 * time.Second):
		return errors.Join(errors.New("the guest does not end"), g.Kill())
	}
}
