package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bailiwick-net/bailiwick/e2e/lab"
	"github.com/bailiwick-net/bailiwick/e2e/lab/labtest"
	"github.com/bailiwick-net/bailiwick/e2e/lab/root"
)

// TestGuest boots a guest and does with it what tests rely on.
func TestGuest(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a guest on a wire of a lab needs root")
	}
	programs, err := root.Open(t.Context(), root.StrongSwan)
	if errors.Is(err, root.ErrUnreachable) {
		t.Skipf("a newer strongSwan is needed: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	l := labtest.New(t, "bwguest-")
	bridge, err := l.Bridge("switch")
	if err != nil {
		t.Fatal(err)
	}
	host, err := l.Host("host")
	if err != nil {
		t.Fatal(err)
	}
	if err := bridge.Attach(lab.End{Host: host, Device: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}}); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "guest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	g, err := Start(t.Context(), Config{Switch: bridge, Root: programs, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Run("ip", "addr", "add", "10.9.0.2/24", "dev", Device); err != nil {
		t.Fatal(err)
	}
	// Every algorithm that peers use, with its key in octets and the length of its integrity value in bits.
	for i, c := range []struct {
		name, kind string
		args       []string
	}{
		{"AES-GCM", "esp", []string{"aead", "rfc4106(gcm(aes))", key(36), "128"}},
		{"ChaCha20-Poly1305", "esp", []string{"aead", "rfc7539esp(chacha20,poly1305)", key(36), "128"}},
		{"AES-CBC with SHA-256", "esp", []string{"enc", "cbc(aes)", key(32), "auth-trunc", "hmac(sha256)", key(32), "128"}},
		{"AES-CTR with SHA-512", "esp", []string{"enc", "rfc3686(ctr(aes))", key(20), "auth-trunc", "hmac(sha512)", key(64), "256"}},
		{"AH with SHA-256", "ah", []string{"auth-trunc", "hmac(sha256)", key(32), "128"}},
	} {
		args := append([]string{"ip", "xfrm", "state", "add", "src", "10.9.0.1", "dst", "10.9.0.2", "proto", c.kind, "spi", fmt.Sprint(4096 + i), "mode", "transport"}, c.args...)
		if _, err := g.Run(args...); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := host.Run("ping", "-c", "1", "-W", "5", "10.9.0.2"); err != nil {
		t.Errorf("the guest does not answer on its wire: %v", err)
	}
	const port = 7007
	if err := errors.Join(host.ServeEcho(t.Context(), port), g.ServeEcho(t.Context(), port)); err != nil {
		t.Fatal(err)
	}
	talk := func(conn net.Conn, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if err := lab.RoundTrip(conn, bytes.Repeat([]byte("through the wire "), 1000), time.Now().Add(20*time.Second)); err != nil {
			t.Errorf("echo through the wire: %v", err)
		}
	}
	talk(g.DialContext(t.Context(), "tcp", "10.9.0.1:7007"))
	var conn net.Conn
	err = host.Do(func() error {
		conn, err = net.DialTimeout("tcp", "10.9.0.2:7007", 20*time.Second)
		return err
	})
	talk(conn, err)
	if _, err := g.DialContext(t.Context(), "tcp", "10.9.0.1:1"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a connection to a closed port gives %v", err)
	}
	if err := g.WriteFile(t.Context(), "/etc/test/file", []byte("content")); err != nil {
		t.Error(err)
	}
	if content, err := g.ReadFile(t.Context(), "/etc/test/file"); err != nil || string(content) != "content" {
		t.Errorf("the file holds %q, %v", content, err)
	}
	sleeper, err := g.Start([]string{"NAPS=1"}, "sh", "-c", "test $NAPS = 1 && exec sleep 1000")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-sleeper.Done():
		t.Errorf("the process ended: %v", sleeper.Wait())
	default:
	}
	if err := sleeper.Kill(); err != nil {
		t.Error(err)
	}
	if err := sleeper.Wait(); err == nil {
		t.Error("a killed process ended well")
	}
	if _, err := g.Run("sh", "-c", "exit 7"); err == nil || !strings.Contains(err.Error(), "exit code 7") {
		t.Errorf("a command that fails gives %v", err)
	}
	if err := g.Stop(); err != nil {
		t.Error(err)
	}
	if console := g.Console(); strings.Contains(console, "panic") {
		t.Errorf("the guest ended in panic:\n%s", console)
	}
}

// key is one in hexadecimal, of a length in octets.
func key(octets int) string { return "0x" + strings.Repeat("5a", octets) }

// TestModulesComeAfterWhatTheyNeed reads modules as a kernel package has them.
func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	found := map[string]string{}
	for name, needs := range map[string]string{"a": "b,c-d", "b": "c_d", "c_d": "", "loop": "a,loop"} {
		found[name] = writeModule(t, name, needs)
	}
	paths, err := order(found, []string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{found["c_d"], found["b"], found["a"]}; !slices.Equal(paths, want) {
		t.Errorf("the order is %v, want %v", paths, want)
	}
	for _, name := range []string{"loop", "unknown"} {
		if _, err := order(found, []string{name}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("module %s gives %v", name, err)
		}
	}
}

// writeModule writes the least that is a kernel module: an ELF file with what the module says of itself.
func writeModule(t *testing.T, name, needs string) string {
	t.Helper()
	const header, entry = 64, 64
	info := "name=" + name + "\x00depends=" + needs + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: header, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(header + len(info)), Size: uint64(len(names))},
	}
	file := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: header,
		Shoff: uint64(header + len(info) + len(names)), Shentsize: entry, Shnum: uint16(len(sections)), Shstrndx: 2,
	}
	var b bytes.Buffer
	for _, part := range []any{file, []byte(info), []byte(names), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(t.TempDir(), name+".ko")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
