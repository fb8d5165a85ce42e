package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/keytab"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bailiwick-net/bailiwick/controller"
	"github.com/bailiwick-net/bailiwick/controller/controllertest"
	"github.com/bailiwick-net/bailiwick/pki/enroll"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bailiwick-node": func() { os.Exit(run(os.Args[1:])) }})
}

// TestScripts plays testdata/*.txtar against a controller that takes the Kerberos accounts host/NAME@BANK.EXAMPLE, a realm
// without a key distribution centre. $CONTROLLER is its address, $OTHER that of one that takes none, $PIN and $OTHERPIN are
// their fleets' pins. $KEYTAB is the keytab of host/sql1.bank.example@BANK.EXAMPLE, $ELSEWHERE that of the same name in the
// realm ELSEWHERE.EXAMPLE, $PERSON that of jim@BANK.EXAMPLE. The command code N runs a command and wants the exit code.
func TestScripts(t *testing.T) {
	dir := t.TempDir()
	write := func(file, principal, realm string) string {
		k := keytab.New()
		if err := k.AddEntry(principal, realm, "password", time.Now(), 1, 18); err != nil {
			t.Fatal(err)
		}
		octets, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, octets, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	start := func(kerberos *controller.KerberosConfig) (address, pin string) {
		f := controllertest.New(t, controllertest.Bank)
		f.Config.Enrollment.Kerberos = kerberos
		f.Start()
		token, err := enroll.ParseToken(f.Token("sql1"))
		if err != nil {
			t.Fatal(err)
		}
		return f.Address(), token.Pin.String()
	}
	const service = "bailiwick/controller.bank.example"
	address, pin := start(&controller.KerberosConfig{
		Principal: service + "@BANK.EXAMPLE", KeytabFile: write("controller", service, "BANK.EXAMPLE"),
		Realms: []controller.RealmConfig{{Name: "BANK.EXAMPLE", Accounts: "host"}},
	})
	other, otherPin := start(nil)
	testscript.Run(t, testscript.Params{
		Dir:           "testdata",
		UpdateScripts: os.Getenv("UPDATE_SCRIPTS") != "",
		Cmds:          map[string]func(*testscript.TestScript, bool, []string){"code": controllertest.Code},
		Setup: func(env *testscript.Env) error {
			for name, value := range map[string]string{
				"GORACE": "atexit_sleep_ms=0", "CONTROLLER": address, "PIN": pin, "OTHER": other, "OTHERPIN": otherPin,
				"KEYTAB":    write("machine", "host/sql1.bank.example", "BANK.EXAMPLE"),
				"ELSEWHERE": write("elsewhere", "host/sql1.bank.example", "ELSEWHERE.EXAMPLE"),
				"PERSON":    write("person", "jim", "BANK.EXAMPLE"),
			} {
				env.Setenv(name, value)
			}
			return nil
		},
	})
}
