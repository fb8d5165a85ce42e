// Package command is how the programs that measure begin and end.
//
// Its invariant: what nobody can measure is refused, and not left out of the figures without a word. It leaves what is measured
// to each program.
package command

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Main runs a program with the arguments of the process, and ends that with status 1 after an error. Having asked for help is
// none.
func Main(name string, run func(args []string) error) {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Parts reads what to measure, names separated by commas out of all that there are.
func Parts(only string, all ...string) ([]string, error) {
	parts := strings.Split(only, ",")
	for _, part := range parts {
		if !slices.Contains(all, part) {
			return nil, fmt.Errorf("%q cannot be measured; write %s, separated by commas", part, strings.Join(all, ", "))
		}
	}
	return parts, nil
}

// WriteJSON writes figures to a file as well; nothing where the path is empty.
func WriteJSON(path string, figures any) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(figures, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
