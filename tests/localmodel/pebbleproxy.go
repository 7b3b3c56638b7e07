package localmodel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
)

// proxyPebble puts a proxy between the charm and a workload's Pebble, which
// asks before each request whether to do harm.
func (p *ClusterPod) proxyPebble(container string) error {
	path := filepath.Join(p.charmSocketDir(container), "pebble.socket")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("cannot remove old proxy: %w", err)
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("cannot stand before Pebble: %w", err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return errors.Join(err, listener.Close())
	}
	p.proxies = append(p.proxies, listener)

	pebble := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", "pebble"
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", p.Pebble(container))
		}},
		FlushInterval: -1,
		ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch p.spec.Faults(PebbleCall{Container: container, Method: r.Method, Path: r.URL.Path}) {
		case KillBefore:
			p.spec.Kill()
			panic(http.ErrAbortHandler)
		case KillAfter:
			pebble.ServeHTTP(httpDiscard{http.Header{}}, r)
			p.spec.Kill()
			panic(http.ErrAbortHandler)
		case Fail:
			panic(http.ErrAbortHandler)
		}
		pebble.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(listener) }()
	return nil
}

// httpDiscard is a response that nobody gets.
type httpDiscard struct{ header http.Header }

// Header is the response's.
func (d httpDiscard) Header() http.Header { return d.header }

// Write takes everything.
func (d httpDiscard) Write(data []byte) (int, error) { return len(data), nil }

// WriteHeader takes any code.
func (d httpDiscard) WriteHeader(int) {}
