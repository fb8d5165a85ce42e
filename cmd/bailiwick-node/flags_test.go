package main

import (
	"path/filepath"
	"reflect"
	"testing"

	"github.com/spf13/pflag"

	"github.com/bailiwick-net/bailiwick/node"
)

// TestEveryFlagOfRunCounts gives each flag a value: it has to reach the configuration.
func TestEveryFlagOfRunCounts(t *testing.T) {
	f := &flags{config: filepath.Join(t.TempDir(), "none.yaml")}
	run := runCommand(f)
	values := map[string]string{"string": "value", "bool": "true", "int": "3"}
	run.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden { // between the two processes of a node
			return
		}
		f := &flags{config: f.config}
		cmd := runCommand(f)
		if err := cmd.Flags().Set(flag.Name, values[flag.Value.Type()]); err != nil {
			t.Errorf("--%s: %v", flag.Name, err)
			return
		}
		c, err := f.load(cmd)
		if err != nil {
			t.Fatal(err)
		}
		if reflect.DeepEqual(c, node.Config{}) {
			t.Errorf("--%s changes nothing in the configuration", flag.Name)
		}
	})
}
