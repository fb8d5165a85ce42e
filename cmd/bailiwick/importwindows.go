package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/bailiwick-net/bailiwick/directory"
	"github.com/bailiwick-net/bailiwick/directory/ldap"
	"github.com/bailiwick-net/bailiwick/directory/ldif"
	"github.com/bailiwick-net/bailiwick/policies"
	"github.com/bailiwick-net/bailiwick/policies/gpipsec"
)

func importCommand(c *client) *cobra.Command {
	cmd := &cobra.Command{Use: "import", Short: "Make policy documents of what another system knows"}
	cmd.AddCommand(importWindowsCommand(c))
	return group(cmd)
}

// windowsSource says where the objects are read from.
type windowsSource struct {
	ldif []string
	ldap ldap.Config
	base string
	bind ldap.Simple
}

func importWindowsCommand(c *client) *cobra.Command {
	var from windowsSource
	var options gpipsec.Options
	var folder string
	cmd := &cobra.Command{
		Use:   "windows (--ldif FILE | --ldap URL --base DN)",
		Short: "Make documents of the IPsec policies that Group Policy keeps in Active Directory",
		Long: `Make documents of the IPsec policies that Group Policy keeps in Active Directory (MS-GPIPSEC), with a link for each
link of a Group Policy object that names one. What a document cannot say stands above it as a comment, and on standard
error. Preshared keys are not taken over: documents refer to secrets, which you set anew. No controller is asked.`,
		Example: `  ldifde -f domain.ldf -d "DC=bank,DC=example"                         # on Windows
  bailiwick import windows --ldif domain.ldf > imported.yaml
  bailiwick import windows --ldap ldaps://dc1.bank.example --base DC=bank,DC=example \
      --bind-dn reader@bank.example --password-file reader.password --ldap-ca dc.pem
  bailiwick apply --dry-run -f imported.yaml`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			entries, err := from.read(cmd.Context(), cmd.InOrStdin())
			if err != nil {
				return err
			}
			result, err := gpipsec.Convert(entries, options)
			switch {
			case errors.Is(err, gpipsec.ErrNothing):
				return status.Error(codes.NotFound, err.Error())
			case err != nil:
				return fmt.Errorf("importing: %w", err)
			}
			return printImported(c, cmd, result, folder)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&from.ldif, "ldif", nil, "LDIF file of ldifde, ldapsearch -LLL or ldbsearch, - for standard input; may be given again")
	f.StringVar(&from.ldap.URL, "ldap", "", "URL of a domain controller: ldaps://dc1.bank.example, ldap:// with --start-tls, or ldapi://")
	f.StringVar(&from.base, "base", "", "DN of the domain, with --ldap")
	f.StringVar(&from.bind.DN, "bind-dn", "", "who reads, with --ldap: a DN, or a name that the server takes; nobody if it is not given")
	f.StringVar(&from.bind.PasswordFile, "password-file", "", "file with the password of --bind-dn")
	f.StringVar(&from.ldap.CAFile, "ldap-ca", "", "certificates that the server's chain has to end at (PEM); those of the system if it is not given")
	f.StringVar(&from.ldap.ServerName, "ldap-name", "", "name that the server's certificate has to carry; that of the URL if it is not given")
	f.BoolVar(&from.ldap.StartTLS, "start-tls", false, "protect an ldap:// connection")
	f.BoolVar(&from.ldap.AllowClear, "allow-clear", false, "permit ldap:// without protection on a loopback address, and a password over ldapi://")
	f.StringVar(&options.Prefix, "prefix", "", "text before the names of policies, filter lists and filter actions, so that none of ours is replaced")
	f.StringVar(&folder, "directory", "", "write each document to a file of its own in this directory instead of standard output")
	return cmd
}

func (s windowsSource) read(ctx context.Context, stdin io.Reader) ([]directory.Entry, error) {
	if (len(s.ldif) == 0) == (s.ldap.URL == "") {
		return nil, usagef("where are the policies? name files with --ldif, or a server with --ldap")
	}
	if s.ldap.URL == "" {
		return readEntries(stdin, s.ldif)
	}
	base, err := directory.ParseDN(s.base)
	if err != nil || base.IsZero() {
		return nil, usagef("--ldap needs the DN of the domain, as --base DC=bank,DC=example; got %q", s.base)
	}
	if (s.bind.DN == "") != (s.bind.PasswordFile == "") {
		return nil, usagef("--bind-dn and --password-file go together")
	}
	schema := directory.ActiveDirectory()
	s.ldap.Base, s.ldap.Schema = base, &schema
	if s.bind.DN != "" {
		s.ldap.Bind = s.bind
	}
	if err := s.ldap.Validate(); err != nil {
		return nil, usageError{err}
	}
	reader, err := ldap.OpenReader(ctx, s.ldap)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	_, configuration, err := reader.Contexts()
	if err != nil {
		return nil, err
	}
	return gpipsec.Read(reader, base, configuration)
}

func readEntries(stdin io.Reader, files []string) ([]directory.Entry, error) {
	sources, err := readSources(stdin, files)
	if err != nil {
		return nil, err
	}
	var entries []directory.Entry
	for _, s := range sources {
		records, err := ldif.Parse(s.GetName(), s.GetContent())
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			entries = append(entries, r.Entry)
		}
	}
	return entries, nil
}

// imported is the answer for programs.
type imported struct {
	Documents string           `json:"documents"` // YAML, with comments
	Notes     []importedNote   `json:"notes"`
	Secrets   []importedSecret `json:"secrets"`
}

type importedNote struct {
	Document string `json:"document"`
	Message  string `json:"message"`
}

type importedSecret struct {
	Name string   `json:"name"`
	Used []string `json:"used"`
}

func printImported(c *client, cmd *cobra.Command, r gpipsec.Result, folder string) error {
	if folder != "" {
		if err := writeDocuments(folder, r); err != nil {
			return err
		}
	}
	if c.output != "table" {
		answer := imported{Documents: string(r.YAML()), Notes: []importedNote{}, Secrets: []importedSecret{}}
		for _, n := range r.Notes {
			answer.Notes = append(answer.Notes, importedNote(n))
		}
		for _, s := range r.Secrets {
			answer.Secrets = append(answer.Secrets, importedSecret(s))
		}
		return c.printValue(cmd.OutOrStdout(), answer)
	}
	w := cmd.ErrOrStderr()
	for _, n := range r.Notes {
		fmt.Fprintf(w, "warning: %s\n", n)
	}
	for _, s := range r.Secrets {
		fmt.Fprintf(w, "secret %q is used by %s: make a new preshared key and set it with: bailiwick secret set %s\n", s.Name, strings.Join(s.Used, ", "), s.Name)
	}
	if folder != "" {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s written to %s\n", plural(len(r.Documents.All()), "document"), folder)
		return err
	}
	_, err := cmd.OutOrStdout().Write(r.YAML())
	return err
}

// writeDocuments writes every document to a file of its own, and replaces none that is there.
func writeDocuments(folder string, r gpipsec.Result) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("writing documents: %w", err)
	}
	taken := map[string]bool{}
	for _, d := range r.Documents.All() {
		name := fileName(d)
		for n := 2; taken[name]; n++ {
			name = fmt.Sprintf("%s-%d", fileName(d), n)
		}
		taken[name] = true
		file, err := os.OpenFile(filepath.Join(folder, name+".yaml"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return fmt.Errorf("writing documents: %w", err)
		}
		_, err = file.Write(r.AppendDocument(nil, d))
		if err = cmp.Or(err, file.Close()); err != nil {
			return fmt.Errorf("writing documents: %w", err)
		}
	}
	return nil
}

// fileName makes a name of letters, digits and dashes.
func fileName(d policies.Document) string {
	words := strings.FieldsFunc(strings.ToLower(string(d.Kind())+" "+d.Key()), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	name := strings.Join(words, "-")
	return name[:min(len(name), 100)]
}
