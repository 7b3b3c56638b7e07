# The commands of this project. Each installs what it needs (as root, on Debian
# or Ubuntu, with Go).

ARCH ?= amd64
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME ?= 30s
N ?= 3
ROOTFS = /var/lib/postgresql-k8s-localmodel/image

.PHONY: help charm client image lint unit model test integration demo fuzz bench chaos fmt clean

help: ## list the commands
	@awk -F ': .*## ' '/^[a-z]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

charm: ## pack dist/postgresql-k8s_$(ARCH).charm from charmcraft.yaml
	go run ./tools/packcharm -arch $(ARCH)

client: ## pack dist/client_$(ARCH).charm and legacy_$(ARCH).charm, client applications for the tests
	for name in client legacy; do \
	  go run ./tools/packcharm -arch $(ARCH) -o dist/$${name}_$(ARCH).charm tests/charms/$$name || exit 1; done

image: ## build the workload image, dist/postgresql-image.tar
	image/build.sh

lint: ## formatting, vet, staticcheck
	@unformatted=$$(gofmt -l $$(git ls-files -co --exclude-standard '*.go')); \
	  if [ -n "$$unformatted" ]; then echo "run make fmt for: $$unformatted"; exit 1; fi
	go vet ./... && go vet -tags integration,localmodel ./tests/...
	go run $(STATICCHECK) -tags integration,localmodel ./...

unit: server compiler ## the tests that need no cluster and no image
	CGO_ENABLED=1 go test -race -timeout 20m ./...

# install PACKAGES; an earlier installation may have been killed.
install = { command -v apt-get >/dev/null || { echo "install $(1): this is neither Debian nor Ubuntu"; exit 1; }; \
  echo "installing $(1)"; export DEBIAN_FRONTEND=noninteractive; dpkg --configure -a && apt-get update -qq && \
  apt-get install -qqy --no-install-recommends -o DPkg::Lock::Timeout=120 $(1) >/dev/null; }

# The SQL is tried on a real server; no cluster of Debian's is made for it.
.PHONY: server compiler
server:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || { \
	  test -e /etc/postgresql-common/createcluster.conf || { mkdir -p /etc/postgresql-common && \
	    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf; }; \
	  $(call install,postgresql); }

# Go's race detector is linked by a C compiler.
compiler:
	@command -v "$$(go env CC)" >/dev/null || $(call install,gcc libc6-dev)

test: lint unit model ## everything that this machine can show without a cluster

model: charm client rootfs ## the packed charm in the local model: real Pebble, Patroni and PostgreSQL
	tests/localmodel/e2e/each.sh

.PHONY: rootfs network
rootfs: network
	image/build.sh --rootfs $(ROOTFS)

# Pods of the local model have namespaces and addresses of their own, and can be cut off.
network:
	@command -v ip >/dev/null && command -v nsenter >/dev/null && command -v nft >/dev/null || \
	  $(call install,iproute2 util-linux nftables)

demo: network ## see the charm at work on this machine; N=1 for one unit, KEEP=1 leaves it up
	@echo "building the demo (the first time takes half a minute)"
	@go build -buildvcs=false -o dist/demo ./tests/demo
	@exec dist/demo -n $(N)

bench: charm client rootfs ## figures: what a hook costs with up to 200 clients
	go test -tags localmodel -count=1 -timeout 30m -v ./tests/bench

chaos: N = 20
chaos: charm client network $(if $(REAL),,rootfs) ## break N things while clients write, in the order of SEED; REAL=1 on the current Juju
	@go build -buildvcs=false -o dist/chaos ./tests/chaos
	@exec dist/chaos -n $(N) -seed $(or $(SEED),0) $(if $(FAULTS),-faults $(FAULTS)) $(if $(REAL),-juju)

fuzz: ## fuzz what reads strangers' databags, each for FUZZTIME
	for room in database pgsql; do for target in FuzzParse FuzzReply; do \
	  go test ./relations/$$room -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) || exit 1; done; done

integration: charm client ## drive the current Juju controller; IMAGE names the workload image in its cluster
	go test ./tests/integration -tags integration -count=1 -timeout 40m -v

fmt: ## format the code
	gofmt -w $$(git ls-files -co --exclude-standard '*.go')

clean: ## remove what was built
	rm -rf dist
