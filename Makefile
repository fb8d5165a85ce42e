# make demo   plays the Bank: one directory, three policies, five machines, every packet measured
# make test   installs what the tests need and runs all of them
# make help   lists the rest

GO        ?= go
TOOL       = $(GO) tool -modfile=.ci/tools.mod
BIN        = bin
BINARIES   = bailiwick bailiwick-controller bailiwick-node
PREFIX    ?= /usr/local
FUZZTIME  ?= 10m
SEEDS     ?= 1000000
FROM      ?= 1
STATES    ?= 300000
POLICIES  ?= 3500
LENGTH    ?= 10m
SHARDS    ?= $(shell nproc)
.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

.PHONY: build
build: ## build the three binaries into bin/
	@mkdir -p $(BIN) && echo '*' > $(BIN)/.gitignore
	$(GO) build -trimpath -o $(BIN)/ $(addprefix ./cmd/,$(BINARIES))

.PHONY: install
install: build ## install the binaries into PREFIX/sbin (/usr/local/sbin)
	install -d $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(addprefix $(BIN)/,$(BINARIES)) $(DESTDIR)$(PREFIX)/sbin/

.PHONY: demo
demo: build ## play the Bank in network namespaces; KEEP=1 leaves it running
	$(BIN)/bailiwick demo $(if $(KEEP),--keep)

.PHONY: deps
deps: ## install the Debian packages that the tests need
	.ci/deps

.PHONY: test
test: deps build ## run every test
	$(GO) vet ./...
	$(GO) test -race -timeout 20m $$($(GO) list ./... | grep -v /e2e/)
	@# Bugs that are seeded on purpose must be found.
	$(GO) test -tags ikebug ./node/ike/impair ./node/ike/ikesim -run 'Mutants|Impair'
	@# Whole machines in namespaces, one package after another: they measure what a busy machine distorts.
	$(GO) test -race -p 1 -timeout 30m ./e2e/...

.PHONY: lint
lint: ## check formatting, style, known vulnerabilities, the protocol definitions and generated code
	test -z "$$(gofmt -l $$(git ls-files '*.go'))"
	$(GO) mod tidy -diff
	@# A cache of its own: the linter's findings carry the path of the checkout that they were made in.
	@mkdir -p $(BIN) && echo '*' > $(BIN)/.gitignore
	GOLANGCI_LINT_CACHE=$(CURDIR)/$(BIN)/lint-cache $(TOOL) golangci-lint run -c .ci/golangci.yaml ./...
	$(TOOL) buf lint
	.ci/breaking
	.ci/generated
	.ci/vuln

.PHONY: vuln
vuln: ## look the dependencies up in the Go vulnerability database
	.ci/vuln

.PHONY: generate
generate: ## regenerate code from the protocol definitions
	$(TOOL) buf generate --template proto/buf.gen.yaml

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (10m)
	.ci/fuzz $(FUZZTIME)

.PHONY: steering
steering: deps ## compare the kernel's verdicts with the policy's for POLICIES (3,500) random ones, some 100,000 packets; 1,000 flushes under traffic
	$(GO) test ./node/datapath/userspace -run '^TestKernelAgreesWithLookup$$' -v -timeout 0 -rapid.checks=$(shell expr $(POLICIES) / 5)
	$(GO) test ./node/datapath/nftable -run '^TestFlushesLeakNothing$$' -v -timeout 0 -flushes=1000
	$(GO) test ./node/datapath/userspace -run '^$$' -bench 'Steering|Swap' -benchtime 5x

.PHONY: leak
leak: deps build ## ten minutes of kills, rekeys, policy swaps and other mishaps under traffic, in three modes, with a judge on the wire; LENGTH, SEED
	$(GO) build -o $(BIN)/ ./e2e/leak ./e2e/leak/wiretap
	$(BIN)/leak -bin $(BIN) -length $(LENGTH) $(if $(SEED),-seed $(SEED)) -json $(BIN)/leak.json

.PHONY: soak
soak: ## run SEEDS simulated IKE schedules (1,000,000) from FROM on, SHARDS at a time
	@mkdir -p $(BIN) && echo '*' > $(BIN)/.gitignore
	$(GO) test -c -o $(BIN)/ikesim.test ./node/ike/ikesim
	nice -n 19 $(BIN)/ikesim.test -test.run '^TestSoak$$' -test.timeout 0 \
	  -ikesim.soak $(SEEDS) -ikesim.from $(FROM) -ikesim.shards $(SHARDS)

FAULTS ?= ^(TestFaultAtEveryOctet|TestCutAnywhere|TestSynchronizedCutAnywhere)$$

.PHONY: faults
faults: ## read a directory over a line that fails at every octet in turn, in five ways; over real servers as well; FAULTS names a part
	$(GO) test ./directory/ldap -run '$(FAULTS)' -ldap.faultstep 1 -timeout 0 -v

.PHONY: explore
explore: ## explore small IKE worlds, up to STATES states of each (300,000)
	$(GO) test ./node/ike/ikesim -run '^TestExplore$$' -ikesim.explore $(STATES) -timeout 24h -v

.PHONY: bench
bench: bench-ike bench-datapath ## run every measurement
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-ike
bench-ike: ## measure IKE beside the cost of its cryptography and beside strongSwan, see e2e/bench/RESULTS.md
	@mkdir -p $(BIN) && echo '*' > $(BIN)/.gitignore
	$(GO) build -o $(BIN)/bench ./e2e/bench
	$(BIN)/bench -json $(BIN)/bench-ike.json

.PHONY: bench-datapath
bench-datapath: deps build ## measure the datapath beside a bare wire, a plain relay, wireguard-go and strongSwan's libipsec
	$(GO) build -o $(BIN)/bench-datapath ./e2e/bench/datapath
	$(GO) build -modfile=.ci/tools.mod -o $(BIN)/wireguard-go golang.zx2c4.com/wireguard
	$(BIN)/bench-datapath -node $(BIN)/bailiwick-node -wireguard $(BIN)/wireguard-go -json $(BIN)/bench-datapath.json

.PHONY: bench-directory
bench-directory: deps ## measure the first load of 100,000 machines beside go-ldap and ldapsearch, and what one change costs
	$(GO) test ./directory/ldap -run '^$$' -bench 'FirstLoad|Move' -benchtime 3x
	$(GO) test ./directory/ldap -run '^$$' -bench 'Change|Read' -benchtime 100x
	$(GO) test ./directory ./controller/resolver -run '^$$' -bench 100k -benchtime 20x

.PHONY: bench-enrolment
bench-enrolment: ## measure joins and renewals beside their cryptography, and how 10,000 machines come back after an outage
	@mkdir -p $(BIN) && echo '*' > $(BIN)/.gitignore
	$(GO) build -o $(BIN)/bench-enrolment ./e2e/bench/enrolment
	$(BIN)/bench-enrolment

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BIN)
