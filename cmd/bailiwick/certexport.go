package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base32"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/bailiwick-net/bailiwick/pki/enroll"
	adminv1 "github.com/bailiwick-net/bailiwick/proto/bailiwick/admin/v1"
)

// exportOptions are the flags of cert export.
type exportOptions struct {
	pkcs12, passwordFile, generate, csr, out, keyType, name string
}

func (o exportOptions) check() error {
	switch {
	case (o.pkcs12 == "") == (o.csr == ""):
		return usagef("cert export needs --pkcs12 FILE, or --csr FILE")
	case o.csr != "" && (o.passwordFile != "" || o.generate != "" || o.keyType != "" || o.name != ""):
		return usagef("cert export --csr certifies a key that stays where it is: --password-file, --generate-password, --key-type and --name go with --pkcs12")
	case o.pkcs12 != "" && (o.passwordFile == "") == (o.generate == ""):
		return usagef("cert export --pkcs12 needs one of --password-file and --generate-password")
	case o.pkcs12 != "" && o.out != "":
		return usagef("cert export: --out goes with --csr")
	}
	return nil
}

func certExportCommand(c *client) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export MACHINE (--pkcs12 FILE | --csr FILE)",
		Short: "Make a certificate for a peer that does not enrol itself",
		Long: `export has the controller issue a certificate of a machine of the directory, for a peer
that cannot enrol: a Windows machine, or strongSwan that somebody configures by hand.

With --pkcs12 it makes the key here and writes key, certificate and CA certificates to a
new file that only its owner can read, encrypted under a password from a file, or under
one that it makes and writes to a new file. The password is never printed. The file is
PKCS #12 with AES-256 and SHA-256, which Windows 10 1709, Windows Server 2019, OpenSSL 1.1
and strongSwan 5.9 read, and what comes after them.

With --csr it certifies the key of a request (PKCS #10, PEM or DER), which states the
machine's DNS name and nothing else, and prints the certificate and its issuer in PEM.

A certificate that the machine holds already is superseded.`,
		Example: `  bailiwick cert export gw1 --pkcs12 gw1.p12 --generate-password gw1.password
  bailiwick cert export gw1 --csr gw1.csr > gw1.pem`,
		Args:              args("MACHINE"),
		ValidArgsFunction: c.complete(0, machineNames),
		RunE: c.with(func(ctx context.Context, a *api, cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.csr != "" {
				return a.certifyRequest(ctx, cmd, args[0], o)
			}
			return a.exportPKCS12(ctx, cmd, args[0], o)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&o.pkcs12, "pkcs12", "", "write key and certificates to this new file")
	f.StringVar(&o.passwordFile, "password-file", "", "file whose first line is the password; - is standard input")
	f.StringVar(&o.generate, "generate-password", "", "make a password and write it to this new file")
	f.StringVar(&o.keyType, "key-type", "", "p256 (default), p384 or rsa3072, with --pkcs12")
	f.StringVar(&o.name, "name", "", "DNS name of the machine, with --pkcs12 (default: the directory's)")
	f.StringVar(&o.csr, "csr", "", "certify the key of this request instead of making one")
	f.StringVar(&o.out, "out", "", "write the certificates to this new file instead of standard output, with --csr")
	return cmd
}

// minPassword is the shortest password that a key leaves the machine under.
const minPassword = 10

// password reads or makes the password of a PKCS #12 file.
func (o exportOptions) password(stdin io.Reader) (string, error) {
	if o.generate != "" {
		drawn := make([]byte, 20)
		_, _ = rand.Read(drawn) // never fails
		text := strings.ToLower(base32.StdEncoding.EncodeToString(drawn))
		return text, writeNew(o.generate, 0o600, []byte(text+"\n"))
	}
	source := stdin
	if o.passwordFile != "-" {
		f, err := os.Open(o.passwordFile)
		if err != nil {
			return "", fmt.Errorf("reading the password: %w", err)
		}
		defer f.Close()
		source = f
	}
	const most = 1024
	text, err := io.ReadAll(io.LimitReader(source, most+1))
	if err != nil {
		return "", fmt.Errorf("reading the password: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if len(text) > most || len(line) < minPassword {
		return "", usagef("the password in %s has %d octets, wanted %d to %d", o.passwordFile, len(line), minPassword, most)
	}
	return line, nil
}

func newExportKey(kind string) (crypto.Signer, error) {
	switch kind {
	case "", "p256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	}
	return nil, usagef("--key-type %q, wanted p256, p384 or rsa3072", kind)
}

// dnsName is what the directory calls a machine in certificates.
func (a *api) dnsName(ctx context.Context, machine string) (string, error) {
	r, err := a.enrollment.GetMachineNames(ctx, &adminv1.GetMachineNamesRequest{Machine: machine})
	return r.GetDnsName(), err
}

func (a *api) exportPKCS12(ctx context.Context, cmd *cobra.Command, machine string, o exportOptions) error {
	name := o.name
	if name == "" {
		var err error
		if name, err = a.dnsName(ctx, machine); err != nil {
			return err
		}
	}
	key, err := newExportKey(o.keyType)
	if err != nil {
		return err
	}
	csr, err := enroll.NewJoinRequest(key, name)
	if err != nil {
		return err
	}
	// The file and the password are there before the certificate, so that none is issued that nobody gets.
	file, err := os.OpenFile(o.pkcs12, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the certificate: %w", err)
	}
	r, err := a.fillPKCS12(ctx, cmd, machine, o, key, csr, file)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(o.pkcs12))
	}
	return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
		fmt.Fprintf(w, "written: %s, key and certificate of %s\n", o.pkcs12, name)
		if o.generate != "" {
			fmt.Fprintf(w, "its password is in %s; give each on its own way\n", o.generate)
		}
		return nil
	})
}

func (a *api) fillPKCS12(ctx context.Context, cmd *cobra.Command, machine string, o exportOptions, key crypto.Signer, csr []byte, file *os.File) (*adminv1.IssueMachineCertificateResponse, error) {
	password, err := o.password(cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	r, err := a.enrollment.IssueMachineCertificate(ctx, &adminv1.IssueMachineCertificateRequest{Machine: machine, Csr: csr})
	if err != nil {
		return nil, err
	}
	var all []*x509.Certificate
	for _, der := range append(r.GetChain(), r.GetRoots()...) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("reading the issued certificates: %w", err)
		}
		all = append(all, cert)
	}
	if len(all) < 2 {
		return nil, fmt.Errorf("the controller answered with %d certificates", len(all))
	}
	content, err := pkcs12.Modern2023.Encode(key, all[0], all[1:], password)
	if err != nil {
		return nil, fmt.Errorf("encoding key and certificates: %w", err)
	}
	_, err = file.Write(content)
	return r, err
}

// certifyRequest has the key of a request certified that somebody brought.
func (a *api) certifyRequest(ctx context.Context, cmd *cobra.Command, machine string, o exportOptions) error {
	csr, err := readRequest(o.csr)
	if err != nil {
		return err
	}
	r, err := a.enrollment.IssueMachineCertificate(ctx, &adminv1.IssueMachineCertificateRequest{Machine: machine, Csr: csr})
	if err != nil {
		return err
	}
	var chain []byte
	for _, der := range r.GetChain() {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	if o.out != "" {
		if err := writeNew(o.out, 0o644, chain); err != nil {
			return err
		}
		chain = []byte("written: " + o.out + "\n")
	}
	return a.print(cmd.OutOrStdout(), r, func(w io.Writer) error {
		_, err := w.Write(chain)
		return err
	})
}

// readRequest reads a certificate request in PEM or DER.
func readRequest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate request: %w", err)
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, 4*enroll.MaxRequestSize))
	if err != nil {
		return nil, fmt.Errorf("reading the certificate request: %w", err)
	}
	if block, _ := pem.Decode(content); block != nil {
		if block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
			return nil, usagef("%s holds a %s, wanted a certificate request", path, block.Type)
		}
		return block.Bytes, nil
	}
	return content, nil
}
