package revocation

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bailiwick-net/bailiwick/pki/revocation"
)

// Handler serves lists and OCSP over HTTP (RFC 5280 4.2.1.13, RFC 6960 A):
//
//	GET  /crl/ISSUER.crl              the list of an issuing CA or root; ISSUER are 16 digits of the name of its key
//	GET  /crl/ISSUER-PART-of-PARTS.crl   a part of it
//	POST /ocsp                        an OCSP request in DER
//	GET  /ocsp/BASE64                 the same in the path
//
// Everything that it gives out is signed and public; everything that it takes is a stranger's.
func (k *Keeper) Handler() http.Handler {
	// http.ServeMux would redirect where base64 has two slashes in a row.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		get := r.Method == http.MethodGet || r.Method == http.MethodHead
		switch path := r.URL.Path; {
		case get && strings.HasPrefix(path, "/crl/"):
			k.serveList(w, r)
		case get && strings.HasPrefix(path, "/ocsp/"):
			k.serveRequestInPath(w, r)
		case path == "/ocsp" || path == "/ocsp/":
			if r.Method != http.MethodPost {
				w.Header().Set("Allow", http.MethodPost)
				http.Error(w, "OCSP requests are sent by POST, or by GET with the request in base64 after /ocsp/", http.StatusMethodNotAllowed)
				return
			}
			k.serveRequest(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// listAge is how long a cache may keep a list: a revocation must not wait for half a day in a proxy.
const listAge = 5 * time.Minute

func (k *Keeper) serveList(w http.ResponseWriter, r *http.Request) {
	scope, ok := revocation.ParsePath(r.URL.Path)
	if !ok {
		http.NotFound(w, r)
		return
	}
	list, err := k.List(r.Context(), scope)
	switch {
	case errors.Is(err, ErrNoList):
		http.NotFound(w, r)
		return
	case err != nil:
		k.config.Log.Error("certificate revocation list cannot be given out", "list", scope.Path(), "error", err)
		http.Error(w, "the list cannot be made at present", http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/pkix-crl")
	h.Set("ETag", `"`+strconv.FormatUint(list.Number, 10)+`"`)
	h.Set("Last-Modified", list.ThisUpdate.UTC().Format(http.TimeFormat))
	h.Set("Cache-Control", maxAge(listAge))
	if r.Header.Get("If-None-Match") == h.Get("ETag") {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	write(w, list.DER)
}

func (k *Keeper) serveRequest(w http.ResponseWriter, r *http.Request) {
	der, err := io.ReadAll(http.MaxBytesReader(w, r.Body, revocation.MaxRequest))
	if err != nil {
		http.Error(w, "the request cannot be read, or is longer than "+strconv.Itoa(revocation.MaxRequest)+" octets", http.StatusRequestEntityTooLarge)
		return
	}
	k.respond(w, r, der)
}

func (k *Keeper) serveRequestInPath(w http.ResponseWriter, r *http.Request) {
	der, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(r.URL.Path, "/ocsp/"))
	if err != nil {
		der = nil // which is no request
	}
	k.respond(w, r, der)
}

func (k *Keeper) respond(w http.ResponseWriter, r *http.Request, der []byte) {
	response, cacheable := k.Answer(r.Context(), der)
	h := w.Header()
	h.Set("Content-Type", "application/ocsp-response")
	if cacheable > 0 {
		h.Set("Cache-Control", maxAge(cacheable)+", no-transform, must-revalidate") // RFC 5019 6.2
	} else {
		h.Set("Cache-Control", "no-store")
	}
	write(w, response)
}

func maxAge(d time.Duration) string { return fmt.Sprintf("public, max-age=%d", int(d/time.Second)) }

// write sends a body. Whoever does not wait for it misses it.
func write(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}
