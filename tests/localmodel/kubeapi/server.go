// Package kubeapi is a small Kubernetes API server: as much of it as Patroni,
// client-go and the charm use. It keeps objects in memory with resource versions
// and conflicts, serves lists, watches, and merge, strategic merge and apply
// patches, collects the garbage of deleted owners, lets endpoints follow pods,
// and refuses what an application without trust may not do.
package kubeapi

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gopkg.in/yaml.v3"
)

// A User is who a bearer token speaks for.
type User struct {
	Name    string
	Trusted bool // may do everything, as after juju trust
}

// A Server serves a store over HTTPS.
type Server struct {
	Store *Store
	CA    []byte // PEM, for ca.crt

	// Authenticate finds the user of a bearer token.
	Authenticate func(token string) (User, bool)

	// Called, when set, is told of every request and its answer's status code.
	Called func(user, method, url string, code int)

	http *http.Server
	url  string

	mu   sync.Mutex
	down bool
	cut  chan struct{} // closed to end watches when the server goes down
}

// Version is the version of Kubernetes that the server claims to be.
const Version = "1.34.0"

// Listen makes a server for the store and starts it.
func Listen(address string, store *Store, authenticate func(string) (User, bool)) (*Server, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	certificate, ca, err := selfSigned(net.ParseIP(host))
	if err != nil {
		return nil, fmt.Errorf("cannot make certificate: %w", err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot serve Kubernetes API: %w", err)
	}
	s := &Server{
		Store: store, CA: ca, Authenticate: authenticate,
		url: "https://" + listener.Addr().String(), cut: make(chan struct{}),
	}
	s.http = &http.Server{
		Handler:   http.HandlerFunc(s.serve),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ErrorLog:  log.New(io.Discard, "", 0), // handshakes cut off by faults
	}
	go func() { _ = s.http.ServeTLS(listener, "", "") }()
	return s, nil
}

// URL is where the server listens.
func (s *Server) URL() string { return s.url }

// Close ends the server.
func (s *Server) Close() error { return s.http.Close() }

// SetDown makes the server break off every connection, or end that.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case down && !s.down:
		close(s.cut)
	case !down && s.down:
		s.cut = make(chan struct{})
	}
	s.down = down
}

// broken is closed when the server goes down.
func (s *Server) broken() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cut
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	select {
	case <-s.broken():
		panic(http.ErrAbortHandler)
	default:
	}
	user, known := s.Authenticate(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	answer, err := any(nil), error(nil)
	switch {
	case !known:
		err = failure(401, "Unauthorized", "", "", "Unauthorized")
	case r.URL.Path == "/version":
		answer = Object{"major": "1", "minor": "34", "gitVersion": "v" + Version, "platform": "linux/amd64"}
	default:
		answer, err = s.route(w, r, user)
	}
	code := http.StatusOK
	switch status := (*Failure)(nil); {
	case errors.As(err, &status):
		code, answer = status.Code, status
	case err != nil:
		code, answer = 500, failure(500, "InternalError", "", "", err.Error())
	}
	if made, isNew := answer.(created); isNew {
		code, answer = http.StatusCreated, made.object
	}
	if s.Called != nil {
		s.Called(user.Name, r.Method, r.URL.RequestURI(), code)
	}
	if answer == nil {
		return // a watch, which has written its own
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(answer)
}

// created is an answer that is a new object.
type created struct{ object Object }

// target is the object or collection that a URL names.
type target struct{ group, resource, namespace, name, subresource string }

func parseTarget(path string) (t target, ok bool) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case len(parts) >= 3 && parts[0] == "api":
		parts = parts[2:]
	case len(parts) >= 4 && parts[0] == "apis":
		t.group, parts = parts[1], parts[3:]
	default:
		return t, false
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		t.namespace, parts = parts[1], parts[2:]
	}
	for i, field := range []*string{&t.resource, &t.name, &t.subresource} {
		if i < len(parts) {
			*field = parts[i]
		}
	}
	of, known := kinds[t.resource]
	return t, known && of.group == t.group && len(parts) <= 3
}

func (s *Server) route(w http.ResponseWriter, r *http.Request, user User) (any, error) {
	t, ok := parseTarget(r.URL.Path)
	if !ok {
		return nil, failure(404, "NotFound", "", "", "the server could not find the requested resource")
	}
	query := r.URL.Query()
	watch, _ := strconv.ParseBool(query.Get("watch"))
	verb := verbOf(r.Method, t.name, watch)
	if !user.Trusted && !untrustedMay(verb, t) {
		return nil, forbidden(user, verb, t)
	}
	selects, err := parseSelectors(query.Get("labelSelector"), query.Get("fieldSelector"))
	if err != nil {
		return nil, err
	}
	switch verb {
	case "get":
		if object := s.Store.Get(t.resource, t.namespace, t.name); object != nil {
			return object, nil
		}
		return nil, notFound(t.resource, t.name)
	case "list":
		objects, version := s.Store.List(t.resource, t.namespace, selects)
		of := kinds[t.resource]
		return Object{
			"kind":       of.kind + "List",
			"apiVersion": strings.TrimPrefix(of.group+"/"+of.version, "/"),
			"metadata":   Object{"resourceVersion": strconv.Itoa(version)},
			"items":      append([]Object{}, objects...),
		}, nil
	case "watch":
		return nil, s.watch(w, r, t, selects)
	case "create":
		object, err := body(r)
		if err != nil {
			return nil, err
		}
		object, err = s.Store.Create(t.resource, t.namespace, object)
		return created{object}, err
	case "update":
		object, err := body(r)
		if err != nil {
			return nil, err
		}
		return s.Store.Change(t.resource, t.namespace, t.name, func(Object) (Object, error) { return object, nil })
	case "patch":
		return s.patch(r, t)
	case "delete":
		return s.delete(r, t)
	case "deletecollection":
		objects, _ := s.Store.List(t.resource, t.namespace, selects)
		for _, object := range objects {
			_, _ = s.Store.Delete(t.resource, t.namespace, stringAt(object, "metadata", "name"), nil)
		}
		return Object{"kind": "Status", "apiVersion": "v1", "metadata": Object{}, "status": "Success"}, nil
	}
	return nil, failure(405, "MethodNotAllowed", "", "", "the server does not allow this method on the requested resource")
}

func verbOf(method, name string, watch bool) string {
	switch {
	case method == http.MethodGet && watch:
		return "watch"
	case method == http.MethodGet && name == "":
		return "list"
	case method == http.MethodDelete && name == "":
		return "deletecollection"
	}
	return map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[method]
}

// untrustedMay is the role that Juju gives every application.
func untrustedMay(verb string, t target) bool {
	switch t.resource {
	case "namespaces":
		return verb == "get" || verb == "list"
	case "pods", "services":
		return t.subresource == "" && slices.Contains([]string{"get", "list", "patch"}, verb)
	}
	return false
}

func (s *Server) patch(r *http.Request, t target) (any, error) {
	patch, err := body(r)
	if err != nil {
		return nil, err
	}
	kind := r.Header.Get("Content-Type")
	switch kind {
	case "application/apply-patch+yaml", "application/apply-patch+cbor":
		object, isNew, err := s.Store.Apply(t.resource, t.namespace, t.name, r.URL.Query().Get("fieldManager"), patch)
		if isNew {
			return created{object}, err
		}
		return object, err
	case "application/merge-patch+json", "application/strategic-merge-patch+json":
		return s.Store.Change(t.resource, t.namespace, t.name, func(object Object) (Object, error) {
			return merge(object, patch, kind != "application/merge-patch+json"), nil
		})
	}
	return nil, failure(415, "UnsupportedMediaType", t.resource, t.name, fmt.Sprintf("patch type %q is not supported", kind))
}

func (s *Server) delete(r *http.Request, t target) (Object, error) {
	options, err := body(r)
	if err != nil {
		return nil, err
	}
	return s.Store.Delete(t.resource, t.namespace, t.name, func(object Object) error {
		wanted, _ := options["preconditions"].(Object)
		for _, field := range []string{"uid", "resourceVersion"} {
			if want := stringAt(wanted, field); want != "" && want != stringAt(object, "metadata", field) {
				return failure(409, "Conflict", t.resource, t.name, fmt.Sprintf("the %s in the precondition (%s) is another", field, want))
			}
		}
		return nil
	})
}

// body reads the request's JSON or YAML; none at all is an empty object.
func body(r *http.Request) (Object, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
	if err != nil || len(data) == 0 {
		return Object{}, err
	}
	var object Object
	if err = json.Unmarshal(data, &object); err != nil && strings.HasSuffix(r.Header.Get("Content-Type"), "yaml") {
		if err = yaml.Unmarshal(data, &object); err == nil {
			object = clone(object)
		}
	}
	if err != nil {
		return nil, failure(400, "BadRequest", "", "", "cannot read body: "+err.Error())
	}
	return object, nil
}

// watch streams changes until the client goes, or its time is up.
func (s *Server) watch(w http.ResponseWriter, r *http.Request, t target, selects Selector) error {
	ctx := r.Context()
	if seconds, _ := strconv.Atoi(r.URL.Query().Get("timeoutSeconds")); seconds > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer cancel()
	}
	if t.name != "" {
		of := selects
		selects = func(o Object) bool { return stringAt(o, "metadata", "name") == t.name && of(o) }
	}
	cut := s.broken()
	w.Header().Set("Content-Type", "application/json")
	out := http.NewResponseController(w)
	send := json.NewEncoder(w)

	version, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	if version == 0 {
		var objects []Object
		objects, version = s.Store.List(t.resource, t.namespace, selects)
		for _, object := range objects {
			_ = send.Encode(Object{"type": "ADDED", "object": object})
		}
	}
	for {
		if err := out.Flush(); err != nil {
			return nil
		}
		events, more := s.Store.since(version)
		for _, e := range events {
			version++
			if e.key.resource != t.resource || t.namespace != "" && e.key.namespace != t.namespace {
				continue
			}
			if kind, object := e.seenThrough(selects, version); kind != "" {
				_ = send.Encode(Object{"type": kind, "object": object})
			}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		case <-cut:
			panic(http.ErrAbortHandler)
		}
	}
}

// seenThrough is what a watcher with a selector sees of the event.
func (e event) seenThrough(selects Selector, version int) (kind string, object Object) {
	was := e.before != nil && selects(e.before)
	is := e.now != nil && selects(e.now)
	switch {
	case was && is:
		return "MODIFIED", e.now
	case is:
		return "ADDED", e.now
	case was:
		gone := clone(e.before)
		mapAt(gone, "metadata")["resourceVersion"] = strconv.Itoa(version)
		return "DELETED", gone
	}
	return "", nil
}

// A Failure is an error as the API answers it, a metav1.Status.
type Failure struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
	Metadata   Object `json:"metadata"`
	Status     string `json:"status"`
	Message    string `json:"message"`
	Reason     string `json:"reason"`
	Details    Object `json:"details,omitempty"`
	Code       int    `json:"code"`
}

// Error is the failure's message.
func (f *Failure) Error() string { return f.Message }

func failure(code int, reason, resource, name, message string) *Failure {
	f := &Failure{"Status", "v1", Object{}, "Failure", message, reason, nil, code}
	if resource != "" {
		f.Details = Object{"kind": resource, "name": name}
	}
	return f
}

func notFound(resource, name string) *Failure {
	return failure(404, "NotFound", resource, name, fmt.Sprintf("%s %q not found", resource, name))
}

func forbidden(user User, verb string, t target) *Failure {
	what := t.resource
	if t.name != "" {
		what += fmt.Sprintf(" %q", t.name)
	}
	return failure(403, "Forbidden", t.resource, t.name, fmt.Sprintf(
		"%s is forbidden: User %q cannot %s resource %q in API group %q in the namespace %q",
		what, user.Name, verb, t.resource, t.group, t.namespace))
}

// selfSigned makes a certificate for the address, and its CA, which is itself.
func selfSigned(ip net.IP) (tls.Certificate, []byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "localmodel"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().AddDate(10, 0, 0),
		IPAddresses:  []net.IP{ip},
		DNSNames:     []string{"kubernetes.default.svc"},
		IsCA:         true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
