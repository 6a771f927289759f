package consul_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"everboot/internal/lab"
	"everboot/internal/lab/consulagent"
	"everboot/site"
)

func TestConsulKilledAndStartedAgain(t *testing.T) {
	l := lab.ForTest(t)
	agent := consulagent.Start(t, l.Host("c1"))
	w := watch(t, agent)
	w.put(site.KindDevice, mac1, `{"mac":"`+mac1+`","name":"t1"}`)
	r := registrar(t, agent)
	if _, err := r.Announce(t.Context(), streamer("s1")); err != nil {
		t.Fatal(err)
	}
	full := func(got told) bool {
		return got.about.Reachable && len(got.content.Devices) == 1 && len(got.content.Streamers) == 1
	}
	w.wait("all is told", full)

	killed := time.Now()
	agent.Kill()
	got := w.wait("the loss is told", func(got told) bool { return !got.about.Reachable })
	if took := got.at.Sub(killed); took > 4*time.Second {
		t.Errorf("the loss was told after %v", took)
	} else {
		t.Logf("loss told after %v: %s", took, got.about.Error)
	}
	if len(got.content.Devices) != 1 || len(got.content.Streamers) != 1 || got.about.Error == "" || got.about.Since.Before(killed) {
		t.Errorf("told %+v", got)
	}
	if err := w.Put(t.Context(), site.KindVDisk, "debian", []byte(`{"name":"debian"}`)); err == nil || !strings.Contains(err.Error(), "does not answer: start its agent") {
		t.Errorf("put without Consul: %v", err)
	}
	if _, err := r.Announce(t.Context(), streamer("s1")); err == nil {
		t.Error("announcement without Consul is no error")
	}
	fresh := watch(t, agent) // starts while Consul is down
	if got := fresh.wait("a start without Consul is told", func(got told) bool { return got.about.Kind == "consul" }); got.about.Reachable {
		t.Errorf("told %+v", got)
	}

	started := time.Now()
	agent.Start()
	if err := lab.Eventually(timeout, "the streamer announces itself again", func() error {
		_, err := r.Announce(t.Context(), streamer("s1"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*watcher{w, fresh} {
		got := x.wait("all is told again", full)
		t.Logf("told again %v after the start", got.at.Sub(started))
	}
	w.put(site.KindVDisk, "debian", `{"name":"debian"}`)
	w.wait("watching goes on", func(got told) bool { return len(got.content.VDisks) == 1 })
	for _, x := range w.all() {
		if x.at.After(killed) && len(x.content.Devices) == 0 {
			t.Error("the device left the content in between")
		}
	}
}

// TestConsulThreeServers kills the server that leads, and then cuts the cable of the next, which is the silent case.
func TestConsulThreeServers(t *testing.T) {
	l := lab.ForTest(t)
	lan := l.Segment("lan")
	var hosts []*lab.Host
	cables := make(map[string]*lab.Cable)
	for i, name := range []string{"c1", "c2", "c3"} {
		h := l.Host(name)
		cables[name] = h.Join(lan, fmt.Sprintf("198.18.0.%d/24", 11+i))
		hosts = append(hosts, h)
	}
	agents := consulagent.Cluster(t, hosts...)
	leader, follower := agents[0], agents[1]
	for i, a := range agents {
		if a.Leads() {
			leader, follower = a, agents[(i+1)%3]
		}
	}
	w := watch(t, follower)
	w.put(site.KindDevice, mac1, `{"mac":"`+mac1+`","name":"t1"}`)
	announcing := announceAlways(t, follower)
	w.wait("all is told", func(got told) bool { return len(got.content.Devices) == 1 && len(got.content.Streamers) == 1 })

	for i, fail := range []func(){leader.Kill, func() { cables[leader.Host.Name()].Silence(true) }} {
		begin := time.Now()
		fail()
		name := fmt.Sprintf("after%d", i)
		if err := lab.Eventually(30*time.Second, "a put is taken again", func() error {
			time.Sleep(100 * time.Millisecond) // a server without a leader refuses at once
			return w.Put(t.Context(), site.KindVDisk, name, json.RawMessage(`{"name":"`+name+`"}`))
		}); err != nil {
			t.Fatal(err)
		}
		got := w.wait("the put is told", func(got told) bool { return got.about.Reachable && len(got.content.VDisks) == i+1 })
		t.Logf("round %d: writes and watches work %v after the leader failed", i, got.at.Sub(begin))
		if err := lab.Eventually(timeout, "the streamer announces itself after the leader failed", func() bool { return announcing().After(got.at) }); err != nil {
			t.Fatal(err)
		}
		for _, x := range w.all() {
			if x.at.After(begin) && (len(x.content.Devices) != 1 || len(x.content.Streamers) != 1) {
				t.Errorf("round %d: told %d devices, %d streamers in between", i, len(x.content.Devices), len(x.content.Streamers))
			}
		}
		if i == 0 {
			// The killed one comes back before the next fails, and the next leader may be the one that we ask: ask the other then.
			leader.Start()
			leader.WaitLeader()
			if follower.Leads() {
				t.Log("the agent that is asked leads now: no second round")
				return
			}
			for _, a := range agents {
				if a.Leads() {
					leader = a
				}
			}
		}
	}
}

// TestConsulWithoutRights: an answer from which something was taken away is not true.
func TestConsulWithoutRights(t *testing.T) {
	l := lab.ForTest(t)
	const token = "7e57ab1e-0000-4000-8000-000000000001"
	agent := consulagent.Start(t, l.Host("c1"),
		`acl { enabled = true, default_policy = "deny", tokens { initial_management = "`+token+`" } }`)
	cfg := config(t, agent)
	cfg.Token = token
	master := watchWith(t, cfg)
	if err := lab.Eventually(timeout, "the token is known", func() error {
		return master.Put(t.Context(), site.KindDevice, mac1, []byte(`{"mac":"`+mac1+`"}`))
	}); err != nil {
		t.Fatal(err)
	}
	master.wait("with the token all is told", func(got told) bool { return got.about.Reachable && len(got.content.Devices) == 1 })
	nobody := watch(t, agent)
	got := nobody.wait("without a token the lack is told", func(got told) bool { return got.about.Error != "" })
	if got.about.Reachable || !strings.Contains(got.about.Error, `key_prefix "everboot/berlin/"`) {
		t.Errorf("told %+v", got)
	}
	if err := nobody.Put(t.Context(), site.KindVDisk, "debian", []byte(`{"name":"debian"}`)); err == nil || !strings.Contains(err.Error(), "refuses the token") {
		t.Errorf("put without a token: %v", err)
	}
}
