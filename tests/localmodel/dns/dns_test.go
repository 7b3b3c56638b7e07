package dns

import (
	"context"
	"net"
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	known := map[string][]string{
		"m/pg-primary/":    {"10.77.1.1"},
		"m/pg-endpoints/":  {"10.77.1.1", "10.77.1.2"},
		"m/pg-endpoints/b": {"10.77.1.2"},
		"m/empty/":         nil,
	}
	conn, err := Listen("127.0.0.1:0", func(namespace, service, hostname string) ([]string, bool) {
		ips, found := known[namespace+"/"+service+"/"+hostname]
		return ips, found
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	for name, want := range map[string][]string{
		"pg-primary.m.svc.cluster.local.":     {"10.77.1.1"},
		"PG-Endpoints.m.svc.cluster.local.":   {"10.77.1.1", "10.77.1.2"},
		"b.pg-endpoints.m.svc.cluster.local.": {"10.77.1.2"},
		"c.pg-endpoints.m.svc.cluster.local.": nil,
		"empty.m.svc.cluster.local.":          nil,
		"example.com.":                        nil,
	} {
		got, err := resolver.LookupHost(t.Context(), name)
		slices.Sort(got)
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%s has addresses %v (%v), want %v", name, got, err, want)
		}
	}
}
