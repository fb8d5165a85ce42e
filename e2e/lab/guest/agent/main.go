// Command agent is the first process of a guest: it sets the guest up and does what the test on the other end of the
// serial port asks.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bailiwick-net/bailiwick/e2e/lab/guest/agentapi"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "agent: this is the first process of a test guest, and nothing to run anywhere else")
		os.Exit(2)
	}
	err := serve()
	fmt.Fprintln(os.Stderr, "agent:", err)
	// The machine runs with -no-reboot: this is its end.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

func serve() error {
	for _, m := range []struct{ kind, path, options string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""},
		{"tmpfs", "/tmp", "mode=1777"}, {"tmpfs", "/run", "mode=755"},
	} {
		if err := unix.Mount(m.kind, m.path, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.path, err)
		}
	}
	for name, value := range map[string]string{
		"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C",
	} {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	if err := insertModules(); err != nil {
		return err
	}
	port, err := openPort()
	if err != nil {
		return err
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := http.Server{Handler: handler(), Protocols: &protocols}
	return server.Serve(&once{conn: agentapi.Port{File: port}, closed: make(chan struct{})})
}

// insertModules inserts the modules in the order in which they need each other.
func insertModules() error {
	const dir = "/lib/modules"
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(order)) {
		module, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if err := unix.InitModule(module, ""); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("insert module %s: %w", name, err)
		}
	}
	return nil
}

// openPort waits for the port, which appears a little after its driver.
func openPort() (*os.File, error) {
	for deadline := time.Now().Add(10 * time.Second); ; {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, path := range names {
			name, err := os.ReadFile(path)
			if err == nil && strings.TrimSpace(string(name)) == agentapi.PortName {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(path)), os.O_RDWR, 0)
			}
		}
		if time.Now().After(deadline) {
			return nil, errors.New("the serial port of the test does not appear")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// once is a listener with one connection.
type once struct {
	conn   net.Conn
	closed chan struct{}
}

func (l *once) Accept() (net.Conn, error) {
	if conn := l.conn; conn != nil {
		l.conn = nil
		return &closing{Conn: conn, closed: l.closed}, nil
	}
	<-l.closed
	return nil, errors.New("the test has closed the serial port")
}

func (l *once) Close() error   { return nil }
func (l *once) Addr() net.Addr { return agentapi.Port{}.LocalAddr() }

// closing tells when it is closed for the first time.
type closing struct {
	net.Conn
	closed chan struct{}
	first  sync.Once
}

func (c *closing) Close() error {
	c.first.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

func handler() http.Handler {
	mux := http.NewServeMux()
	for path, f := range map[string]func(http.ResponseWriter, *http.Request) error{
		agentapi.PathReady: func(http.ResponseWriter, *http.Request) error { return nil },
		agentapi.PathRun:   run, agentapi.PathStart: start, agentapi.PathSignal: signal,
		agentapi.PathDial: dial, agentapi.PathEcho: echo, agentapi.PathWrite: write, agentapi.PathRead: read,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				http.Error(w, err.Error(), http.StatusUnprocessableEntity)
			}
		})
	}
	return mux
}

// command prepares the command of a request; out and errOut get what it writes.
func command(ctx context.Context, r *http.Request, out, errOut io.Writer) (*exec.Cmd, error) {
	var c agentapi.Command
	if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
		return nil, err
	}
	if len(c.Args) == 0 {
		return nil, errors.New("no command to run")
	}
	cmd := exec.CommandContext(ctx, c.Args[0], c.Args[1:]...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdout, cmd.Stderr = out, errOut
	return cmd, nil
}

func run(w http.ResponseWriter, r *http.Request) error {
	var out, errOut bytes.Buffer
	cmd, err := command(r.Context(), r, &out, &errOut)
	if err != nil {
		return err
	}
	err = cmd.Run()
	return json.NewEncoder(w).Encode(result(err, &out, &errOut))
}

func result(err error, out, errOut *bytes.Buffer) agentapi.Result {
	res := agentapi.Result{Output: out.String(), Stderr: errOut.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		res.Code = exit.ExitCode()
	case err != nil:
		res.Code, res.Stderr = -1, res.Stderr+err.Error()
	}
	return res
}

func start(w http.ResponseWriter, r *http.Request) error {
	var out, errOut bytes.Buffer
	// The process outlives a test that does not listen any more; it ends with the machine.
	cmd, err := command(context.WithoutCancel(r.Context()), r, &out, &errOut)
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	fmt.Fprintln(w, cmd.Process.Pid)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	err = cmd.Wait()
	return json.NewEncoder(w).Encode(result(err, &out, &errOut))
}

func signal(_ http.ResponseWriter, r *http.Request) error {
	pid, err := strconv.Atoi(r.URL.Query().Get("pid"))
	if err != nil || pid <= 1 {
		return fmt.Errorf("process %d is none to send signals to: %w", pid, err)
	}
	number, err := strconv.Atoi(r.URL.Query().Get("signal"))
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.Signal(number))
}

func dial(w http.ResponseWriter, r *http.Request) error {
	conn, err := (&net.Dialer{}).DialContext(r.Context(), r.URL.Query().Get("network"), r.URL.Query().Get("address"))
	if err != nil {
		return err
	}
	defer conn.Close()
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	if err := control.Flush(); err != nil {
		return nil // the test has hung up
	}
	go func() {
		_, _ = io.Copy(conn, r.Body)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	buffer := make([]byte, 32<<10)
	for {
		n, err := conn.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return nil // the test has hung up
			}
			if err := control.Flush(); err != nil {
				return nil // the test has hung up
			}
		}
		if err != nil {
			return nil // the end of the connection is that of the answer
		}
	}
}

func echo(_ http.ResponseWriter, r *http.Request) error {
	listener, err := (&net.ListenConfig{}).Listen(context.WithoutCancel(r.Context()), "tcp", ":"+r.URL.Query().Get("port"))
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn) // the client sees what did not come back
			}()
		}
	}()
	return nil
}

func write(_ http.ResponseWriter, r *http.Request) error {
	path := r.URL.Query().Get("path")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	content, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	return os.WriteFile(path, content, 0o600)
}

func read(w http.ResponseWriter, r *http.Request) error {
	content, err := os.ReadFile(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	_, err = w.Write(content)
	return err
}
