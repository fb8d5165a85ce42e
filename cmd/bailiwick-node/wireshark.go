package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bailiwick-net/bailiwick/node/statefile"
)

// The files of a Wireshark profile, and how the lines of a key log for each begin.
const (
	ikeKeysFile     = "ikev2_decryption_table"
	espKeysFile     = "esp_sa"
	preferencesFile = "preferences"
)

// maxKeyLog bounds a key log in octets.
const maxKeyLog = 64 << 20

func wiresharkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wireshark KEYLOG DIRECTORY",
		Short: "DEBUGGING ONLY: turn a key log into a profile of Wireshark",
		Long: `wireshark reads what "bailiwick-node run --keylog KEYLOG" has written and makes a profile
of Wireshark of it, in a new or empty directory: the tables of IKE and ESP keys, and the
preferences to use them. Wireshark and tshark find profiles below
~/.config/wireshark/profiles:

  bailiwick-node ike wireshark keys ~/.config/wireshark/profiles/bailiwick
  tshark -C bailiwick -r capture.pcap

WHO READS THESE FILES READS ALL TRAFFIC OF THE ASSOCIATIONS IN THEM. Delete them, and the
key log, when the error is found.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{errors.New("wireshark wants a key log and a directory")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			ike, esp, err := makeProfile(args[0], args[1])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d IKE SAs and %d ESP SAs; use: tshark -C %s -r CAPTURE\n", ike, esp, filepath.Base(args[1]))
			return err
		},
	}
}

// makeProfile writes the profile and returns how many SAs of each kind are in it.
func makeProfile(keyLog, dir string) (ike, esp int, err error) {
	content, err := statefile.Read(keyLog, maxKeyLog)
	if err != nil {
		return 0, 0, fmt.Errorf("read the key log: %w", err)
	}
	var tables [2]strings.Builder
	var counts [2]int
	for i, line := range strings.Split(strings.TrimSuffix(string(content), "\n"), "\n") {
		table := -1
		for k, name := range []string{ikeKeysFile, espKeysFile} {
			if row, ok := strings.CutPrefix(line, "uat:"+name+":"); ok {
				table, line = k, row
			}
		}
		if table < 0 {
			return 0, 0, fmt.Errorf("%s, line %d is not a line of a key log", keyLog, i+1)
		}
		counts[table]++
		tables[table].WriteString(line + "\n")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, 0, fmt.Errorf("make the profile: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0, 0, fmt.Errorf("make the profile: %w", err)
	}
	if len(entries) > 0 {
		return 0, 0, fmt.Errorf("make the profile: %s is not empty, and a profile of your own would be lost", dir)
	}
	const preferences = "esp.enable_encryption_decode: TRUE\nesp.enable_authentication_check: TRUE\n"
	for name, text := range map[string]string{ikeKeysFile: tables[0].String(), espKeysFile: tables[1].String(), preferencesFile: preferences} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return 0, 0, fmt.Errorf("make the profile: %w", err)
		}
	}
	return counts[0], counts[1], nil
}
