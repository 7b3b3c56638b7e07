package kubeapi_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"charmhub.io/postgresql-k8s/tests/localmodel/kubeapi"
)

const (
	asJSON    = "application/json"
	asMerge   = "application/merge-patch+json"
	asPatroni = "application/strategic-merge-patch+json"
	asApply   = "application/apply-patch+yaml"
)

type object = kubeapi.Object

// client speaks to an API server as Patroni does: plain HTTPS and JSON.
type client struct {
	t     *testing.T
	http  *http.Client
	url   string
	token string
	space string // "/api/v1/namespaces/<one of the test's own>/"
}

// connect returns a client of the API server that $KUBECONFIG names, or else of
// the small one here. The contract is the same.
func connect(t *testing.T) *client {
	t.Helper()
	c := serve(t, true)
	if path := os.Getenv("KUBECONFIG"); path != "" {
		c = readKubeconfig(t, path)
	}
	c.space = "/api/v1/namespaces/"
	made := c.must(201, "POST", "", asJSON, `{"metadata":{"generateName":"contract-"}}`)
	name := field(made, "metadata", "name")
	t.Cleanup(func() { c.call("DELETE", "/api/v1/namespaces/"+name, asJSON, "") })
	c.space += name + "/"
	return c
}

func serve(t *testing.T, trusted bool) *client {
	t.Helper()
	server, err := kubeapi.Listen("127.0.0.1:0", kubeapi.NewStore(), func(token string) (kubeapi.User, bool) {
		return kubeapi.User{Name: "someone", Trusted: trusted}, token == "pass"
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return newClient(t, server.URL(), server.CA, nil, "pass")
}

func newClient(t *testing.T, url string, ca []byte, own []tls.Certificate, token string) *client {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: own}}
	t.Cleanup(transport.CloseIdleConnections)
	return &client{t: t, http: &http.Client{Transport: transport}, url: url, token: token, space: "/api/v1/namespaces/x/"}
}

// readKubeconfig understands the first cluster and user of a kubeconfig.
func readKubeconfig(t *testing.T, path string) *client {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Clusters []struct{ Cluster map[string]string }
		Users    []struct{ User map[string]string }
	}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	cluster, user := config.Clusters[0].Cluster, config.Users[0].User
	pem := func(values map[string]string, name string) []byte {
		data, err := base64.StdEncoding.DecodeString(values[name+"-data"])
		if file := values[name]; file != "" {
			data, err = os.ReadFile(file)
		}
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var own []tls.Certificate
	if cert := pem(user, "client-certificate"); len(cert) > 0 {
		pair, err := tls.X509KeyPair(cert, pem(user, "client-key"))
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, pair)
	}
	return newClient(t, cluster["server"], pem(cluster, "certificate-authority"), own, user["token"])
}

func (c *client) request(method, path, contentType, body string) *http.Response {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+path, bytes.NewBufferString(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp
}

func (c *client) call(method, path, contentType, body string) (int, object) {
	c.t.Helper()
	resp := c.request(method, path, contentType, body)
	defer resp.Body.Close()
	var answer object
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// must makes a request within the namespace and wants an answer of that code.
func (c *client) must(code int, method, path, contentType, body string) object {
	c.t.Helper()
	got, answer := c.call(method, strings.TrimSuffix(c.space+path, "/"), contentType, body)
	if got != code {
		c.t.Errorf("%s %s: %d %v, want %d", method, path, got, answer["message"], code)
	}
	return answer
}

func field(o object, path ...string) string {
	for _, name := range path[:len(path)-1] {
		o, _ = o[name].(object)
	}
	if value := o[path[len(path)-1]]; value != nil {
		return fmt.Sprint(value)
	}
	return ""
}

func TestVersionsAndConflicts(t *testing.T) {
	c := connect(t)
	first := c.must(201, "POST", "endpoints", asJSON, `{"metadata":{"name":"leader","annotations":{"leader":"a"}}}`)
	version := field(first, "metadata", "resourceVersion")
	if again := c.must(409, "POST", "endpoints", asJSON, `{"metadata":{"name":"leader"}}`); again["reason"] != "AlreadyExists" {
		t.Errorf("creating twice: %v", again)
	}
	put := fmt.Sprintf(`{"metadata":{"name":"leader","resourceVersion":%q,"annotations":{"leader":"b"}}}`, version)
	second := c.must(200, "PUT", "endpoints/leader", asJSON, put)
	if field(second, "metadata", "resourceVersion") == version || field(second, "metadata", "uid") != field(first, "metadata", "uid") {
		t.Errorf("update made %v of %v", second["metadata"], first["metadata"])
	}
	if conflict := c.must(409, "PUT", "endpoints/leader", asJSON, put); conflict["reason"] != "Conflict" || conflict["kind"] != "Status" {
		t.Errorf("updating an old version: %v", conflict)
	}
	c.must(409, "PATCH", "endpoints/leader", asPatroni, fmt.Sprintf(`{"metadata":{"resourceVersion":%q,"annotations":{"leader":"c"}}}`, version))
	same := c.must(200, "PATCH", "endpoints/leader", asPatroni, `{"metadata":{"annotations":{"leader":"b"}}}`)
	if field(same, "metadata", "resourceVersion") != field(second, "metadata", "resourceVersion") {
		t.Error("a patch that changed nothing made a new version")
	}
	gone := c.must(200, "PATCH", "endpoints/leader", asMerge, `{"metadata":{"annotations":{"leader":null}}}`)
	if field(gone, "metadata", "annotations", "leader") != "" {
		t.Error("null did not delete an annotation")
	}
	c.must(200, "PATCH", "endpoints/leader", asPatroni, `{"subsets":[{"addresses":[{"ip":"10.1.1.1"}],"ports":[{"port":5432}]}]}`)
	subsets := c.must(200, "PATCH", "endpoints/leader", asPatroni, `{"subsets":[{"addresses":[{"ip":"10.1.1.2"}],"ports":[{"port":5432}]}]}`)
	if got := fmt.Sprint(subsets["subsets"]); strings.Contains(got, "10.1.1.1") || !strings.Contains(got, "10.1.1.2") {
		t.Errorf("subsets are %s", got)
	}
	c.must(404, "GET", "endpoints/nobody", asJSON, "")
	c.must(409, "DELETE", "endpoints/leader", asJSON, `{"preconditions":{"uid":"another"}}`)
	c.must(200, "DELETE", "endpoints/leader", asJSON, "")
}

func TestApply(t *testing.T) {
	c := connect(t)
	apply := func(code int, manager, rest string) object {
		t.Helper()
		return c.must(code, "PATCH", "services/web?force=true&fieldManager="+manager, asApply,
			`{"apiVersion":"v1","kind":"Service","metadata":{"name":"web",`+rest+`}`)
	}
	const spec = `,"spec":{"selector":{"app":"x"},"ports":[{"name":"sql","port":5432}]}`
	s := apply(201, "us", `"labels":{"a":"1","b":"1"}}`+spec)
	ports := fmt.Sprint(s["spec"].(object)["ports"])
	if field(s, "spec", "clusterIP") == "" || !strings.Contains(ports, "protocol:TCP") || !strings.Contains(ports, "targetPort:5432") {
		t.Errorf("defaults are missing: %v", s["spec"])
	}
	apply(200, "them", `"labels":{"c":"1"}}`)
	s = apply(200, "us", `"labels":{"a":"2"}}`+spec)
	if got := field(s, "metadata", "labels"); got != "map[a:2 c:1]" {
		t.Errorf("labels are %s, want a:2 and their c:1", got)
	}
}

func TestSelectors(t *testing.T) {
	c := connect(t)
	for _, of := range []string{"us", "them"} {
		c.must(201, "POST", "endpoints", asJSON, fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"of":%q}}}`, of, of))
	}
	for selector, want := range map[string]int{"of": 2, "!of": 0, "of!=us": 1, "of notin (them)": 1, "of in (us, them)": 2, "of=them": 1} {
		list := c.must(200, "GET", "endpoints?labelSelector="+url.QueryEscape(selector), asJSON, "")
		if items, _ := list["items"].([]any); len(items) != want || list["kind"] != "EndpointsList" {
			t.Errorf("%s selects %d of %v, want %d", selector, len(items), list["kind"], want)
		}
	}
}

func TestWatch(t *testing.T) {
	c := connect(t)
	list := c.must(200, "GET", "endpoints", asJSON, "")
	resp := c.request("GET", c.space+"endpoints?watch=True&labelSelector=of%3Dus&resourceVersion="+field(list, "metadata", "resourceVersion"), asJSON, "")
	defer resp.Body.Close()
	for _, of := range []string{"us", "them"} {
		c.must(201, "POST", "endpoints", asJSON, fmt.Sprintf(`{"metadata":{"name":%q,"labels":{"of":%q}}}`, of, of))
	}
	c.must(200, "PATCH", "endpoints/us", asMerge, `{"metadata":{"annotations":{"a":"b"}}}`)
	c.must(200, "PATCH", "endpoints/us", asMerge, `{"metadata":{"labels":{"of":"none"}}}`)
	events := json.NewDecoder(resp.Body)
	for _, want := range []string{"ADDED us", "MODIFIED us", "DELETED us"} {
		var event struct {
			Type   string
			Object object
		}
		if err := events.Decode(&event); err != nil {
			t.Fatal(err)
		}
		if got := event.Type + " " + field(event.Object, "metadata", "name"); got != want {
			t.Errorf("watch told %s, want %s", got, want)
		}
	}
}

func TestGarbage(t *testing.T) {
	c := connect(t)
	owner := c.must(201, "POST", "configmaps", asJSON, `{"metadata":{"name":"owner"}}`)
	c.must(201, "POST", "configmaps", asJSON, fmt.Sprintf(
		`{"metadata":{"name":"owned","ownerReferences":[{"apiVersion":"v1","kind":"ConfigMap","name":"owner","uid":%q}]}}`, field(owner, "metadata", "uid")))
	c.must(200, "DELETE", "configmaps/owner", asJSON, "")
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if code, _ := c.call("GET", c.space+"configmaps/owned", asJSON, ""); code == 404 {
			return
		}
		if time.Now().After(end) {
			t.Fatal("what the owner owned is still there")
		}
	}
}

func TestUntrustedMayLittle(t *testing.T) {
	c := serve(t, false)
	c.must(200, "GET", "pods", asJSON, "")
	c.must(404, "PATCH", "services/none", asMerge, "{}")
	refused := c.must(403, "GET", "endpoints", asJSON, "")
	if refused["reason"] != "Forbidden" || refused["kind"] != "Status" {
		t.Errorf("refusal is %v", refused)
	}
	c.must(403, "POST", "services", asJSON, "{}")
	c.token = "wrong"
	c.must(401, "GET", "pods", asJSON, "")
}
