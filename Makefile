# everboot: `make` alone lists what there is.
SHELL := /bin/bash
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BUILD := CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: build
build: ## build bin/everboot, one static binary
	@mkdir -p bin
	$(BUILD) -o bin/everboot ./cmd/everboot

# A commit's own date and name: equal sources, equal packages.
DEB_VERSION := $(shell git show -s --format=0.0~git%cd.%h --date=format:%Y%m%d%H%M%S 2>/dev/null || echo 0.0)

DEB_ARCHES := amd64 arm64
.PHONY: deb
deb: ## build the Debian packages for amd64 and arm64, as build/everboot_VERSION_ARCH.deb
	@rm -f $(foreach arch,$(DEB_ARCHES),build/everboot_*_$(arch).deb)
	@set -e; export DEB_VERSION=$(DEB_VERSION) SOURCE_DATE_EPOCH=$$(git show -s --format=%ct 2>/dev/null || echo 0); for arch in $(DEB_ARCHES); do \
	  mkdir -p build/deb/$$arch; GOARCH=$$arch $(BUILD) -o build/deb/$$arch/everboot ./cmd/everboot; \
	  nfpm=$$(cd packaging && go tool -n nfpm); ARCH=$$arch $$nfpm package -f packaging/nfpm.yaml -p deb -t build/everboot_$(DEB_VERSION)_$$arch.deb; done

IMAGE := build/everboot-appliance
.PHONY: image
image: build ## build the appliance's VM image, as build/everboot-appliance.raw and .qcow2 (4 minutes; CONSUL=FILE puts a Consul in)
	@$(MAKE) --no-print-directory deb DEB_ARCHES=amd64
	SOURCE_DATE_EPOCH=$$(git show -s --format=%ct 2>/dev/null || echo 946684800) bin/everboot image appliance --package $$(echo build/everboot_*_amd64.deb) \
	  --output $(IMAGE).raw --qcow2 $(IMAGE).qcow2 $(if $(CONSUL),--consul $(CONSUL))

# Vagrant's own public key, which every box has: the private one is known to all, and Vagrant replaces it at the first start.
VAGRANT_KEY ?= /usr/share/vagrant/keys/vagrant.pub
.PHONY: box
box: build ## build a box of the VM image for Vagrant and libvirt, and add it as everboot/node
	@$(MAKE) --no-print-directory deb DEB_ARCHES=amd64
	@mkdir -p build/box build/share
	bin/everboot image appliance --package $$(echo build/everboot_*_amd64.deb) --output build/box/box.raw --qcow2 build/box/box.img \
	  --add rsync --user vagrant=$(VAGRANT_KEY) $(if $(wildcard build/consul),--consul build/consul)
	@rm build/box/box.raw
	@printf '{"provider":"libvirt","format":"qcow2","virtual_size":8}\n' >build/box/metadata.json
	tar -C build/box -czf build/everboot-node.box metadata.json box.img
	@for f in disk.raw vmlinuz initrd.img; do ln -f build/vdisk-debian/$$f build/share/; done
	@! command -v vagrant >/dev/null || vagrant box add --force --name everboot/node build/everboot-node.box

.PHONY: test-deb
test-deb: build ## install and purge the Debian packages in a fresh Debian 12 and 13, that for arm64 where qemu-user-static is (5 minutes; not part of make test)
	@$(MAKE) --no-print-directory deb
	@for suite in bookworm trixie; do packaging/try-suite.sh $$suite build/everboot_*_amd64.deb && packaging/try-arm64.sh $$suite build/everboot_*_arm64.deb || exit 1; done
	@dpkg-deb --info build/everboot_*_arm64.deb | grep -x ' Architecture: arm64'

.PHONY: test-image
test-image: CONSUL ?= $(wildcard build/consul)
test-image: deps deb image vdisk ## boot two machines of the VM image and a target through them, on emulated hardware (15 minutes; not part of make test)
	EVERBOOT_LAB=1 EVERBOOT_IMAGE=$(CURDIR)/$(IMAGE).raw go test -count=1 -timeout 60m -v -run 'TestAppliance[CI]' ./internal/lab/fleet

.PHONY: test-media
test-media: deps build vdisk ## boot eight machines from boot media to the login prompt of a Debian, wait until a running one renews its medium by itself, and boot one by an initramfs of dracut (12 minutes; not part of make test)
	EVERBOOT_LAB=1 EVERBOOT_UNHURRIED=1 go test -count=1 -timeout 60m -v -run "TestBootMedium|TestDracut" ./internal/lab/fleet

.PHONY: deps
deps: ## install the Debian packages that tests and demo need (as root), or print the line to run
	@internal/lab/deps.sh

.PHONY: consul
consul: ## build a real Consul agent for the tests (7 minutes the first time on 2 cores)
	@internal/lab/consul/build.sh

.PHONY: vdisk
vdisk: ## build the Debian vDisk of the demo and the tests (2 minutes the first time)
	@go run ./internal/lab/guest/vdisk/cmd

.PHONY: lint
lint: ## gofmt, go vet, staticcheck with all checks, go mod tidy
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "gofmt these: $$out"; exit 1; }
	go vet ./...
	go tool staticcheck -checks all ./...
	go mod tidy -diff

.PHONY: unit
unit: ## the rings that need neither root nor packages, with the race detector
	go test -race ./...

.PHONY: test
# What waits more than it works: two of these run at a time.
PATIENT := ./site/... ./vip/...

test: deps build lint consul vdisk ## everything: lint, unit rings, lab, machines (RACE=1: the lab's too under the race detector)
	go test -race ./...
	EVERBOOT_LAB=1 go test -count=1 -p 2 -timeout 10m $(if $(RACE),-race) $(PATIENT)
	EVERBOOT_LAB=1 go test -count=1 -p 1 -timeout 25m $(if $(RACE),-race) $$(go list ./... | grep -v $(PATIENT:./%/...=-e '^everboot/%\(/\|$$\)'))

.PHONY: demo
demo: deps build vdisk ## play the main job: boot a real Debian, kill its streamer, then its appliance (KEEP=1 leaves it running)
	@go run ./internal/lab/demo $(if $(KEEP),-keep)

.PHONY: bench
bench: ## benchmarks of the pure parts
	go test -run '^$$' -bench . -benchmem ./...

.PHONY: bench-tftp
bench-tftp: deps build ## TFTP beside tftpd-hpa, dnsmasq, atftpd and pin/tftp, HTTP beside nginx: throughput, loss, moves of the address (25 minutes)
	@CGO_ENABLED=0 go build -o bin/tftpbench ./internal/lab/tftpbench
	@bin/tftpbench

.PHONY: bench-stream
bench-stream: deps build consul vdisk ## two hundred targets when streamers die, fall silent, drain and return; forwarding beside HAProxy; iscsi-test-cu; a large site; Consul gone; machines in QEMU (15 minutes)
	@go run ./internal/lab/benchstream
	@go test -run '^$$' -bench Pick ./site ./streamer | grep ns/op

.PHONY: bench-vip
bench-vip: deps build ## how long clients of the floating address wait when its owner stops, dies, freezes: beside keepalived
	@go run ./internal/lab/benchvip

.PHONY: bench-dhcp
bench-dhcp: deps build ## DHCP of two appliances beside Kea and dnsmasq: rate, memory, a death and a partition, by perfdhcp and a capture
	@go run ./internal/lab/dhcpbench

FUZZTIME ?= 60s
.PHONY: fuzz
fuzz: ## fuzz every parser of what comes from the wire, FUZZTIME (60s) each
	@set -e; for p in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$p | grep ^Fuzz); do echo "== $$p $$f"; go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p; done; done

.PHONY: cover
cover: ## coverage of the unit rings, as build/cover.html
	@mkdir -p build
	go test -coverprofile build/cover.out ./...
	go tool cover -html build/cover.out -o build/cover.html

.PHONY: clean
clean: ## remove bin and build
	rm -rf bin build
