package main

import (
	"crypto/ecdsa"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/controller/controllertest"
	"github.com/bailiwick-net/bailiwick/directory/settings"
	nodev1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/node/v1"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bailiwick": func() { os.Exit(run()) }})
}

// TestScripts plays testdata/*.txtar, each against a controller of its own with the Bank as directory. Beside the usual
// commands of testscript there are:
//
//	eventually REGEXP command...   run the command until its output matches
//	code N command...              run the command and want the exit code
//	request KEY DNSNAME            ask for a certificate without a token, with the key that the script calls so; with !
//	                               want a refusal
//	charon P12 PASSWORDFILE        have strongSwan load the file and print its certificates (condition: root)
//	connect MACHINE                let a scripted node join, connect and put its policy into force
//
// In offlineroot.txtar the root is kept off line, in the folder $ROOT with the key file $KEY.
//
// A script with a file branch.ldif has that as a second directory, whose file is $BRANCH.
//
// $LDIF is the directory's file, $SAMBA one with the IPsec policies of a Windows domain, $ADMIN the address of the
// controller's admin listener.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d scripts, error %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			f := controllertest.New(t, controllertest.Bank)
			f.Config.Admin.Listen = "127.0.0.1:0"
			f.Config.Enrollment.Requests = true
			branch := withBranch(t, f, file)
			var root controllertest.OfflineRoot
			if filepath.Base(file) == "offlineroot.txtar" {
				f.Config.Revocation = controller.RevocationConfig{Listen: "127.0.0.1:0", URL: "http://127.0.0.1:7480"}
				root = *f.OfflineRoot()
			}
			f.Start()
			testscript.Run(t, testscript.Params{
				Files:         []string{file},
				UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
				Setup: func(env *testscript.Env) error {
					env.Setenv("BAILIWICK_SOCKET", f.Socket())
					// A program with the race detector sleeps for a second before it exits unless it is told not to; there are
					// hundreds of commands, and nothing of them goes on when they are done.
					env.Setenv("GORACE", "atexit_sleep_ms=0")
					env.Setenv("LDIF", f.LDIF())
					env.Setenv("BRANCH", branch)
					env.Setenv("ROOT", root.Dir)
					env.Setenv("KEY", root.KeyFile)
					env.Setenv("ADMIN", f.AdminAddress().String())
					samba, err := filepath.Abs("../../policies/gpipsec/testdata/samba.ldif")
					env.Setenv("SAMBA", samba)
					return err
				},
				Condition: func(condition string) (bool, error) {
					if condition != "root" {
						return false, fmt.Errorf("unknown condition %q", condition)
					}
					return os.Geteuid() == 0, nil
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"eventually": eventually,
					"code":       controllertest.Code,
					"connect": func(ts *testscript.TestScript, _ bool, args []string) {
						s := f.Node(args[0]).Connect(&nodev1.Hello{Version: "scripted"})
						s.AcceptAssignment()
					},
					"charon": func(ts *testscript.TestScript, _ bool, args []string) {
						listed, err := loadPKCS12([]byte(ts.ReadFile(args[0])), strings.TrimSpace(ts.ReadFile(args[1])))
						ts.Check(err)
						fmt.Fprint(ts.Stdout(), listed)
					},
					"request": func(ts *testscript.TestScript, neg bool, args []string) {
						ts.Check(request(f, args, neg))
					},
				},
			})
		})
	}
}

// withBranch gives the controller of a script with branch.ldif two directories.
func withBranch(t *testing.T, f *controllertest.Fleet, script string) string {
	t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	_, branch, ok := strings.Cut(string(text), "-- branch.ldif --\n") // the last file of the archive
	if !ok {
		return ""
	}
	path := filepath.Join(t.TempDir(), "branch.ldif")
	if err := os.WriteFile(path, []byte(branch), 0o600); err != nil {
		t.Fatal(err)
	}
	f.Config.Directory = settings.Directory{Sources: []settings.Source{
		{Name: "bank", LDIF: &settings.LDIF{Path: f.LDIF()}}, {Name: "branch", LDIF: &settings.LDIF{Path: path}},
	}}
	return path
}

// keys are those that requests were made with, by the script's name for them.
var keys sync.Map

// request lets a machine ask without a token.
func request(f *controllertest.Fleet, args []string, refused bool) error {
	if len(args) != 2 {
		return errors.New("usage: request KEY DNSNAME")
	}
	j := f.Join("")
	if known, ok := keys.LoadOrStore(f.Dir+args[0], j.Key); ok {
		j.Key = known.(*ecdsa.PrivateKey)
	}
	_, _, err := j.Submit(f.Context(), args[1])
	if refused {
		if err == nil {
			return fmt.Errorf("the request for %s was not refused", args[1])
		}
		return nil
	}
	return err
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: eventually REGEXP command...")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	deadline := time.NewTimer(controllertest.Patience)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		execErr := ts.Exec(args[1], args[2:]...)
		if execErr == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			ts.Fatalf("not within %v: %s\nlast output:\n%s%s", controllertest.Patience, want, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
		}
	}
}

func TestRows(t *testing.T) {
	var out strings.Builder
	table := rows{{"NAME", "WHAT"}}
	table.add("übung", "x")
	table.add("a", "")
	if err := table.write(&out); err != nil {
		t.Fatal(err)
	}
	if want := "NAME   WHAT\nübung  x\na\n"; out.String() != want {
		t.Errorf("table is %q, wanted %q", out.String(), want)
	}
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s ago", -80 * time.Second: "1m ago", 119 * time.Minute: "in 2h", -100 * time.Hour: "4d ago",
	} {
		if got := since(d); got != want {
			t.Errorf("%v reads %q, wanted %q", d, got, want)
		}
	}
	for n, want := range map[uint64]string{0: "0B", 1023: "1023B", 1024: "1.0KiB", 5 << 30: "5.0GiB"} {
		if got := octets(n); got != want {
			t.Errorf("%d octets read %q, wanted %q", n, got, want)
		}
	}
}

func TestOneLine(t *testing.T) {
	long := strings.Repeat("é", 81)
	for text, want := range map[string]string{"": "", "a": "a", "\na\nb\n": "a...", long: long[:160] + "..."} {
		if got := oneLine(text); got != want {
			t.Errorf("%q reads %q, wanted %q", text, got, want)
		}
	}
}
