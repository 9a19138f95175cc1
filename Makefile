# virt-attest. `make help` lists the targets.

GO        ?= go
PREFIX    ?= /usr
SYSCONFDIR ?= /etc
UNITDIR   ?= /lib/systemd/system
DESTDIR   ?=
VERSION   ?= $(shell sh packaging/version.sh 2>/dev/null || echo unknown)
TAGS      := libvirt_dlopen
LDFLAGS   := -s -w -X virt-attest/internal/version.Version=$(VERSION)
GOBUILD   := $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)'
STATIC    := CGO_ENABLED=0 $(GOBUILD)
CGOBUILD   = $(GO) build -trimpath $(CGOFLAGS) -tags $(TAGS) -ldflags '$(LDFLAGS) $(CGOLDFLAGS)'
GOLANGCI  := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME  ?= 20s
STRESSTIME ?= 15m
FLEETRATE ?= 3333
FLEETTIME ?= 2m

# Packages whose tests start VMs and container hosts: one at a time, after all others.
MACHINES  := /test/(lab|guest|e2e|lifecycle|firstuse)

DOCDIR    ?= $(PREFIX)/share/doc/virt-attest
EPOCH     ?= $(shell sh packaging/version.sh -e 2>/dev/null || echo 0)
ARCH      ?=
PROGRAMS   = $(addprefix bin/,$(STATICBIN) $(CGOBIN))
# The program that prints the completions; another than the one that is installed when that is for another machine.
COMPLETER ?= bin/virt-attest
HOSTGO    ?= $(GO)

STATICBIN := virt-attest-hook virt-attest-sidecar virt-attest-guest virt-attest-verifierd virt-attest-custody
CGOBIN    := virt-attest virt-attest-hostd

.PHONY: help deps build test unit race lint fuzz bench e2e lifecycle lifecycle-table fleet stress demo \
	install install-completion install-guest install-apparmor install-doc dist deb rpm package-test host-vm-test rpm-test lint-packages \
	reproducible deps-packages release clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install the Debian packages that building, testing and the lab need (root)
	@sh test/lab/deps.sh

build: ## build every program into bin/
	@mkdir -p bin
	@for b in $(STATICBIN); do echo "  GO  bin/$$b"; $(STATIC) -o bin/$$b ./cmd/$$b || exit 1; done
	@for b in $(CGOBIN); do echo "  GO  bin/$$b"; $(CGOBUILD) -o bin/$$b ./cmd/$$b || exit 1; done

test: deps build ## everything: units, fuzz seeds, real swtpm, real libvirt and QEMU (root)
	$(GO) vet -tags $(TAGS) ./...
	$(GO) test -tags $(TAGS) -timeout 15m $$($(GO) list -tags $(TAGS) ./... | grep -vE '$(MACHINES)')
	$(GO) test -tags $(TAGS) -timeout 25m -p 1 $$($(GO) list -tags $(TAGS) ./... | grep -E '$(MACHINES)')

unit: ## the quick part: no root, no VM
	$(GO) test -tags $(TAGS) -short -timeout 10m $$($(GO) list -tags $(TAGS) ./... | grep -vE '$(MACHINES)')

race: deps ## the unit tests under the race detector
	$(GO) test -tags $(TAGS) -race -short -timeout 20m ./...

e2e: deps build ## only the end-to-end tests (root)
	$(GO) test -tags $(TAGS) -count=1 -v -timeout 25m ./test/e2e/...

lifecycle: deps build ## the whole life of VMs, each event and each kind of machine (root)
	$(GO) test -tags $(TAGS) -count=1 -v -timeout 45m ./test/lifecycle -args -matrix=all

lifecycle-table: deps build ## the same, and the times into docs/lifecycle.md (root)
	$(GO) test -tags $(TAGS) -count=1 -v -timeout 45m ./test/lifecycle -args -matrix=all -update

lint: ## go vet, gofmt, golangci-lint, shellcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet -tags $(TAGS) ./...
	$(GO) run $(GOLANGCI) run --build-tags $(TAGS)
	shellcheck $$(git ls-files "*.sh" hooks/qemu.d packaging/libexec) .ci/run

fuzz: ## each fuzz target for FUZZTIME
	@sh test/fuzz.sh $(FUZZTIME)

bench: deps build ## every target with what is measured, and the paper's evaluation (root)
	$(GO) run -tags $(TAGS) ./test/bench

fleet: deps build ## a real Verifier under the load of 10,000 VMs, on SQLite and PostgreSQL
	$(GO) run -tags $(TAGS) ./test/fleet -hosts 100 -vms 100 -rate $(FLEETRATE) -for $(FLEETTIME)
	$(GO) run -tags $(TAGS) ./test/fleet -hosts 100 -vms 100 -rate $(FLEETRATE) -for $(FLEETTIME) -store postgres
	$(GO) run -tags $(TAGS) ./test/fleet -hosts 100 -vms 100 -rate $(FLEETRATE) -for $(FLEETTIME) -store postgres -replicas 2

stress: deps build ## VMs through random operations for STRESSTIME, sidecars killed meanwhile (root)
	$(GO) run -tags $(TAGS) ./test/stress -for $(STRESSTIME)

demo: deps build ## the schemes, the attacks and the faults on real hosts and VMs (root)
	$(GO) run -tags $(TAGS) ./test/demo

install: ## copy into $(DESTDIR), after `make build`
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/libexec/virt-attest \
		$(DESTDIR)$(SYSCONFDIR)/libvirt/hooks/qemu.d $(DESTDIR)$(SYSCONFDIR)/virt-attest $(DESTDIR)$(UNITDIR) \
		$(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d $(DESTDIR)$(PREFIX)/share/man $(DESTDIR)$(DOCDIR)/examples
	install -m 0755 bin/virt-attest $(DESTDIR)$(PREFIX)/bin/
	install -m 0755 bin/virt-attest-hook bin/virt-attest-hostd bin/virt-attest-verifierd $(DESTDIR)$(PREFIX)/sbin/
	install -m 0755 bin/virt-attest-sidecar bin/virt-attest-custody packaging/libexec/* $(DESTDIR)$(PREFIX)/libexec/virt-attest/
	install -m 0755 hooks/qemu.d/50-virt-attest $(DESTDIR)$(SYSCONFDIR)/libvirt/hooks/qemu.d/
	install -m 0644 $$(ls systemd/*.service systemd/*.mount | grep -v virt-attest-guest) $(DESTDIR)$(UNITDIR)/
	install -m 0644 systemd/sysusers.d/*.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/
	install -m 0644 systemd/tmpfiles.d/*.conf $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/
	install -m 0644 packaging/etc/*.toml $(DESTDIR)$(DOCDIR)/examples/
	@for m in $(filter-out %/virt-attest-guest.8 %/virt-attest-guest.toml.5,$(wildcard docs/man/*.[1-8])); do s=$${m##*.}; install -D -m 0644 $$m $(DESTDIR)$(PREFIX)/share/man/man$$s/$${m##*/}; done

install-completion: ## the shells' completions, made by the program; it has to run here
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/vendor-completions \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(COMPLETER) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/virt-attest
	$(COMPLETER) completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_virt-attest
	$(COMPLETER) completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/virt-attest.fish

install-guest: ## copy what a VM needs into $(DESTDIR), after `make build`
	install -d $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(UNITDIR) $(DESTDIR)$(PREFIX)/lib/udev/rules.d
	install -m 0755 bin/virt-attest-guest $(DESTDIR)$(PREFIX)/sbin/
	install -m 0644 systemd/virt-attest-guest.service $(DESTDIR)$(UNITDIR)/
	install -m 0644 systemd/udev/90-virt-attest-guest.rules $(DESTDIR)$(PREFIX)/lib/udev/rules.d/
	install -D -m 0644 docs/man/virt-attest-guest.8 $(DESTDIR)$(PREFIX)/share/man/man8/virt-attest-guest.8
	install -D -m 0644 docs/man/virt-attest-guest.toml.5 $(DESTDIR)$(PREFIX)/share/man/man5/virt-attest-guest.toml.5

install-apparmor: ## AppArmor profiles, where the system has AppArmor
	install -d $(DESTDIR)$(SYSCONFDIR)/apparmor.d/abstractions/libvirt-qemu.d
	install -m 0644 packaging/apparmor/virt-attest-* $(DESTDIR)$(SYSCONFDIR)/apparmor.d/
	install -m 0644 packaging/apparmor/abstractions/libvirt-qemu.d/* $(DESTDIR)$(SYSCONFDIR)/apparmor.d/abstractions/libvirt-qemu.d/

install-doc: ## documents, and what `make release-files` has made about the programs
	install -d $(DESTDIR)$(DOCDIR)/adr
	install -m 0644 README.md SECURITY.md docs/*.md docs/*.json docs/*.txt docs/*.png $(DESTDIR)$(DOCDIR)/
	install -m 0644 docs/adr/*.md $(DESTDIR)$(DOCDIR)/adr/
	install -D -m 0644 -t $(DESTDIR)$(DOCDIR)/grafana docs/grafana/*.json
	$(HOSTGO) run ./packaging/release licences -o $(DESTDIR)$(DOCDIR)/licences.txt $(PROGRAMS)
	$(HOSTGO) run ./packaging/release sbom -version $(VERSION) -epoch $(EPOCH) -o $(DESTDIR)$(DOCDIR)/virt-attest.cdx.json $(PROGRAMS)

dist: ## the source of a release with all modules: dist/virt-attest-VERSION.tar.xz
	@sh packaging/dist.sh $(VERSION) dist

deb: ## Debian packages in dist/, for ARCH (default: this machine's)
	@sh packaging/deb.sh $(VERSION) dist $(ARCH)

rpm: ## rpm packages in dist/, for ARCH
	@sh packaging/rpm.sh $(VERSION) dist $(ARCH)

package-test: deps ## packages of two builds: installed, upgraded under a VM, removed, purged on a KVM host out of a container (root)
	@sh test/packages/builds.sh $(VERSION) dist
	$(GO) run ./test/packages -old dist/old -new dist/new

host-vm-test: deps build ## the same on a whole Debian host as a VM, with measured boot, IMA, AppArmor and a TPM (root, fifteen minutes)
	@sh test/packages/builds.sh $(VERSION) dist
	sh test/packages/hostvm.sh dist/old dist/new dist/host-vm-test

rpm-test: rpm ## the rpm packages in a tree: file lists, scriptlets, dependencies, installation, removal (root)
	@rm -rf dist/rpm && mkdir -p dist/rpm && mv dist/virt-attest*-$(VERSION)-1.*.rpm dist/rpm/
	@sh test/packages/rpmtree.sh dist/rpm

lint-packages: ## lintian and rpmlint on the packages in dist/new and dist/rpm
	lintian --allow-root --fail-on error,warning dist/new/*.changes
	rpmlint -c packaging/rpm/rpmlint.toml dist/rpm/*.rpm

reproducible: ## all packages twice, elsewhere and otherwise, and compared; COLD=1 compiles all of it twice
	@sh packaging/reproducible.sh $(VERSION) dist/reproducible

deps-packages: ## the Debian packages that building packages needs (root)
	@sh test/lab/deps.sh packages

release: ## everything that a release has, in dist/: a dry run, nothing is published
	@sh packaging/release.sh $(VERSION) dist

clean: ## remove what was built
	rm -rf bin dist
