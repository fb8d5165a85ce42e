package custody

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// roleVariable tells the test binary that it is to be a daemon, and which one, or the holder of one.
const roleVariable = "BAILIWICK_CUSTODY_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "":
		os.Exit(m.Run())
	case "holder":
		os.Exit(hold())
	case "daemon":
		os.Exit(daemonMain(os.Args[1:]))
	}
	os.Exit(99)
}

// daemonMain is a daemon: it writes its process ID into what it has inherited, once it is up. Its argument says how each of
// its lives ends, one letter for each.
func daemonMain(args []string) int {
	held := Inherit()
	lives, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", held.Owner.Fd()))
	if err != nil {
		return 98
	}
	life := strings.Count(string(lives), "\n")
	if len(args) != 1 || life >= len(args[0]) {
		return 97
	}
	end := args[0][life]
	if _, err := fmt.Fprintln(held.Owner, os.Getpid()); err != nil {
		return 96
	}
	if end == 'e' {
		return 3 // before it is up
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	held.Up()
	switch end {
	case 'k':
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case 'f':
		return 1
	case 'p':
		panic("as a mistake does")
	case 't':
		<-terminated
	case 'T':
		<-terminated
		return 4
	}
	return 0
}

// keep is what a test holds: a file that shows what the daemon did.
func keep(t *testing.T, lives string) (Config, string) {
	t.Helper()
	t.Setenv(roleVariable, "daemon")
	path := filepath.Join(t.TempDir(), "held")
	owner, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { owner.Close() })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Config{Path: self, Args: []string{lives}, Owner: owner, Logger: hclog.NewNullLogger()}, path
}

// pids waits until the file has as many lines.
func pids(t *testing.T, path string, want int) []string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(time.Millisecond) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Fields(string(content)); len(lines) == want {
			return lines
		} else if time.Now().After(deadline) {
			t.Fatalf("the daemon lived %d times, want %d", len(lines), want)
		}
	}
}

func TestDaemonThatWasUpIsStartedAgain(t *testing.T) {
	for _, c := range []struct {
		name, lives string
		code        int
	}{
		{"killed, then it ends by itself", "k0", 0},
		{"a panic and an error, then it ends by itself", "pf0", 0},
		{"once it was up, not to come up is no end", "kee0", 0},
		{"an error before it is up is the end", "e", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			config, path := keep(t, c.lives)
			err := Keep(t.Context(), config)
			ended := new(EndError)
			if c.code == 0 && err != nil || c.code != 0 && (!errors.As(err, &ended) || ended.Code != c.code) {
				t.Errorf("holder ended with %v, want exit code %d", err, c.code)
			}
			pids(t, path, len(c.lives))
		})
	}
}

func TestStopIsForBoth(t *testing.T) {
	for _, c := range []struct {
		end  string
		code int
	}{{"t", 0}, {"T", 4}} {
		config, path := keep(t, c.end)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- Keep(ctx, config) }()
		pids(t, path, 1)
		cancel()
		ended := new(EndError)
		if err := <-done; c.code == 0 && err != nil || c.code != 0 && (!errors.As(err, &ended) || ended.Code != c.code) {
			t.Errorf("holder that was stopped ended with %v, want exit code %d", err, c.code)
		}
	}
}

func TestStopInAPause(t *testing.T) {
	config, path := keep(t, "kkkkkkkkk")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Keep(ctx, config) }()
	pids(t, path, 4)
	cancel()
	if err := <-done; err != nil {
		ended := new(EndError)
		if errors.As(err, &ended) {
			t.Errorf("holder that was stopped ended with %v", err)
		}
	}
}

// hold is a holder in a process of its own.
func hold() int {
	if err := os.Setenv(roleVariable, "daemon"); err != nil {
		return 95
	}
	self, err := os.Executable()
	if err != nil {
		return 94
	}
	owner := os.NewFile(3, "held")
	if err := Keep(context.Background(), Config{Path: self, Args: os.Args[1:], Owner: owner, Logger: hclog.NewNullLogger()}); err != nil {
		return 1
	}
	return 0
}

func TestDaemonDoesNotOutliveTheHolder(t *testing.T) {
	config, path := keep(t, "t")
	holder := exec.Command(config.Path, config.Args...)
	holder.Env = append(os.Environ(), roleVariable+"=holder")
	holder.ExtraFiles = []*os.File{config.Owner}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(pids(t, path, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // it was killed
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon lives without its holder")
		}
	}
}

func TestPausesGrow(t *testing.T) {
	var p pauses
	var got []time.Duration
	for _, lived := range []time.Duration{0, time.Second, 0, 2 * time.Minute, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} {
		got = append(got, p.after(lived))
	}
	want := "[100ms 200ms 400ms 100ms 200ms 400ms 800ms 1.6s 3.2s 6.4s 12.8s 25.6s 30s 30s]"
	if fmt.Sprint(got) != want {
		t.Errorf("pauses are %v, want %s", got, want)
	}
}

func TestEnvironmentOfSystemdIsForTheHolder(t *testing.T) {
	got := withoutSystemd([]string{"A=1", "NOTIFY_SOCKET=@x", "LISTEN_FDS=1", "LISTEN_PID=7", "LISTEN_FDNAMES=a:b", "NOTIFY_SOCKETS=2"})
	if want := "A=1 NOTIFY_SOCKETS=2"; strings.Join(got, " ") != want {
		t.Errorf("environment is %q, want %q", got, want)
	}
}

func TestWhatSystemdStored(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		pid, count, names string
		fails             bool
	}{
		{pid: "", count: "1", names: storedName},
		{pid: "1", count: "1", names: storedName},
		{pid: own, count: "x", names: storedName, fails: true},
		{pid: own, count: "-1", names: storedName, fails: true},
		{pid: own, count: "0", names: storedName},
		{pid: own, count: "1", names: "other"},
		{pid: own, count: "1", names: "other:" + storedName},
	} {
		environment := map[string]string{"LISTEN_PID": c.pid, "LISTEN_FDS": c.count, "LISTEN_FDNAMES": c.names}
		file, err := Stored(func(name string) string { return environment[name] })
		if file != nil || (err != nil) != c.fails {
			t.Errorf("%+v: %v, %v", c, file, err)
		}
	}
	if asked, err := Store(func(string) string { return "" }, nil); asked || err != nil {
		t.Errorf("without systemd: %v, %v", asked, err)
	}
	if _, err := Store(func(string) string { return filepath.Join(t.TempDir(), "none") }, os.Stdin); err == nil {
		t.Error("a systemd that is not there gave no error")
	}
}
