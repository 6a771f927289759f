// Package consulagent runs real Consul agents on hosts of a lab.
package consulagent

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
)

// Build returns the path of a Consul agent; it builds one if there is none. It takes up to ten minutes the first time on two cores.
func Build(t testing.TB) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	cmd := exec.Command(filepath.Join(filepath.Dir(here), "..", "consul", "build.sh"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("building Consul: %v; run internal/lab/consul/build.sh to see why", err)
	}
	return strings.TrimSpace(string(out))
}

// Agent is one Consul server on a host. What it keeps stays when it is killed.
type Agent struct {
	// Host is where it runs.
	Host *lab.Host
	// Address is where it answers HTTP, inside the lab.
	Address string
	// Process is its current process.
	Process *lab.Process

	t    testing.TB
	argv []string
	bind string
}

const (
	httpPort = "8500"
	// patience is for how long a cluster may take to have a leader on a busy machine.
	patience = time.Minute
)

// Start starts one server on a host, which needs no cable, and waits until it leads. Each hcl is a piece of configuration of Consul's.
func Start(t testing.TB, host *lab.Host, hcl ...string) *Agent {
	t.Helper()
	a := newAgent(t, Build(t), host, nil, 1)
	for _, h := range hcl {
		a.argv = append(a.argv, "-hcl="+h)
	}
	a.Start()
	a.WaitLeader()
	return a
}

// Cluster starts a server on each of the hosts, which must be on one segment, and waits until each of them knows the leader.
func Cluster(t testing.TB, hosts ...*lab.Host) []*Agent {
	t.Helper()
	bin := Build(t)
	var addresses []string
	for _, h := range hosts {
		addresses = append(addresses, bindAddress(h))
	}
	var agents []*Agent
	for _, h := range hosts {
		a := newAgent(t, bin, h, addresses, len(hosts))
		a.Start()
		agents = append(agents, a)
	}
	for _, a := range agents {
		a.WaitLeader()
	}
	return agents
}

// bindAddress is the host's first IPv4 address on eth0, or its loopback if it has no cable.
func bindAddress(h *lab.Host) string {
	if len(h.Cables()) == 0 {
		return "127.0.0.1"
	}
	for _, p := range h.AddressesOf("eth0") {
		if p.Addr().Is4() {
			return p.Addr().String()
		}
	}
	return "127.0.0.1"
}

func newAgent(t testing.TB, bin string, host *lab.Host, join []string, servers int) *Agent {
	a := &Agent{Host: host, t: t, bind: bindAddress(host)}
	a.Address = a.bind + ":" + httpPort
	client := a.bind
	if client != "127.0.0.1" {
		client += " 127.0.0.1"
	}
	a.argv = []string{
		bin, "agent", "-server", "-bootstrap-expect=" + strconv.Itoa(servers), "-node=" + host.Name(), "-data-dir=" + t.TempDir(),
		"-bind=" + a.bind, "-client=" + client, "-log-level=warn", "-disable-host-node-id", "-disable-keyring-file",
		"-http-port=" + httpPort, "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1", "-serf-wan-port=-1",
		"-hcl=disable_update_check=true", "-hcl=performance { raft_multiplier = 1 }", "-hcl=connect { enabled = false }",
		"-hcl=telemetry { disable_hostname = true }", "-hcl=leave_on_terminate = false",
		"-hcl=session_ttl_min = \"1s\"", "-hcl=ui_config { enabled = false }",
	}
	for _, j := range join {
		if j != a.bind {
			a.argv = append(a.argv, "-retry-join="+j, "-retry-interval=1s")
		}
	}
	return a
}

// Start starts the agent, also after Kill or Stop, with the data that it had.
func (a *Agent) Start() { a.Process = a.Host.Start("consul", a.argv...) }

// Kill kills the agent.
func (a *Agent) Kill() { a.Process.Kill() }

// Stop stops the agent.
func (a *Agent) Stop() {
	a.t.Helper()
	if err := a.Process.Stop(10 * time.Second); err != nil {
		a.t.Logf("stopping Consul on %s: %v", a.Host.Name(), err) // its exit code is 1 after a signal
	}
}

// WaitLeader waits until the agent knows a leader and can read a key, and fails the test if that takes too long.
func (a *Agent) WaitLeader() {
	a.t.Helper()
	err := lab.Eventually(patience, "Consul on "+a.Host.Name()+" has a leader", func() error {
		if leader, err := a.Leader(); err != nil || leader == "" {
			return fmt.Errorf("leader %q: %w", leader, err)
		}
		_, err := a.get("/v1/kv/?keys&consistent")
		return err
	})
	if err != nil {
		a.t.Fatal(err)
	}
}

// Leader returns the address (HOST:8300) of the server that leads, as this agent knows it; empty if none does.
func (a *Agent) Leader() (string, error) {
	body, err := a.get("/v1/status/leader")
	if err != nil {
		return "", err
	}
	var leader string
	err = json.Unmarshal(body, &leader)
	return leader, err
}

// Leads reports whether this agent leads, as it sees it.
func (a *Agent) Leads() bool {
	leader, err := a.Leader()
	return err == nil && strings.HasPrefix(leader, a.bind+":")
}

// get asks the agent. That there is no key is no error, and neither is that we may not see it.
func (a *Agent) get(path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+a.Address+path, nil)
	if err != nil {
		return nil, err
	}
	client := a.Host.HTTP()
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode >= http.StatusInternalServerError {
		err = fmt.Errorf("asking Consul for %s: %s: %s", path, res.Status, body)
	}
	return body, err
}
